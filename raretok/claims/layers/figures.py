"""Figures and tables of the page `layers`."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from raretok.claims.layers.estimate import Agreement, Layers, Numbers, head_influence, numbers
from raretok.claims.regimes.estimate import rank_curves
from raretok.claims.regimes.figures import DASHES, binned_curve
from raretok.claims.sample import KINDS, Sample
from raretok.claims.style import COLOURS, PALETTE, points, table
from raretok.stats.jackknife import Estimate, jackknife

ORDER = {-1: "last", -2: "2nd last", -3: "3rd last", -4: "4th last"}
EXACT = "last, exact"
HUES = [PALETTE[n] for n in (2, 1, 4, 5)]  # none that means rare or common
SUBSETS = {"top": "full", "random": "none"}
MEASURES = ("rank correlation", "rank correlation of sizes", "share of the largest tenth found")


def influence_by_layer(ax: Axes, layers: Layers, exact: Sample | None) -> None:
    """Influence of the top 1 % of each layer, the last on the right; a gap is named there."""
    for i, kind in enumerate(KINDS):
        for dash, of in (("-", "influence"), ("--", "unmediated")):
            estimates = [getattr(one, of)[kind] for one in layers.numbers.values()]
            x = np.array(list(layers.numbers)) + 0.08 * i
            label = f"{kind}, {'total' if of == 'influence' else 'unmediated'}"
            points(ax, x, estimates, ls=dash, ms=5, lw=1.4, color=COLOURS[kind], label=label)
        if exact:
            one, label = jackknife(head_influence(exact, kind)), f"{kind}, exact"
            style = {"marker": "D", "mfc": "white", "ms": 7, "label": label}
            points(ax, [-0.75 + 0.08 * i], [one], color=COLOURS[kind], **style)
    for layer in layers.gaps:
        ax.text(layer, 0.5, "gap", transform=ax.get_xaxis_transform(), ha="center")
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set(xlim=(-4.4, -0.4), xlabel="MLP", ylabel="influence (nats a token)")
    ax.set_xticks(list(ORDER), list(ORDER.values()))


def curves(ax: Axes, layers: Layers, exact: Sample | None, kind: str) -> None:
    """Rank curves of the layers, means in bins, log-log; the exact one of the last layer dotted."""
    for (layer, sample), dash, hue in zip(layers.total.items(), DASHES, HUES, strict=False):
        style = {"ls": dash, "color": hue, "label": ORDER[layer]}
        binned_curve(ax, rank_curves(sample, kind)[0], **style)
    if exact:
        style = {"ls": (0, (1, 1)), "color": COLOURS["fit"], "label": EXACT}
        binned_curve(ax, rank_curves(exact, kind)[0], **style)
    ax.set_title(f"{kind} targets")
    ax.set_ylim(bottom=1e-5)


def agreement(ax: Axes, found: dict[int, Agreement], measure: int) -> None:
    """Agreement of first-order effects with exact ablation, by layer, with 95 % intervals."""
    for i, kind in enumerate(KINDS):
        for j, (subset, fill) in enumerate(SUBSETS.items()):
            x = np.array(list(found)) + 0.12 * (2 * i + j) - 0.18
            estimates = [Estimate(*one[i, j, :, measure]) for one in found.values()]
            label = f"{kind} targets, {subset} neurons"
            points(ax, x, estimates, ms=6, fillstyle=fill, color=COLOURS[kind], label=label)
    ax.axhline(0, color="0.3", lw=0.8)
    lowest = min(0.0, *(float(np.nanmin(one[..., measure])) for one in found.values()))
    ax.set(xlim=(-4.5, -0.5), ylim=(lowest - 0.05, 1.05), xlabel="MLP", title=MEASURES[measure])
    ax.set_xticks(list(ORDER), list(ORDER.values()))
    ax.set_ylabel("first order against exact")


def layer_table(layers: Layers, exact: Sample | None) -> pd.DataFrame:
    """One row a layer, the last one exactly too; gaps with their reason."""
    rows: dict[str, Any] = {EXACT: of_layer(numbers(exact, None, None))} if exact else {}
    for layer, name in ORDER.items():
        if layer in layers.gaps:
            rows[name] = f"gap: {layers.gaps[layer]}"
            continue
        rows[name] = of_layer(layers.numbers[layer])
        for subset, bounds in zip(SUBSETS, layers.agreement[layer][0, :, :, 0], strict=True):
            found = Estimate(*bounds) if np.isfinite(bounds).all() else ""
            rows[name][f"agreement, {subset}"] = found
    return table(rows, "layer")


def of_layer(one: Numbers) -> dict[str, Estimate | str | None]:
    """Row of a layer; what exact effects do not have stays empty."""
    return {
        "rare, nats": one.influence["rare"],
        "of it unmediated": one.unmediated.get("rare", ""),
        "common, nats": one.influence["common"],
        "share of the layers": one.share if one.unmediated else "",
        "lift (R1)": one.lift,
        "concentration (R0)": one.concentration,
        "reliability": f"{one.reliability:.2f}",
    }


def of_model(layers: Layers) -> dict[str, Estimate | str | None]:
    """Row of a model: how many layers, the share of each, the lift of the last two."""
    there = {ORDER[layer]: one for layer, one in layers.numbers.items()}
    shares = {name: there[name].share if name in there else "" for name in ORDER.values()}
    lifts = {
        f"lift, {name}": there[name].lift for name in list(ORDER.values())[:2] if name in there
    }
    return {"layers": str(len(there))} | shares | lifts
