"""Figures of the page on detectors."""

import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from raretok.book.style import COLOURS


def detector_map(
    ax: Axes,
    share: Float[np.ndarray, "world detector"],
    text: list[list[str]],
    *,
    worlds: list[str],
    detectors: list[str],
    marked: list[tuple[int, int]],
    lines: list[int],
) -> None:
    """Share of runs in which each detector fired; framed: the world it looks for."""
    ax.imshow(np.ma.masked_invalid(share), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(share.shape):
        colour = "white" if share[row, column] > 0.6 else "black"
        ax.text(column, row, text[row][column], ha="center", va="center", color=colour, size=8)
    frame = {"fill": False, "lw": 2.5, "edgecolor": sns.color_palette("colorblind")[1]}
    for row, column in marked:
        ax.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, **frame))
    for at in lines:
        ax.axhline(at - 0.5, color="white", lw=4)
    ax.set_xticks(range(len(detectors)), detectors)
    ax.set_yticks(range(len(worlds)), worlds)
    ax.tick_params(length=0)
    ax.set(xlabel="detector", ylabel="world, and what the group is compared with")


def strength_curves(
    ax: Axes,
    strength: Float[np.ndarray, " strength"],
    share: dict[str, Float[np.ndarray, " strength"]],
    level: float,
) -> None:
    """How often each detector finds its own planted world, by strength."""
    markers = zip("osD^v", sns.color_palette("colorblind"), strict=False)
    for (name, values), (marker, colour) in zip(share.items(), markers, strict=False):
        ax.plot(strength, 100 * values, marker=marker, color=colour, label=name, clip_on=False)
    ax.axhline(100 * level, color="black", ls=":", lw=1)
    ax.set(xlabel="strength of the planted effect", ylabel="runs in which it is found (%)")
    ax.set(ylim=(0, 102), xlim=(0, 1.02))


def graded_map(
    ax: Axes,
    series: dict[str, Float[np.ndarray, "strength 2"]],
    *,
    model: Float[np.ndarray, "run 2"],
    controls: Float[np.ndarray, "draw 2"],
) -> None:
    """Dimensions per neuron against modularity; strength grows along each line."""
    ax.plot(*controls.T, ".", ms=2.5, mew=0, color=COLOURS["null"], zorder=0)
    ax.plot([], [], "s", color=COLOURS["null"], label="matched controls")
    colours = sns.color_palette("viridis", len(series))
    for (name, points), colour, marker in zip(series.items(), colours, "osD^vP", strict=False):
        ax.plot(*points.T, "-", marker=marker, ms=5, color=colour, label=name)
    ax.plot(*model.T, "x", color=COLOURS["rare"], ms=5, label="the model's plateau group")
    ax.set(xlabel="dimensions per neuron (participation ratio / n)")
    ax.set(ylabel="held-out Q less controls", xlim=(0, 1.02))
