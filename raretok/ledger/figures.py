"""Drawing verdicts: estimates with their intervals over the regions that decide."""

from collections.abc import Collection
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from raretok.claims.digest import QUIET
from raretok.claims.style import COLOURS, decimals, legend, panels, points, shade
from raretok.ledger.claims import Estimand, claims
from raretok.ledger.promise import VERDICTS, Row, rows_of, share, truth
from raretok.ledger.replication import Replication, is_ratio
from raretok.ledger.verdicts import Entry
from raretok.text.protocol import PROTOCOLS

MARKS = {"code": ("^", "0.45"), "text": ("s", "0.45"), "corrected": ("o", "black")}
TONES = ("#08519c", "#b35900", "0.25", "0.4", "0.25")
INK = dict(zip((*VERDICTS, "reported"), TONES, strict=True))
BARS = dict(zip(VERDICTS, ("#2171b5", "#f28e2b", "0.85", "0.95"), strict=True))


def bounds(spec: Estimand) -> list[float]:
    return [b for one in (*spec.supports, *spec.contradicts) for b in one if b is not None]


def limits(spec: Estimand, entries: list[Entry]) -> tuple[float, float]:
    """What an axis shows: bounds, published values, values, and of intervals as much again."""
    points = [*bounds(spec), *(spec.published or ())]
    found = [e.finding.estimate for e in entries if e.finding.estimate]
    points += [one.value for one in found]
    low, high = (min(points), max(points)) if points else (0.0, 1.0)
    width = (high - low) or 1.0
    start = min([low - 0.3 * width, *(one.low for one in found)])
    stop = max([high + 0.3 * width, *(one.high for one in found)])
    start, stop = max(start, low - width), min(stop, high + width)
    room = 0.03 * (stop - start)  # so that no interval ends on the frame
    return start - room, stop + room


def estimate_row(ax: Axes, spec: Estimand, entries: list[Entry], *, label: str) -> None:
    """One estimand: its regions shaded, its readings as marks with intervals, what was published.

    An interval that leaves the axis ends in an arrow. A hollow mark is not testable.
    """
    within = limits(spec, entries)
    shade(ax, spec, "x", within)
    published(ax, spec, -0.75)
    for entry in entries:
        mark(ax, entry, within)
    ax.set(ylim=(-1.2, 3), yticks=[])
    ax.set_xlabel(spec.unit, labelpad=1)
    ax.set_title(label, loc="left", pad=4)
    ax.spines["left"].set_visible(False)


def published(ax: Axes, spec: Estimand, y: float) -> None:
    """The published values of an estimand as a bar."""
    if spec.published:
        style = {"color": COLOURS["published"], "lw": 4, "ms": 9, "label": f"{QUIET}published"}
        ax.plot(spec.published, [y, y], "|-", **style)


def estimate(ax: Axes, entry: Entry, y: float, within: Any, colour: Any, **style: Any) -> None:
    """A number with its interval in a row; hollow where it is not testable."""
    fill = "white" if entry.verdict == "not testable" else colour
    one, style = entry.finding.estimate, {"mfc": fill, "color": colour, "ms": 7} | style
    points(ax, [y], [one], along="x", within=within, **style)


def mark(ax: Axes, entry: Entry, limits: tuple[float, float]) -> None:
    """One reading of an estimand."""
    finding = entry.finding
    height = 0.3 + list(PROTOCOLS)[::-1].index(finding.reading)
    shape, colour = MARKS[finding.reading]
    low, high = np.clip(finding.controls[1:] if finding.controls else (0.0, 0.0), *limits)
    if low < high:  # else there are none, or they lie outside the picture
        bar = {"color": "0.65", "lw": 4, "label": f"{QUIET}{finding.reading}: controls"}
        ax.plot((low, high), [height - 0.32] * 2, **bar)
    if finding.estimate is not None:
        label = f"{QUIET}{finding.reading}"
        estimate(ax, entry, height, limits, colour, marker=shape, label=label)
    weight = "bold" if entry.verdict in ("supported", "contradicted") else "normal"
    look = {"transform": ax.transAxes, "va": "center", "color": INK[entry.verdict]}
    ax.text(1.02, (height + 1.2) / 4.2, entry.verdict, weight=weight, **look)


def readings(entries: list[Entry], *, labels: dict[tuple[str, str], str] | None = None) -> Figure:
    """Every estimand of some entries, a row each: what was found under the three readings."""
    rows: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        rows.setdefault((entry.finding.claim, entry.finding.estimand), []).append(entry)
    fig, axes = panels(len(rows), 1, height=1.6)
    for ax, (key, of) in zip(axes, rows.items(), strict=True):
        name = (labels or {}).get(key, f"{key[0]}, {key[1]}")
        estimate_row(ax, of[0].spec, of, label=name)
    legend(fig, 4, keys(entries))
    return fig


def keys(entries: list[Entry]) -> list[Line2D | Patch]:
    """What the marks and shades of the readings of some entries mean."""
    used = {one.finding.reading for one in entries}
    shapes = [
        Line2D([], [], color=colour, marker=shape, label=name)
        for name, (shape, colour) in reversed(MARKS.items())
        if name in used
    ]
    controls = Line2D([], [], color="0.65", lw=4, label="controls, 95 %")
    some = [controls] if any(one.finding.controls for one in entries) else []
    return [*shapes, *shared_keys(entries), *some]


