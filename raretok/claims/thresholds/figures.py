"""Figures, tables and sentences of the page `thresholds`."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from raretok.claims.finding import Finding
from raretok.claims.style import COLOURS
from raretok.claims.thresholds.estimate import PERCENTILES, QUANTITIES, Case
from raretok.claims.thresholds.gradient import Gradient, Slopes
from raretok.stats.jackknife import Estimate

# Estimand whose regions are drawn, unit, and range shown of each quantity.
SHOWN: dict[str, tuple[tuple[str, str] | None, str, tuple[float, float] | None]] = {
    "lift on rare (R1)": (("R1", "lift"), "x the smooth curve", (0.02, 30)),
    "lift on common (R3)": (("R3", "lift"), "x the smooth curve", (0.02, 30)),
    "concentration (R0)": (("R0", "concentration"), "share, rare less common", None),
    "influence of the group": (None, "nats a token", None),
}
FEWEST = 200  # positions: the gate of G2
MARKS = (("o", "black"), ("s", "0.45"), ("^", "0.6"), ("D", "0.7"), ("v", "0.5"))
ENDS = ("value", "low", "high")


def sweep(ax: Axes, series: dict[str, list[Case]], name: str, spec: Any = None) -> None:
    """One quantity over the percentage of rare types; the first model prominent, others muted.

    Hollow where the rare positions are worth fewer than the gate asks for. `spec`: the estimand
    whose regions are shaded.
    """
    for i, ((label, cases), (marker, colour)) in enumerate(
        zip(series.items(), MARKS, strict=False)
    ):
        there = [(one, found) for one in cases if (found := one.found.get(name))]
        x = [one.percentile * (1 + 0.035 * i) for one, _ in there]
        width, size = (1.5, 6) if i == 0 else (0.8, 4)
        ax.plot(x, [found.value for _, found in there], "-", color=colour, lw=width, zorder=4 - i)
        for at, (one, found) in zip(x, there, strict=True):
            ax.plot([at, at], [found.low, found.high], color=colour, lw=width)
            fill = "white" if one.worth < FEWEST else colour
            ax.plot(at, found.value, marker, ms=size, mfc=fill, color=colour, zorder=5 - i)
        ax.plot([], [], marker=marker, ls="-", color=colour, label=label)
    _, unit, limits = SHOWN[name]
    if limits:
        ax.set(yscale="log", ylim=limits, yticks=(0.1, 1, 10))
        ax.set_yticklabels(["0.1", "1", "10"])
    shade(ax, spec)
    ax.set(title=name, xscale="log", xlabel="types that are rare, %", ylabel=unit)
    ax.set_xticks(PERCENTILES, [f"{one:g}" for one in PERCENTILES])
    ax.minorticks_off()


def shade(ax: Axes, spec: Any) -> None:
    """The regions of an estimand across an axis, without changing what it shows."""
    bottom, top = ax.get_ylim()
    for kind in ("supports", "contradicts"):
        for low, high in getattr(spec, kind, ()):
            ends = (bottom if low is None else low, top if high is None else high)
            ax.axhspan(*np.clip(ends, bottom, top), color=COLOURS[kind], lw=0, zorder=0)
    ax.set_ylim(bottom, top)


def table(cases: list[Case]) -> pd.DataFrame:
    """Numbers of rare types and positions, and every quantity, a row each definition of rare."""
    rows = {}
    for one in cases:
        counts = [f"{n:,.0f}" for n in (one.types, one.positions, one.worth)]
        values = [shown(one.found.get(name)) for name in QUANTITIES]
        gap = [f"gap: {one.reason}", *[""] * (len(counts + values) - 1)]
        rows[one.percentile, one.rule, one.by] = gap if one.reason else counts + values
    columns = ["rare types", "positions", "worth", *QUANTITIES]
    index = pd.MultiIndex.from_tuples(rows, names=["%", "rule", "rare by its"])
    return pd.DataFrame(list(rows.values()), index, columns)


def shown(one: Estimate | None, why: str = "not to be had") -> str:
    """Value and interval with few digits."""
    if one is None:
        return why
    numbers = (one.value, one.low, one.high)
    places = (int(np.searchsorted([-10, -0.1, -0.01], -abs(x))) for x in numbers)
    value, low, high = (f"{x:,.{(0, 2, 3, 4)[n]}f}" for x, n in zip(numbers, places, strict=True))
    return f"{value} ({low} to {high})"


def told(found: Slopes) -> dict[str, str]:
    """What the page's sentences name of the slopes."""
    share = f"{100 * found.same_sign:.0f} %"
    return {"same_sign": share, "distance": shown(found.distance), "fall": shown(found.lift)}


def gaps(series: dict[str, list[Case]]) -> str:
    """What could not be had at all, in one line."""
    missing = [(label, one) for label, cases in series.items() for one in cases if one.reason]
    lines = [f"{label} at {one.percentile:g} % ({one.reason})" for label, one in missing]
    return "; ".join(lines) or "nothing"


def frequency(ax: Axes, found: Gradient, title: str = "") -> None:
    """Influence of the group by frequency of the target, and the line through what is not rare."""
    x, threshold = 10 ** np.array(found.x), 10**found.threshold
    y, low, high = (np.array([getattr(one, end) for one in found.line]) for end in ENDS)
    ax.fill_between(x, low, high, color="0.88", lw=0, label="95 % of the line")
    ax.plot(x, y, "-", color=COLOURS["fit"], lw=1.4, label="line through other targets")
    ax.axvline(threshold, color="0.5", lw=0.8, ls="--")
    there = [(at, one) for at, one in zip(x, found.bins, strict=True) if one]
    for kind, label in (("rare", "rare targets"), ("common", "other targets")):
        some = [(at, one) for at, one in there if (at <= threshold) == (kind == "rare")]
        at, colour = [at for at, _ in some], COLOURS[kind]
        ax.vlines(at, [one.low for _, one in some], [one.high for _, one in some], color=colour)
        ax.plot(at, [one.value for _, one in some], "o", ms=5, color=colour, label=label)
    ax.set(title=title, xscale="log", xlabel="relative frequency of the target")
    ax.set_ylabel("influence (nats a token)")


def slopes(ax: Axes, found: Slopes, title: str = "") -> None:
    """Every neuron's slope against log frequency beside its influence on rare targets."""
    groups = (
        (~found.member, "0.6", 8, "neurons"),
        (found.member, COLOURS["rare"], 26, "the group"),
    )
    for of, colour, size, label in groups:
        ax.scatter(found.slope[of], found.influence[of], size, [colour], lw=0, label=label)
    ax.axhline(0, color="0.3", lw=0.8, zorder=0)
    ax.axvline(0, color="0.3", lw=0.8, zorder=0)
    ax.set(title=title, xlabel="slope (nats a decade of frequency)")
    ax.locator_params(axis="x", nbins=5)
    ax.set_ylabel("influence on rare targets (nats)")


def said(findings: list[Finding], step_verdict: str) -> dict[str, str]:
    """What the page's sentences name of its findings."""
    texts = [shown(one.estimate, f"not testable ({one.reason})") for one in findings]
    kinds = {"supported": "a class of their own", "contradicted": "the end of a gradient"}
    kind = kinds.get(step_verdict, "not told apart from the end of a gradient here")
    return dict(zip(("ratio", "step", "elbow"), texts, strict=True)) | {"kind": kind}
