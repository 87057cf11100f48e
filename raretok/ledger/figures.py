"""Drawing verdicts: estimates with their intervals over the regions that decide."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator

from raretok.claims.style import COLOURS, panels
from raretok.ledger.claims import Estimand, claims, ends
from raretok.ledger.promise import VERDICTS, Row, rows_of, share, truth
from raretok.ledger.replication import Replication, is_ratio
from raretok.ledger.verdicts import Entry
from raretok.stats.jackknife import Estimate
from raretok.text.protocol import PROTOCOLS

MARKS = {"code": ("^", "0.45"), "text": ("s", "0.45"), "corrected": ("o", "black")}
INK = {
    "supported": "#08519c",
    "contradicted": "#b35900",
    "inconclusive": "0.25",
    "not testable": "0.5",
    "reported": "0.25",
}

BARS = {
    "supported": "#2171b5",
    "contradicted": "#f28e2b",
    "inconclusive": "0.85",
    "not testable": "0.95",
}


def limits(spec: Estimand, entries: list[Entry]) -> tuple[float, float]:
    """What an axis shows: bounds, published values, values, and of intervals as much again."""
    points = [b for one in (*spec.supports, *spec.contradicts) for b in one if b is not None]
    points += list(spec.published or ())
    found = [e.finding.estimate for e in entries if e.finding.estimate]
    points += [one.value for one in found]
    low, high = (min(points), max(points)) if points else (0.0, 1.0)
    width = (high - low) or 1.0
    start = min([low - 0.3 * width, *(one.low for one in found)])
    stop = max([high + 0.3 * width, *(one.high for one in found)])
    return max(start, low - width), min(stop, high + width)


def estimate_row(ax: Axes, spec: Estimand, entries: list[Entry], *, label: str) -> None:
    """One estimand: its regions shaded, its readings as marks with intervals, what was published.

    An interval that leaves the axis ends in an arrow. A hollow mark is not testable.
    """
    low, high = limits(spec, entries)
    shade(ax, spec, (low, high))
    if spec.published:
        ax.plot(spec.published, [-0.75, -0.75], "|-", color=COLOURS["common"], lw=3, ms=8)
    for entry in entries:
        mark(ax, entry, (low, high))
    ax.set(xlim=(low, high), ylim=(-1.2, 3), yticks=[])
    ax.set_xlabel(spec.unit, labelpad=1)
    ax.set_title(label, loc="left", fontsize=10, pad=2)
    ax.spines["left"].set_visible(False)


def mark(ax: Axes, entry: Entry, limits: tuple[float, float]) -> None:
    """One reading of an estimand."""
    finding = entry.finding
    height = 0.3 + list(PROTOCOLS)[::-1].index(finding.reading)
    shape, colour = MARKS[finding.reading]
    if finding.controls is not None:
        start, stop = np.clip(finding.controls[1:], *limits)
        ax.plot([start, stop], [height - 0.28] * 2, color="0.65", lw=3, solid_capstyle="butt")
    if finding.estimate is not None:
        one = finding.estimate
        whisker(ax, one, height, limits, colour)
        fill = "white" if entry.verdict == "not testable" else colour
        ax.plot(one.value, height, shape, mfc=fill, mec=colour, color=colour, ms=7)
    ax.text(
        1.02,
        (height + 1.2) / 4.2,
        entry.verdict,
        transform=ax.transAxes,
        va="center",
        fontsize=9,
        color=INK[entry.verdict],
        weight="bold" if entry.verdict in ("supported", "contradicted") else "normal",
    )


def readings(entries: list[Entry], *, labels: dict[tuple[str, str], str] | None = None) -> Figure:
    """Every estimand of some entries, a row each: what was found under the three readings."""
    rows = grouped(entries)
    n = max(1, len(rows))
    fig, axes = panels(1, n, width=6.4, height=1.25 + 0.8 / n)
    for ax, (key, of) in zip(axes, rows.items(), strict=False):
        name = (labels or {}).get(key, f"{key[0]}, {key[1]}")
        estimate_row(ax, of[0].spec, of, label=name)
    fig.legend(handles=keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return fig


def grouped(entries: Iterable[Entry]) -> dict[tuple[str, str], list[Entry]]:
    """Entries by claim and estimand."""
    rows: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        rows.setdefault((entry.finding.claim, entry.finding.estimand), []).append(entry)
    return rows


def keys() -> list[Line2D | Patch]:
    """What marks and shades mean."""
    shapes = [
        Line2D([], [], color=colour, marker=shape, ls="-", label=name)
        for name, (shape, colour) in reversed(MARKS.items())
    ]
    return [
        *shapes,
        Line2D([], [], color="black", marker="o", mfc="white", ls="", label="not testable"),
        Patch(color=COLOURS["supports"], label="supports"),
        Patch(color=COLOURS["contradicts"], label="contradicts"),
        Line2D([], [], color="0.65", lw=3, label="controls, 95 %"),
        Line2D([], [], color=COLOURS["common"], lw=3, label="published"),
    ]


def sign(size: float, claim: str) -> str:
    """Whether a claim is true (tick) or false (cross) at a planted size; neither in between."""
    true, false = truth(claim)
    return " ✓" if size in true else " ✗" if size in false else ""


def primary(entries: list[Entry]) -> list[Entry]:
    """The lines whose verdict is their claim's, and that are judged."""
    return [entry for entry in entries if entry.primary and entry.spec.judged]


