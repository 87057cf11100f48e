"""Figures and tables of the page `layers`."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from raretok.claims.finding import or_none
from raretok.claims.layers.estimate import Agreement, Layers, head_influence, share
from raretok.claims.regimes.estimate import concentration, lift, rank_curves
from raretok.claims.regimes.figures import DASHES, binned_curve
from raretok.claims.sample import KINDS, Sample
from raretok.claims.style import COLOURS, PALETTE, points, table
from raretok.stats.jackknife import Estimate, jackknife

ORDER = {-1: "last", -2: "2nd last", -3: "3rd last", -4: "4th last"}
EXACT = "last, exact"
HUES = [PALETTE[n] for n in (2, 1, 4, 5)]  # none that means rare or common
SUBSETS = {"top": "full", "random": "none"}
MEASURES = ("rank correlation", "rank correlation of sizes", "share of the largest tenth found")


def influence(sample: Sample, kind: str, effect: Sample) -> Estimate | None:
    """Effect of the top 1 % of a layer, nats a token; None where it cannot be had."""
    return or_none(lambda: jackknife(head_influence(sample, kind, effect)))


def influence_by_layer(ax: Axes, layers: Layers, exact: Sample | None) -> None:
    """Influence of the top 1 % of each layer, the last on the right; a gap is named there."""
    for i, kind in enumerate(KINDS):
        for dash, name in (("-", "total"), ("--", "unmediated")):
            effects = getattr(layers, name)
            found = [influence(one, kind, effects[at]) for at, one in layers.total.items()]
            x, style = np.array(list(effects)) + 0.08 * i, {"ls": dash, "ms": 5, "lw": 1.4}
            points(ax, x, found, color=COLOURS[kind], label=f"{kind}, {name}", **style)
        if exact:
            style = {"marker": "D", "mfc": "white", "ms": 7, "label": f"{kind}, exact"}
            found = [influence(exact, kind, exact)]
            points(ax, [-0.75 + 0.08 * i], found, color=COLOURS[kind], **style)
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
    rows: dict[str, Any] = {EXACT: of_effects(exact)} if exact else {}
    for layer, name in ORDER.items():
        if layer in layers.gaps:
            rows[name] = f"gap: {layers.gaps[layer]}"
            continue
        rows[name] = of_layer(layers, layer)
        for subset, bounds in zip(SUBSETS, layers.agreement[layer][0, :, :, 0], strict=True):
            found = Estimate(*bounds) if np.isfinite(bounds).all() else ""
            rows[name][f"agreement, {subset}"] = found
    return table(rows, "layer")


def of_layer(layers: Layers, layer: int) -> dict[str, Estimate | str | None]:
    """Row of a layer."""
    one, other = layers.total[layer], layers.unmediated[layer]
    return of_effects(one) | {
        "of it unmediated": influence(one, "rare", other),
        "share of the layers": share_of(layers, layer),
    }


def share_of(layers: Layers, layer: int) -> Estimate | None:
    """G3 of a layer that was measured; None where it cannot be had."""
    return or_none(lambda: share(layers.whole, layer))


def of_effects(one: Sample) -> dict[str, Estimate | str | None]:
    """R1's lift and R0's concentration of a layer, and the influence of its head."""
    return {
        "rare, nats": influence(one, "rare", one),
        "of it unmediated": "",  # exact effects have none, and no share
        "common, nats": influence(one, "common", one),
        "share of the layers": "",
        "lift (R1)": or_none(lift, one, "rare"),
        "concentration (R0)": or_none(concentration, one),
        "reliability": f"{one.reliability('rare'):.2f}",
    }


def of_model(layers: Layers) -> dict[str, Estimate | str | None]:
    """Row of a model: how many layers, the share of each, the lift of the last two."""
    there = {ORDER[at]: share_of(layers, at) for at in layers.total}
    lifts = {
        f"lift, {ORDER[at]}": or_none(lift, layers.total[at], "rare")
        for at in (-1, -2)
        if at in layers.total
    }
    shares = {name: there.get(name, "") for name in ORDER.values()}
    return {"layers": str(len(there))} | shares | lifts
