"""Figures, tables and sentences of the page `layers`."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes

from raretok.claims.layers import estimate
from raretok.claims.layers.estimate import Agreement, Layers, Numbers, head_influence, numbers
from raretok.claims.regimes.estimate import rank_curves
from raretok.claims.regimes.figures import binned
from raretok.claims.sample import KINDS, Sample
from raretok.claims.study import Study
from raretok.claims.style import COLOURS, PALETTE, interval_text, points
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate, jackknife

ORDER = {-1: "last", -2: "2nd last", -3: "3rd last", -4: "4th last"}
EXACT = "last, exact"
DASHES = {"last": "-", "2nd last": "--", "3rd last": "-.", "4th last": ":"}
HUES = [PALETTE[n] for n in (2, 1, 4, 5)]  # none that means rare or common
Colour = str | tuple[float, ...]
Dash = str | tuple[int, tuple[int, int]]
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
    ax.set(xlim=(-4.4, -0.4), ylabel="influence (nats a token)")
    ax.set_xticks(list(ORDER), [ORDER[layer] for layer in ORDER])


def curves(ax: Axes, layers: Layers, exact: Sample | None, kind: str) -> None:
    """Rank curves of the layers, means in bins, log-log; the exact one of the last layer dotted."""
    for (layer, sample), colour in zip(layers.total.items(), HUES, strict=False):
        name = ORDER[layer]
        curve(ax, binned(rank_curves(sample, kind)[0]), DASHES[name], colour, name)
    if exact:
        curve(ax, binned(rank_curves(exact, kind)[0]), (0, (1, 1)), COLOURS["fit"], EXACT)
    ax.set(xscale="log", yscale="log", xlabel="neuron, by rank", title=f"{kind} targets")
    ax.set_ylabel("influence (nats a token)")
    ax.set_ylim(bottom=1e-5)


def curve(
    ax: Axes, values: Float[np.ndarray, " rank"], dash: Dash, colour: Colour, label: str
) -> None:
    rank, positive = np.arange(1.0, values.size + 1), np.where(values > 0, values, np.nan)
    ax.plot(rank, positive, ls=dash, color=colour, lw=1.8, label=label)


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
    ax.set(xlim=(-4.5, -0.5), ylim=(lowest - 0.05, 1.05), title=MEASURES[measure])
    ax.set_xticks(list(ORDER), [ORDER[layer] for layer in ORDER])
    ax.set_ylabel("first order against exact")


def table(layers: Layers, exact: Sample | None) -> pd.DataFrame:
    """One row a layer, the last one exactly too; gaps with their reason."""
    rows = {ORDER[layer]: row(one) for layer, one in layers.numbers.items()}
    for layer, found in layers.agreement.items():
        rows[ORDER[layer]]["agreement, top"] = agreed(found[0, 0, :, 0])
        rows[ORDER[layer]]["agreement, random"] = agreed(found[0, 1, :, 0])
    if exact:
        rows[EXACT] = row(numbers(exact, None, None))
    for layer, why in layers.gaps.items():
        rows[ORDER[layer]] = {"rare, nats": f"gap: {why}"}
    order = [name for name in (EXACT, *ORDER.values()) if name in rows]
    shown_rows = pd.DataFrame.from_dict(rows, orient="index").loc[order].fillna("")
    return shown_rows.rename_axis("layer")


def row(one: Numbers) -> dict[str, str]:
    return {
        "rare, nats": interval_text(one.influence["rare"]),
        "of it unmediated": interval_text(one.unmediated["rare"]) if one.unmediated else "",
        "common, nats": interval_text(one.influence["common"]),
        "share of the layers": interval_text(one.share) if one.unmediated else "",
        "lift (R1)": interval_text(one.lift),
        "concentration (R0)": interval_text(one.concentration),
        "reliability": f"{one.reliability:.2f}",
    }


def agreed(one: Float[np.ndarray, " bound"]) -> str:
    return interval_text(Estimate(*one) if np.isfinite(one).all() else None, why="")


def models_table(models: dict[str, Layers | str]) -> pd.DataFrame:
    """Share of each layer in the influence of all on rare targets, one row a model."""
    rows = {name: shares(one) for name, one in models.items()}
    columns = ["layers", *ORDER.values(), *(f"lift, {ORDER[layer]}" for layer in (-1, -2))]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("model")


def shares(layers: Layers | str) -> list[str]:
    """Row of a model: how many layers, the share of each, the lift of the last two."""
    if isinstance(layers, str):
        return [layers, *[""] * (len(ORDER) + 2)]
    found = layers.numbers
    of = [interval_text(found[layer].share) if layer in found else "" for layer in ORDER]
    lifts = [interval_text(found[layer].lift) if layer in found else "" for layer in (-1, -2)]
    return [str(len(found)), *of, *lifts]


SAID = (
    *("n_layers", "share", "fair", "place", "lift_before", "agree_top", "agree_random"),
    *("gaps", "first_order", "exactly"),
)


def said(layers: Layers | str, exact: Sample | None) -> dict[str, str]:
    """What the page's sentences name; the reason in the share where there is no layer."""
    if isinstance(layers, str):
        return dict.fromkeys(SAID, "not testable here") | {"share": layers}
    found, n = layers.numbers, int(layers.counted["layers"])
    last = found.get(-1)
    one = last and last.share
    before = found[-2].lift if -2 in found else None
    worst = [min(of[0, j, 0, 0] for of in layers.agreement.values()) for j in range(len(SUBSETS))]
    values = (
        str(n),
        interval_text(one, 100.0) + (" %" if one else ""),
        f"{100 / n:.0f}",
        place(one, n),
        interval_text(before),
        *(f"{value:.2f}" for value in worst),
        "; ".join(f"{ORDER[layer]}: {why}" for layer, why in layers.gaps.items()) or "none",
        interval_text(last and last.influence["rare"]),
        interval_text(exact and jackknife(head_influence(exact, "rare"))),
    )
    return dict(zip(SAID, values, strict=True))


def place(one: Estimate | None, n: int) -> str:
    """Where the influence sits, as far as the interval of the last layer's share says."""
    if one is None:
        return "whether most of it is there cannot be said"
    if one.low > 0.5:
        return "most of it is there"
    if one.high >= 0.5:
        return "these documents do not say whether most of it is there"
    if one.low > 1 / n:
        return "that is more than an equal share, but not most of it"
    less = "less than" if one.high < 1 / n else "not clearly more or less than"
    return f"that is not most of it, and {less} an equal share"


def read(study: Study) -> Layers:
    """The layers of a study. Raises `NotTestableError` where none was measured."""
    return estimate.read(study.part, study.blocks, study.architecture.n_layers)


def exact_of(study: Study) -> Sample | None:
    """Exact effects in the last layer, as `regimes` has them; None where they are missing."""
    try:
        return study.sample(estimate.READING)
    except NotTestableError:
        return None