def calibration_bars(rows: list[Row]) -> Figure:
    """Shares of the verdicts by planted size, one panel an estimand."""
    names = list(dict.fromkeys((row["claim"], row["estimand"]) for row in rows))
    fig, axes = panels(4, -(-len(names) // 4), width=2.6, height=1.9)
    for ax, key in zip(axes, names, strict=False):
        some = rows_of(rows, *key)
        left = np.zeros(len(some))
        for verdict in VERDICTS:
            part = np.array([100 * share(row, verdict) for row in some])
            ax.barh(range(len(some)), part, 0.75, left=left, color=BARS[verdict], label=verdict)
            left += part
        sizes = [f"{row['size']:g}{sign(row['size'], key[0])}" for row in some]
        ax.set_yticks(range(len(some)), sizes)
        ax.set(title=f"{key[0]} {key[1]}", xlim=(0, 100), xlabel="% of worlds")
        ax.set_ylabel("planted size" if ax in axes[::4] else "")
        ax.title.set_fontsize(9)
        ax.invert_yaxis()
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return fig


def forest(found: list[Replication], names: dict[str, str]) -> Figure:
    """One panel a claim: every model with its interval, the runs' mean, the next run's interval.

    `names` maps models to what is written beside their row, from top to bottom.
    """
    columns = 2
    height = 0.9 + 0.17 * (len(names) + 2)
    rows = max(1, -(-len(found) // columns))
    fig, axes = panels(columns, rows, width=4.4, height=height + 0.8 * (rows == 1))
    for i, (ax, one) in enumerate(zip(axes, found, strict=False)):
        forest_panel(ax, one, names)
        if i % columns:
            ax.set_yticklabels([])
    for ax in axes[len(found) :]:
        ax.set_axis_off()
    fig.legend(handles=forest_keys(), loc="outside lower center", ncols=4, frameon=False)
    return fig


def forest_panel(ax: Axes, one: Replication, names: dict[str, str]) -> None:
    """The rows of one claim on its regions; hollow marks are not testable."""
    spec, entries = one.spec, {e.finding.model: e for e in (*one.outside, *one.runs)}
    low, high = limits(spec, list(entries.values()))
    if is_ratio(spec):
        ax.set_xscale("log")
        low, high = ratio_limits(spec, list(entries.values()))
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
    shade(ax, spec, (low, high))
    units = {entry.finding.model for entry in one.runs}
    rows = [(name, entries.get(model), model in units) for model, name in names.items()]
    for y, (_, entry, is_run) in enumerate(rows):
        if entry is not None and entry.finding.estimate is not None:
            colour = "black" if is_run else COLOURS["common"]
            fill = "white" if entry.verdict == "not testable" else colour
            whisker(ax, entry.finding.estimate, y, (low, high), colour)
            ax.plot(
                np.clip(entry.finding.estimate.value, low, high), y, "o", mfc=fill, mec=colour, ms=6
            )
        else:
            ax.text(
                low, y, " not measured" if entry is None else " no number", va="center", fontsize=8
            )
    if one.pooled is not None:
        whisker(ax, one.pooled.mean, len(rows), (low, high), COLOURS["rare"], 4)
        ax.plot(
            np.clip(one.pooled.mean.value, low, high), len(rows), "D", color=COLOURS["rare"], ms=7
        )
        whisker(ax, one.pooled.next_run, len(rows) + 1, (low, high), COLOURS["rare"])
    if spec.published:
        ax.plot(spec.published, [-0.8, -0.8], "|-", color="0.25", lw=3, ms=8)
    labels = [*(name for name, *_ in rows), "mean of the runs", "next run"]
    ax.set_yticks(range(len(labels)), labels)
    ax.set(xlim=(low, high), ylim=(len(labels) - 0.3, -1.4), xlabel=spec.unit)
    ax.set_title(
        f"{one.claim}, {claims()[one.claim].short}: {one.verdict}", loc="left", fontsize=10
    )
    ax.axhline(len(rows) - 0.5, color="0.6", lw=0.8)


def ratio_limits(spec: Estimand, entries: list[Entry]) -> tuple[float, float]:
    """What a logarithmic axis shows: bounds and values, and a factor of 1.5 beyond either."""
    points = [b for one in (*spec.supports, *spec.contradicts) for b in one if b is not None]
    points += [e.finding.estimate.value for e in entries if e.finding.estimate]
    return min(points) / 1.5, max(points) * 1.5


def shade(ax: Axes, spec: Estimand, within: tuple[float, float]) -> None:
    """The regions of an estimand, as far as the axis reaches."""
    for name, regions in (("supports", spec.supports), ("contradicts", spec.contradicts)):
        for start, stop in map(ends, regions):
            start, stop = max(start, within[0]), min(stop, within[1])
            if start < stop:
                ax.axvspan(start, stop, color=COLOURS[name], lw=0, zorder=0)


def whisker(
    ax: Axes, one: Estimate, y: float, within: tuple[float, float], colour: Any, width: float = 1.6
) -> None:
    """An interval; where it leaves the axis it ends in an arrow."""
    start, stop = np.clip([one.low, one.high], *within)
    ax.plot([start, stop], [y, y], color=colour, lw=width, solid_capstyle="butt")
    for end, inside, arrow in ((one.low, start, "<"), (one.high, stop, ">")):
        if end != inside:
            ax.plot(inside, y, arrow, color=colour, ms=5, clip_on=False)


def forest_keys() -> list[Line2D | Patch]:
    """What marks, colours and shades of a forest plot mean."""
    return [
        Line2D([], [], color="black", marker="o", label="training run"),
        Line2D([], [], color=COLOURS["common"], marker="o", label="not a unit"),
        Line2D([], [], color="black", marker="o", mfc="white", ls="", label="not testable"),
        Line2D([], [], color=COLOURS["rare"], marker="D", lw=4, label="mean of the runs"),
        Line2D([], [], color=COLOURS["rare"], label="next run, 95 %"),
        Patch(color=COLOURS["supports"], label="supports"),
        Patch(color=COLOURS["contradicts"], label="contradicts"),
        Line2D([], [], color="0.25", lw=3, label="published"),
    ]
