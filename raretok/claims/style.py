"""Drawing that pages share: each function takes an Axes and arrays, and computes nothing."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import display
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from raretok.claims.digest import QUIET, digest
from raretok.claims.finding import or_none
from raretok.errors import NotTestableError, UserError
from raretok.stats.jackknife import Estimate

# One colour a meaning, on every page; the pairs differ for the colour-blind and in grey.
PALETTE = sns.color_palette("colorblind")
COLOURS = {
    "rare": "#c04f00",  # as dark as text has to be
    "common": PALETTE[0],
    "controls": "0.72",
    "fit": "black",
    "published": "#7b3294",
    "supports": "#cfe3f4",
    "contradicts": "#fbdcb8",
}
MARKS = {
    "rare": {"color": COLOURS["rare"], "marker": "o"},
    "common": {"color": COLOURS["common"], "marker": "s"},
}
WIDE = 1e4  # a ratio whose interval reaches so far says nothing
TOO_WIDE = "interval too wide to be of use"
# For series that have no meaning of their own on other pages.
SERIES = [(PALETTE[2], "o"), (PALETTE[1], "s"), (PALETTE[4], "^")]
WIDTH = 7.75  # inches: what a page has on a screen of 1,300 pixels, at 96 to the inch
SIZE = 12  # points: the 16 pixels of the page's text
MANY = 300  # marks beyond which an SVG holds their picture
pd.options.display.max_colwidth = None  # a reason in a cell is not cut short
TYPE = "font.size axes.titlesize axes.labelsize legend.fontsize xtick.labelsize ytick.labelsize"
RC = dict.fromkeys(TYPE.split(), SIZE) | {
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
    "font.sans-serif": ["DejaVu Sans"],  # comes with Matplotlib
    "legend.frameon": False,
    "svg.hashsalt": "raretok",
}


class PageFigure(Figure):
    """A figure that pages hold three times: as SVG, as PNG and as the numbers that it draws."""

    def __repr__(self) -> str:
        return digest(self)

    def svg(self) -> str:
        """As SVG; where there are many marks it holds their picture."""
        for line in self.findobj(plt.Line2D):
            line.set_rasterized(line.get_marker() != "None" and len(line.get_xdata()) > MANY)
        for cloud in (one for ax in self.axes for one in ax.collections):
            cloud.set_rasterized(len(cloud.get_offsets()) > MANY)
        self.savefig(svg := io.StringIO(), format="svg", dpi=200, metadata={"Date": None})
        return svg.getvalue()

    def _ipython_display_(self) -> None:
        found, png = {"image/svg+xml": self.svg()}, io.BytesIO()
        self.savefig(png, format="png", dpi=72, facecolor="white")
        found["image/png"] = png.getvalue()
        display(found | {"text/plain": repr(self)}, raw=True)


def panels(
    n: int = 1, columns: int = 2, *, height: float = 3.6, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of `n` axes, as wide as the page, each row `height` inches high."""
    sns.set_theme(style="ticks", rc=RC)
    columns = max(1, min(n, columns))
    grid = (max(1, -(-n // columns)), columns)
    shape = {"figsize": (WIDTH, height * grid[0]), "layout": "constrained", "squeeze": False}
    figure, axes = plt.subplots(*grid, sharex=share, sharey=share, FigureClass=PageFigure, **shape)
    sns.despine(figure)
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    return figure, list(axes.flat[:n])


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
    size = abs(value) or 1.0  # nothing at all has as many digits as 1
    places = (4, 3, 2, 0)[np.searchsorted((0.01, 0.1, 10), size, side="right")]
    text = f"{value:,.{places}f}"
    return text if text.strip("-0.") else text.lstrip("-")


def too_wide(one: Estimate) -> bool:
    """Whether the interval of a ratio says nothing."""
    return bool(0 <= WIDE * one.low < one.high and one.high > WIDE * one.value)


def interval_text(one: Estimate | None, scale: float = 1.0, why: str = "undefined") -> str:
    """A number with its 95 % interval; `why` where there is none."""
    if one is None:
        return why
    if too_wide(one):
        return f"{number(scale * one.value)} ({TOO_WIDE})"
    value, low, high = (number(scale * end) for end in (one.value, one.low, one.high))
    return f"{value} ({low} to {high})"


def numbers(found: Any, **of: Callable[[Any], Any]) -> dict[str, str]:
    """Numbers that sentences name, each by how it is computed of what was found.

    Where `told` gave a reason instead, the first is that reason and the others say that there is
    none.
    """
    if isinstance(found, str):
        return dict.fromkeys(of, "not testable here") | {next(iter(of)): found}
    return {name: cell(or_none(one, found), "not testable here") for name, one in of.items()}


def cell(one: Any, why: str = "undefined") -> str:
    """A cell or a number of a sentence: words as they are, an estimate with its interval."""
    return one if isinstance(one, str) else interval_text(one, why=why)


def table(
    found: dict[Any, Any], index: str | list[str], cells: Callable[[Any], dict[str, Any]] = dict
) -> pd.DataFrame:
    """A row for each label, of the cells of what was found; a reason stands in the first of them.

    An estimate is shown with its interval, None is undefined, and what other rows alone have empty.
    """
    rows = [one if isinstance(one, str) else cells(one) for one in found.values()]
    names = (name for row in rows if not isinstance(row, str) for name in row)
    columns = list(dict.fromkeys(names)) or ["gap"]
    full = [{columns[0]: row} if isinstance(row, str) else row for row in rows]
    texts = [{name: cell(one) for name, one in row.items()} for row in full]
    return pd.DataFrame(texts, pd.Index(list(found)), columns).fillna("").rename_axis(index)


def points(
    ax: Axes,
    at: Iterable[float | int],
    found: Iterable[Estimate | None],
    *,
    along: Literal["x", "y"] = "y",
    within: tuple[float, float] = (-np.inf, np.inf),
    width: float = 1.4,
    **style: Any,
) -> None:
    """Marks with 95 % intervals along an axis, joined where `ls` is given; None leaves a place out.

    An interval that leaves `within` ends in an arrow.
    """
    some = [(x, one.value, one.low, one.high) for x, one in zip(at, found, strict=True) if one]
    place, *values = np.array(some, float).reshape(-1, 4).T
    value, low, high = np.clip(values, *within)
    order, lines, arrows = {
        "x": (slice(None, None, -1), ax.hlines, "<>"),
        "y": (slice(None), ax.vlines, "v^"),
    }[along]
    ax.plot(*(place, value)[order], **{"marker": "o", "ls": ""} | style)
    label = f"{QUIET}{style.get('label', '').removeprefix(QUIET)}, 95 %"
    lines(place, low, high, color=style["color"], lw=width, label=label)
    for end, shown, arrow in zip(values[1:], (low, high), arrows, strict=True):
        if (out := end != shown).any():
            arrows_at = (place[out], shown[out])[order]
            ax.plot(*arrows_at, arrow, ls="", color=style["color"], ms=6, clip_on=False)


def shade(
    ax: Axes, spec: Any, along: Literal["x", "y"] = "y", within: tuple[float, float] | None = None
) -> None:
    """Regions of an estimand (`supports`, `contradicts`) within what an axis shows already."""
    first, last = within or getattr(ax, f"get_{along}lim")()
    span = {"x": ax.axvspan, "y": ax.axhspan}[along]
    for kind in ("supports", "contradicts"):
        for low, high in getattr(spec, kind, ()):
            ends = (first if low is None else low, last if high is None else high)
            start, stop = np.clip(ends, first, last)
            if start < stop:
                span(start, stop, color=COLOURS[kind], lw=0, zorder=0, label=f"{QUIET}{kind}")
    ax.set(**{f"{along}lim": (first, last)})


def null_histogram(ax: Axes, each: Float[np.ndarray, " group"], *, kind: str, xlabel: str) -> None:
    """Control groups as a histogram, the group, which comes first, marked in it."""
    ax.hist(each[1:], bins=30, color=COLOURS["controls"], label="control groups")
    ax.axvline(each[0], color=COLOURS[kind], lw=2.5, label="plateau group")
    ax.margins(y=0.25)
    side = "left" if each[0] < np.mean(ax.get_xlim()) else "right"
    place = {"transform": ax.get_xaxis_transform(), "va": "top", "ha": side}
    ax.text(each[0], 0.99, " plateau group ", color=COLOURS[kind], weight="bold", **place)
    ax.set(xlabel=xlabel, ylabel="control groups")


def ticks(axis: Axis, at: Iterable[float | int], form: str = "{:g}") -> None:
    """These ticks and no others, as plain numbers."""
    axis.set_ticks(list(at), [form.format(one) for one in at])
    axis.set_minor_locator(NullLocator())


def decimals(axis: Axis) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5, as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def legend(figure: Figure, columns: int = 3, handles: Iterable[Artist] | None = None) -> None:
    """One legend above all panels, each name once, in room of its own.

    It has at most so many columns: fewer where it would be wider than the figure.
    """
    if handles is None:
        handles = [one for ax in figure.axes for one in ax.get_legend_handles_labels()[0]]
    named: dict[str, Artist] = {}
    for one in handles:
        named.setdefault(one.get_label(), one)
    if not named:
        return
    place = {"handles": list(named.values()), "loc": "outside upper center"}
    found = figure.legend(ncols=columns, **place)
    while columns > 1 and found.get_window_extent().width > figure.bbox.width:
        found.remove()
        columns -= 1
        found = figure.legend(ncols=columns, **place)
    figure.set_figheight(figure.get_figheight() + 0.1 + 0.27 * -(-len(named) // columns))


def relative_times(ax: Axes, ways: list[str], times: dict[str, list[float]]) -> None:
    """Times of several ways in forward passes, on a log axis: one dot a way and series."""
    for i, (label, values) in enumerate(times.items()):
        colour, marker = SERIES[i % len(SERIES)]
        # A little apart, so that equal times are seen as two.
        height = np.arange(len(ways)) + 0.18 * (i - (len(times) - 1) / 2)
        ax.plot(values, height, marker, color=colour, ms=7, label=label)
    ax.axvline(1, color="0.6", lw=0.8, zorder=0)
    ax.set(xscale="log", xlabel="time (forward passes)")
    ax.set_yticks(range(len(ways)), ways)
    ax.invert_yaxis()
    ax.grid(axis="y", color="0.9")


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
    ax.loglog(size, seconds, "o", color=COLOURS["common"], ms=6, label="measured")
    ax.loglog(size, line, "-", color=COLOURS["fit"], lw=1.4, label="fitted power law")
    ax.set(xlabel=xlabel, ylabel="time (s)", title=title)
    ticks(ax.xaxis, size[[0, -1]], "{:,.0f}")
    decimals(ax.yaxis)
