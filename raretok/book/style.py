"""Drawing: each function takes an Axes and arrays, and computes nothing."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

# One colour a meaning, on every page; the pairs differ for the colour-blind and in grey.
_PALETTE = sns.color_palette("colorblind")
COLOURS = {
    "rare": _PALETTE[3],
    "common": _PALETTE[0],
    "untrained": _PALETTE[7],
    "null": "0.75",
    "fit": "black",
}
# For series that have no meaning of their own on other pages.
_SERIES = [(_PALETTE[2], "o"), (_PALETTE[1], "s"), (_PALETTE[4], "^")]


def panels(
    columns: int = 1, *, width: float = 3.9, height: float = 3.4, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of axes side by side, at the same size on every machine."""
    sns.set_theme(style="ticks", font_scale=0.9)
    figure, axes = plt.subplots(
        1,
        columns,
        figsize=(max(6.4, width * columns), height),
        dpi=120,
        layout="constrained",
        sharex=share,
        sharey=share,
        squeeze=False,
    )
    for ax in axes[0]:
        sns.despine(ax=ax)
    return figure, list(axes[0])


def rank_curve(
    ax: Axes,
    rank: Float[np.ndarray, " point"],
    value: Float[np.ndarray, " point"],
    *,
    label: str,
    kind: str,
    marker: str = "o",
) -> None:
    """Influence by rank, log-log."""
    ax.loglog(rank, value, marker, ms=3, color=COLOURS[kind], label=label, alpha=0.8, mew=0)
    ax.set(xlabel="neuron, by rank of influence", ylabel="influence (nats per token)")


def band(
    ax: Axes,
    rank: Float[np.ndarray, " point"],
    low: Float[np.ndarray, " point"],
    high: Float[np.ndarray, " point"],
    *,
    kind: str,
) -> None:
    """95 % interval around a rank curve; a lower end at or below zero leaves the axes."""
    floor = np.nanmin(high[high > 0]) * 1e-3
    ax.fill_between(rank, np.maximum(low, floor), high, color=COLOURS[kind], alpha=0.2, lw=0)


def fitted_line(
    ax: Axes,
    rank: Float[np.ndarray, " point"],
    value: Float[np.ndarray, " point"],
    *,
    label: str,
    style: str = "-",
) -> None:
    """A fitted curve over a rank curve."""
    ax.loglog(rank, value, style, color=COLOURS["fit"], lw=1.3, label=label)


def null_histogram(
    ax: Axes,
    null: Float[np.ndarray, " draw"],
    observed: dict[str, float],
    *,
    xlabel: str,
    null_label: str,
    level: float | None = None,
) -> None:
    """A null distribution with what was observed marked in it, and the 5 % level if given."""
    ax.hist(null, bins=40, density=True, color=COLOURS["null"], label=null_label)
    for (label, value), style in zip(observed.items(), ["-", "--", "-."], strict=False):
        kind = next((k for k in ("untrained", "rare", "common") if k in label), "fit")
        ax.axvline(value, color=COLOURS[kind], ls=style, lw=2, label=label)
    if level is not None:
        ax.axvline(level, color="black", ls=":", lw=1, label="5 % level")
    ax.set(xlabel=xlabel, ylabel="density")


def legend_below(figure: Figure, ax: Axes, columns: int) -> None:
    """One legend under all panels, so that it hides no data."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def overlaid_curves(
    ax: Axes,
    curves: dict[str, tuple[Float[np.ndarray, " rank"], Float[np.ndarray, " rank"]]],
) -> None:
    """Several rank curves in one axes, told apart by colour and dashes."""
    looks = zip(["-", "--", "-.", ":"], _PALETTE, strict=False)
    for (label, (rank, value)), (style, colour) in zip(curves.items(), looks, strict=False):
        ax.loglog(rank, value, style, color=colour, lw=1.6, label=label)
    ax.set(xlabel="neuron, by rank of influence", ylabel="influence (nats per token)")


def joint_scatter(
    ax: Axes,
    summed: Float[np.ndarray, " draw"],
    joint: Float[np.ndarray, " draw"],
    observed: dict[str, tuple[float, float]],
) -> None:
    """Groups ablated at once against the sum of their neurons, with the line where they agree."""
    ax.plot(summed, joint, "o", ms=4, mew=0, color="0.6", alpha=0.7, label="control groups")
    for (label, point), marker in zip(observed.items(), "Ds^", strict=False):
        kind = next((k for k in ("rare", "common") if k in label), "fit")
        ax.plot(*point, marker, ms=8, color=COLOURS[kind], label=label)
    ends = np.array([min(0.0, summed.min()), max(summed.max(), *(x for x, _ in observed.values()))])
    ax.plot(ends, ends, ":", color="black", lw=1, label="effects add up")
    ax.set(xlabel="sum of single effects (nats per token)", ylabel="joint effect (nats per token)")


def fitted_regimes(
    ax: Axes,
    rank: Float[np.ndarray, " rank"],
    value: Float[np.ndarray, " rank"],
    *,
    pieces: Float[np.ndarray, " rank"],
    smooth: Float[np.ndarray, " rank"],
    breaks: Float[np.ndarray, " break"],
    kind: str,
) -> None:
    """Sorted influence with the three-piece and the smooth fit, and the breaks."""
    rank_curve(ax, rank, value, label="influence", kind=kind)
    fitted_line(ax, rank, pieces, label="three straight pieces")
    fitted_line(ax, rank, smooth, label="one smooth curve", style=":")
    for at in breaks:
        ax.axvline(at, color="0.6", lw=0.8, zorder=0)
    ax.set_title(f"{kind} targets")


def relative_times(ax: Axes, ways: list[str], times: dict[str, list[float]]) -> None:
    """Times of several ways in forward passes, on a log axis: one dot a way and series."""
    for i, (label, values) in enumerate(times.items()):
        colour, marker = _SERIES[i % len(_SERIES)]
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
