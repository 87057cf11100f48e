"""Figures on the overlap of rankings: each draws arrays on an Axes and computes nothing."""

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes

from raretok.book.style import COLOURS


def rank_scatter(
    ax: Axes,
    rare: Float[np.ndarray, " neuron"],
    common: Float[np.ndarray, " neuron"],
    *,
    both: Bool[np.ndarray, " neuron"],
    k: int,
) -> None:
    """Rank on rare targets against rank on common ones; both axes begin at the top neuron."""
    look = {"ls": "none", "mew": 0}
    ax.plot(rare[~both], common[~both], "o", ms=3, color="0.6", label="neuron", **look)
    ax.plot(
        rare[both], common[both], "s", ms=6, color=COLOURS["rare"], label="top for both", **look
    )
    ax.axvline(k + 0.5, color="black", ls=":", lw=1, label=f"first {k}")
    ax.axhline(k + 0.5, color="black", ls=":", lw=1)
    ax.set(
        xscale="log", yscale="log", xlabel="rank on rare targets", ylabel="rank on common targets"
    )


def shared_tops(
    ax: Axes,
    share: Float[np.ndarray, " k"],
    *,
    permuted: tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]],
    ceiling: Float[np.ndarray, " k"],
    chance: Float[np.ndarray, " k"],
    used: int,
) -> None:
    """Share (%) of the first k neurons that both rankings have, by k."""
    k = np.arange(1.0, share.size + 1)
    ax.fill_between(k, *permuted, color=COLOURS["null"], lw=0, label="labels exchanged")
    ax.plot(k, ceiling, "--", color=COLOURS["common"], lw=1.3, label="each class with itself")
    ax.plot(k, chance, ":", color="black", lw=1.3, label="chance")
    ax.plot(k, share, color=COLOURS["rare"], lw=1.8, label="rare and common")
    ax.plot(used, share[used - 1], "s", ms=8, mfc="none", mec="black", label=f"first {used}")
    ax.set(xscale="log", xlabel="first k neurons", ylabel="shared (%)", ylim=(-3, 103))
