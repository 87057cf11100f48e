"""Drawing that pages share: each function takes an Axes and arrays, and computes nothing."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from raretok.claims.digest import digest
from raretok.errors import NotTestableError, UserError
from raretok.stats.jackknife import Estimate

# One colour a meaning, on every page; the pairs differ for the colour-blind and in grey.
PALETTE = sns.color_palette("colorblind")
COLOURS = {
    "rare": PALETTE[3],
    "common": PALETTE[0],
    "untrained": PALETTE[7],
    "controls": "0.72",
    "fit": "black",
    "supports": "#cfe3f4",
    "contradicts": "#fbdcb8",
}
WIDE = 1e4  # a ratio whose interval reaches so far says nothing
# For series that have no meaning of their own on other pages.
SERIES = [(PALETTE[2], "o"), (PALETTE[1], "s"), (PALETTE[4], "^")]


class PageFigure(Figure):
    """A figure whose repr is what it draws, so that executed pages hold it beside the picture."""

    def __repr__(self) -> str:
        return digest(self)


def panels(
    columns: int = 1, rows: int = 1, *, width: float = 3.9, height: float = 3.4, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of axes side by side (or in rows), at the same size on every machine."""
    sns.set_theme(style="ticks", font_scale=0.9)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(max(6.4, width * columns), height * rows),
        dpi=120,
        layout="constrained",
        sharex=share,
        sharey=share,
        squeeze=False,
        FigureClass=PageFigure,
    )
    for ax in axes.ravel():
        sns.despine(ax=ax)
    return figure, list(axes.ravel())


@contextmanager
def or_reason(ax: Axes) -> Iterator[None]:
    """Draw, or write down why there is nothing to draw: the page goes on."""
    try:
        yield
    except UserError as error:
        ax.text(0.5, 0.5, str(error), ha="center", va="center", wrap=True, transform=ax.transAxes)
        ax.set(xticks=[], yticks=[])


def told(compute: Callable[[], Any]) -> Any:
    """A number or table, or the reason in words where it cannot be had."""
    try:
        return compute()
    except UserError as error:
        return f"not testable here: {error}"


def there(found: Any) -> Any:
    """What `told` gave. Raises `NotTestableError` where that is a reason in words."""
    if isinstance(found, str):
        raise NotTestableError(found.removeprefix("not testable here: "))
    return found


def by_name(study: Any, names: dict[str, str]) -> dict[str, Any]:
    """A study and those beside it, its own first, by the names that are shown."""
    studies = {study.measurements.label: study} | study.beside()
    return {names.get(label, label): one for label, one in studies.items()}


def number(value: float) -> str:
    """With few digits, without exponent, and without a sign where it is shown as 0."""
    places = (4, 3, 2, 0)[np.searchsorted((0.01, 0.1, 10), abs(value), side="right")]
    text = f"{value:,.{places}f}"
    return text if text.strip("-0.") else text.lstrip("-")


def interval_text(one: Estimate | None, scale: float = 1.0, why: str = "not to be had") -> str:
    """A number with its 95 % interval; `why` where there is none."""
    if one is None:
        return why
    if 0 <= WIDE * one.low < one.high and one.high > WIDE * one.value:
        return f"{number(scale * one.value)} (interval too wide to be of use)"
    value, low, high = (number(scale * end) for end in (one.value, one.low, one.high))
    return f"{value} ({low} to {high})"


def points(ax: Axes, x: Iterable[float], found: Iterable[Estimate | None], **style: Any) -> None:
    """Marks with 95 % intervals, joined where `ls` is given; None leaves a place out."""
    some = [(at, one.value, one.low, one.high) for at, one in zip(x, found, strict=True) if one]
    at, value, low, high = np.array(some).reshape(-1, 4).T
    ax.plot(at, value, **{"marker": "o", "ls": ""} | style)
    ax.vlines(at, low, high, color=style["color"], lw=1)


def shade(ax: Axes, spec: Any, along: str = "y") -> None:
    """Regions of an estimand (`supports`, `contradicts`) within what an axis shows already."""
    first, last = getattr(ax, f"get_{along}lim")()
    span = {"x": ax.axvspan, "y": ax.axhspan}[along]
    for kind in ("supports", "contradicts"):
        for low, high in getattr(spec, kind, ()):
            ends = (first if low is None else low, last if high is None else high)
            start, stop = np.clip(ends, first, last)
            if start < stop:
                span(start, stop, color=COLOURS[kind], lw=0, zorder=0)
    ax.set(**{f"{along}lim": (first, last)})


def null_histogram(ax: Axes, each: Float[np.ndarray, " group"], *, label: str, xlabel: str) -> None:
    """Control groups as a histogram, the group, which comes first, marked in it."""
    ax.hist(each[1:], bins=30, color=COLOURS["controls"], label="control groups")
    kind = next((k for k in ("rare", "common") if k in label), "fit")
    ax.axvline(each[0], color=COLOURS[kind], lw=2, label=label)
    ax.set(xlabel=xlabel, ylabel="control groups")


def legend(ax: Axes) -> None:
    """A small legend, where there is something to name."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=8)


def legend_below(figure: Figure, ax: Axes, columns: int) -> None:
    """One legend under all panels, so that it hides no data."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def relative_times(ax: Axes, ways: list[str], times: dict[str, list[float]]) -> None:
    """Times of several ways in forward passes, on a log axis: one dot a way and series."""
    for i, (label, values) in enumerate(times.items()):
        colour, marker = SERIES[i % len(SERIES)]
        # A little apart, so that equal times are seen as two.
        height = np.arange(len(ways)) + 0.18 * (i - (len(times) - 1) / 2)
        ax.plot(values, height, marker, color=colour, ms=6, label=label)
    ax.axvline(1, color="0.6", lw=0.8, zorder=0)
    ax.set(xscale="log", xlabel="time (forward passes)", yticks=range(len(ways)))
    ax.set_yticklabels(ways)
    ax.invert_yaxis()
    ax.grid(axis="y", color="0.92")


def power_law(
    ax: Axes,
    size: Float[np.ndarray, " point"],
    seconds: Float[np.ndarray, " point"],
    line: Float[np.ndarray, " point"],
    *,
    xlabel: str,
    title: str,
) -> None:
    """Seconds against a size, log-log, with the fitted line."""
    ax.loglog(size, seconds, "o", color=COLOURS["common"], ms=5, label="measured")
    ax.loglog(size, line, "-", color=COLOURS["fit"], lw=1.2, label="fitted power law")
    ax.set(xlabel=xlabel, ylabel="time (s)", title=title)
    shown = size[[0, size.size // 2, -1]]
    ax.set_xticks(shown, [f"{n:,.0f}" for n in shown])
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
