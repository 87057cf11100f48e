"""Drawing of the page `coordination`; computes nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from raretok.book.style import COLOURS

STYLES = ["-", "--", "-.", ":"]
_LINES = sns.color_palette("colorblind")


def either(ax: Axes, draw: Callable[..., Any], content: dict[str, Any] | str) -> Any:
    """Draw the content, or write the reason why there is none."""
    if not isinstance(content, str):
        return draw(ax, **content)
    ax.axis("off")
    reason = f"not testable here:\n{content}"
    return ax.text(0.5, 0.5, reason, ha="center", va="center", wrap=True, transform=ax.transAxes)


def trait_dots(
    ax: Axes,
    traits: tuple[str, ...],
    means: dict[str, Float[np.ndarray, " trait"]],
    spread: tuple[Float[np.ndarray, " trait"], Float[np.ndarray, " trait"]],
) -> None:
    """Mean of each trait in the group and in its controls; the layer's mean is 0."""
    at = np.arange(len(traits))
    ax.axvline(0, color="0.6", lw=0.8, zorder=0)
    ax.hlines(at, *spread, color=COLOURS["null"], lw=6, label="95 % of the control groups")
    for (name, values), marker in zip(means.items(), "os", strict=False):
        colour = COLOURS["rare"] if name == "plateau group" else "black"
        ax.plot(values, at, marker, color=colour, ms=7, label=name)
    ax.set_yticks(at, traits)
    ax.set(xlabel="mean, standard deviations of the layer from its mean")
    ax.set_ylim(len(traits) - 0.5, -0.5)


def member_distances(ax: Axes, distance: list[Float[np.ndarray, "_"]]) -> None:
    """How far each member is from the neurons it is compared with, one row of dots a half."""
    for number, values in enumerate(distance):
        label = "a neuron of the group" if number == 0 else None
        ax.plot(values, np.full(values.size, number), "o", color=COLOURS["rare"], label=label)
    halves = [f"half {n + 1}" for n in range(len(distance))]
    ax.set_yticks(range(len(distance)), halves if len(distance) > 1 else ["all"])
    ax.set_ylim(-0.6, len(distance) - 0.4)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.axvline(1, color="0.6", lw=0.8, zorder=0)
    ax.set(xlabel="distance from its control neurons (sd)")


def heatmap(
    ax: Axes, matrix: Float[np.ndarray, "member member"], names: list[str], title: str
) -> AxesImage:
    """A correlation matrix, its neurons in the order given."""
    image = ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.set(xlabel="neuron", ylabel="neuron", title=title)
    return image


def colour_bar(figure: Figure, axes: list[Axes], image: Any) -> None:
    """The scale of the heatmaps; none where nothing was drawn."""
    if isinstance(image, AxesImage):
        figure.colorbar(image, ax=axes, label="correlation", shrink=0.8)


def cumulative(
    ax: Axes,
    at: Float[np.ndarray, " point"],
    group: Float[np.ndarray, " point"],
    low: Float[np.ndarray, " point"],
    high: Float[np.ndarray, " point"],
    title: str,
) -> None:
    """Share of pairs up to each correlation: the group, and a band of its controls."""
    ax.fill_between(at, low, high, color=COLOURS["null"], lw=0, label="95 % of the control groups")
    ax.plot(at, group, color=COLOURS["rare"], lw=2, label="plateau group")
    ax.set(xlabel="correlation of two neurons", ylabel="share of pairs up to it (%)", title=title)


def sample_curves(
    ax: Axes,
    n_positions: Float[np.ndarray, " point"],
    curves: dict[str, Float[np.ndarray, " point"]],
    *,
    ylabel: str,
    title: str = "",
    mark: float | None = None,
    truth: float | None = None,
) -> None:
    """A statistic against the number of positions; a vertical line at the number used."""
    for number, (label, values) in enumerate(curves.items()):
        style = "o" + STYLES[number % len(STYLES)]
        ax.semilogx(n_positions, values, style, color=_LINES[number], ms=4, label=label)
    if mark is not None:
        ax.axvline(mark, color="0.6", lw=0.8, zorder=0)
    if truth is not None:
        ax.axhline(truth, color="0.6", lw=0.8, zorder=0)
    ticks = [t for t in (50, 100, 200, 400, 800, 2000) if t <= n_positions.max()]
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()
    ax.set(xlabel="positions", ylabel=ylabel, title=title)
