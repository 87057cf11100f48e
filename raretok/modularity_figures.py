"""Figures of the page `modularity`: each takes an Axes and arrays, and computes nothing."""

import numpy as np
import seaborn as sns
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from raretok.book.style import COLOURS

# Communities, differing for the colour-blind; more than eight begin again.
COMMUNITIES = [sns.color_palette("colorblind")[i] for i in (0, 1, 2, 4, 8, 9, 7, 5)]
WIDEST = 6.0  # points, of a link with |r| = 1


def network(
    ax: Axes,
    at: Float[np.ndarray, "node 2"],
    *,
    names: list[str],
    community: Int[np.ndarray, " node"],
    pairs: Int[np.ndarray, "link 2"],
    r: Float[np.ndarray, " link"],
) -> None:
    """Neurons as dots coloured by community; positive links solid, negative ones dashed."""
    for sign, style in ((1, "-"), (-1, (0, (2, 1)))):
        drawn = np.sign(r) == sign
        widths = WIDEST * np.abs(r[drawn])
        lines = LineCollection(at[pairs[drawn]], linewidths=widths, linestyle=style, zorder=1)
        lines.set(color="0.55", alpha=0.8)
        ax.add_collection(lines)
    colours = [COMMUNITIES[one % len(COMMUNITIES)] for one in community]
    ax.scatter(*at.T, s=330, c=colours, edgecolors="white", linewidths=1.5, zorder=2)
    for name, (x, y) in zip(names, at, strict=True):
        ax.text(x, y, name, ha="center", va="center", fontsize=6.5, color="white", weight="bold")
    ax.set(xticks=[], yticks=[], xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
    sns.despine(ax=ax, left=True, bottom=True)


def sweep(
    ax: Axes,
    resolution: Float[np.ndarray, " resolution"],
    value: Float[np.ndarray, " resolution"],
    low: Float[np.ndarray, " resolution"],
    high: Float[np.ndarray, " resolution"],
) -> None:
    """Q of the group less the mean of its controls, by resolution, over their range."""
    ax.fill_between(
        resolution, low, high, color=COLOURS["null"], lw=0, label="90 % of control groups"
    )
    ax.plot(resolution, value, "o-", color="black", ms=4, label="plateau group")
    ax.axhline(0, color="0.4", lw=0.8)
    ax.set(xlabel="resolution of Q", ylabel="largest Q, less the controls' mean")


def plane(
    ax: Axes,
    coordination: Float[np.ndarray, " draw"],
    modules: Float[np.ndarray, " draw"],
    *,
    marked: dict[str, tuple[float, float]],
    paths: dict[str, tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]],
) -> None:
    """Groups by mean |r| and held-out Q; single groups marked, planted worlds as lines."""
    ax.scatter(
        coordination, modules, s=7, color=COLOURS["null"], lw=0, label="control groups", zorder=1
    )
    for (label, path), style in zip(paths.items(), (":", "--", "-.", "-"), strict=False):
        ax.plot(*path, style, color="0.35", lw=1.4, label=label, zorder=2)
    for (label, (x, y)), marker in zip(marked.items(), "Ds^v", strict=False):
        kind = "untrained" if "untrained" in label else "rare"
        ax.scatter([x], [y], s=70, marker=marker, color=COLOURS[kind], label=label, zorder=3)
    ax.set(xlabel="coordination: mean |r|", ylabel="modules: held-out Q")
