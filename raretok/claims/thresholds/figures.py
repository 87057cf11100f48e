"""Figures and tables of the page `thresholds`."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from raretok.claims.digest import QUIET
from raretok.claims.style import COLOURS, MARKS, points, shade, table, ticks
from raretok.claims.thresholds.estimate import SHOWN, Case
from raretok.claims.thresholds.gradient import Gradient, Slopes

FEWEST = 200  # equally weighted positions, below which a mark is hollow
MODELS = (("o", "black"), ("s", "0.45"), ("^", "0.6"), ("D", "0.7"), ("v", "0.5"))


def sweep(ax: Axes, series: dict[str, list[Case]], name: str, spec: Any = None) -> None:
    """One quantity over the percentage of rare types; the first model prominent, others muted.

    Hollow where the rare positions are worth fewer than FEWEST. `spec`: the estimand
    whose regions are shaded.
    """
    for i, ((label, cases), mark) in enumerate(zip(series.items(), MODELS, strict=False)):
        style = dict(zip(("marker", "color"), mark, strict=True)) | {"ms": 5 if i else 7}
        x, width = [one.percentile * (1 + 0.035 * i) for one in cases], 0.8 if i else 1.5
        found = [one.found.get(name) for one in cases]
        points(ax, x, found, ls="-", lw=width, width=width, zorder=4 - i, label=label, **style)
        few = [one if case.worth < FEWEST else None for one, case in zip(found, cases, strict=True)]
        points(ax, x, few, width=width, mfc="white", zorder=5 - i, **style)
    _, unit, limits, _ = SHOWN[name]
    if limits:
        ax.set(yscale="log", ylim=limits)
        ticks(ax.yaxis, (0.1, 1, 10))
    shade(ax, spec)
    ax.set(title=name, xscale="log", xlabel="types that are rare, %", ylabel=unit)
    ticks(ax.xaxis, (2, 5, 10, 20, 50))


def cases_table(cases: list[Case]) -> pd.DataFrame:
    """Numbers of rare types and positions, and every quantity, a row each definition of rare."""
    rows = {(one.percentile, one.rule, one.by): of_case(one) for one in cases}
    return table(rows, ["%", "rule", "rare by its"])


def of_case(one: Case) -> dict[str, Any] | str:
    """Row of one definition of rare, or why there is none."""
    if one.reason:
        return f"gap: {one.reason}"
    counts = {"rare types": one.types, "positions": one.positions, "worth": one.worth}
    return {name: f"{n:,.0f}" for name, n in counts.items()} | one.found


def frequency(ax: Axes, found: Gradient, title: str = "") -> None:
    """Influence of the group by frequency of the target, and the line through what is not rare."""
    x, threshold = 10 ** np.array(found.x), 10**found.threshold
    y, low, high = np.array([(one.value, one.low, one.high) for one in found.line]).T
    n = int((x <= threshold * (1 + 1e-9)).sum())  # rare bins, which are the first
    ax.fill_between(x, low, high, color="0.88", lw=0, label="95 % of the line")
    ax.plot(x, y, "-", color=COLOURS["fit"], lw=1.4, label="line through other targets")
    ax.axvline(threshold, color="0.5", lw=0.8, ls="--", label=f"{QUIET}threshold")
    rare, other = slice(n), slice(n, None)
    for of, kind, label in ((rare, "rare", "rare targets"), (other, "common", "other targets")):
        points(ax, x[of], found.bins[of], ms=6, label=label, **MARKS[kind])
    ax.set(title=title, xscale="log", xlabel="relative frequency of the target")
    ax.set_ylabel("influence (nats a token)")


def slopes(ax: Axes, found: Slopes, title: str = "") -> None:
    """Every neuron's slope against log frequency beside its influence on rare targets."""
    group, red = found.member, COLOURS["rare"]
    for of, colour, size, label in ((~group, "0.6", 8, "neurons"), (group, red, 26, "the group")):
        ax.scatter(found.slope[of], found.influence[of], size, color=colour, lw=0, label=label)
    ax.axhline(0, color="0.3", lw=0.8, zorder=0)
    ax.axvline(0, color="0.3", lw=0.8, zorder=0)
    ax.set(title=title, xlabel="slope (nats a decade)")
    ax.locator_params(axis="x", nbins=5)
    ax.set_ylabel("influence (nats)")