def shared_keys(entries: list[Entry]) -> list[Line2D | Patch]:
    """What the marks and shades of some entries mean in every figure of verdicts."""
    hollow = Line2D([], [], color="black", marker="o", mfc="white", ls="", label="not testable")
    published = Line2D([], [], color=COLOURS["published"], lw=4, label="published")
    return [
        *[hollow] * any(one.verdict == "not testable" for one in entries),
        Patch(color=COLOURS["supports"], label="supports"),
        Patch(color=COLOURS["contradicts"], label="contradicts"),
        *[published] * any(one.spec.published is not None for one in entries),
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
    fig, axes = panels(len(names), 3, height=2.0)
    for ax, key in zip(axes, names, strict=True):
        some = rows_of(rows, *key)
        left = np.zeros(len(some))
        for verdict in VERDICTS:
            part = np.array([100 * share(row, verdict) for row in some])
            ax.barh(range(len(some)), part, 0.75, left=left, color=BARS[verdict], label=verdict)
            left += part
        sizes = [f"{row['size']:g}{sign(row['size'], key[0])}" for row in some]
        ax.set_yticks(range(len(some)), sizes)
        ax.set(xlim=(0, 100), xlabel="% of worlds")
        ax.set_title(f"{key[0]} {key[1]}", loc="left", wrap=True)
        ax.set_ylabel("planted size" if ax in axes[::3] else "")
        ax.invert_yaxis()
    legend(fig, 4)
    return fig


def forest(found: list[Replication], names: dict[str, str]) -> Figure:
    """One panel a claim: every model with its interval, the runs' mean, the next run's interval.

    `names` maps models to what is written beside their row, from top to bottom.
    """
    fig, axes = panels(len(found), height=1.1 + 0.23 * (len(names) + 2))
    for i, (ax, one) in enumerate(zip(axes, found, strict=True)):
        forest_panel(ax, one, names)
        if i % 2:
            ax.set_yticklabels([])
    entries = [entry for one in found for entry in (*one.outside, *one.runs)]
    legend(fig, 4, [*forest_keys(), *shared_keys(entries)])
    return fig


def forest_panel(ax: Axes, one: Replication, names: dict[str, str]) -> None:
    """The rows of one claim, then what the runs say together."""
    spec, entries = one.spec, {e.finding.model: e for e in (*one.outside, *one.runs)}
    rows = {name: entries.get(model) for model, name in names.items()}
    within = model_rows(ax, spec, rows, {names[entry.finding.model] for entry in one.runs})
    labels = [*rows, "mean of the runs", "next run"]
    if one.pooled is not None:
        red = {"along": "x", "within": within, "color": COLOURS["rare"]}
        both = ((one.pooled.mean, "D", 4.0), (one.pooled.next_run, "", 2.0))
        for y, (some, marker, width) in enumerate(both, len(rows)):
            label = f"{QUIET}{labels[y]}"
            points(ax, [y], [some], marker=marker, width=width, label=label, **red)
    published(ax, spec, -0.8)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.3, -1.4)
    ax.set_title(f"{one.claim}: {one.verdict}\n{claims()[one.claim].short}", loc="left")
    ax.axhline(len(rows) - 0.5, color="0.6", lw=0.8)


def model_rows(
    ax: Axes, spec: Estimand, rows: dict[str, Entry | None], black: Collection[str]
) -> tuple[float, float]:
    """An estimand by model on its regions, some black, others blue; gives what the axis shows.

    A hollow mark is not testable.
    """
    entries = [entry for entry in rows.values() if entry is not None]
    within = limits(spec, entries)
    if is_ratio(spec):
        ax.set_xscale("log")
        within = ratio_limits(spec, entries)
        decimals(ax.xaxis)
    shade(ax, spec, "x", within)
    for y, (name, entry) in enumerate(rows.items()):
        if entry is not None and entry.finding.estimate is not None:
            colour = "black" if name in black else COLOURS["common"]
            estimate(ax, entry, float(y), within, colour, label=f"{QUIET}{name}")
        else:
            words = " not measured" if entry is None else " no number"
            ax.text(within[0], y, words, va="center")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel=spec.unit)
    return within


def ratio_limits(spec: Estimand, entries: list[Entry]) -> tuple[float, float]:
    """What a logarithmic axis shows: bounds and values, and a factor of 1.5 beyond either."""
    points = [*bounds(spec), *(e.finding.estimate.value for e in entries if e.finding.estimate)]
    return min(points) / 1.5, max(points) * 1.5


def forest_keys() -> list[Line2D]:
    """What marks and colours of a forest plot mean."""
    return [
        Line2D([], [], color="black", marker="o", label="training run"),
        Line2D([], [], color=COLOURS["common"], marker="o", label="not one of the runs"),
        Line2D([], [], color=COLOURS["rare"], marker="D", lw=4, label="mean of the runs"),
        Line2D([], [], color=COLOURS["rare"], label="next run, 95 %"),
    ]
