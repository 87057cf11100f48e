"""Figures of the page `spectra`: each draws arrays on an Axes and computes nothing."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from raretok.book.style import COLOURS

Band = tuple[Float[np.ndarray, " x"], Float[np.ndarray, " x"]]  # 2.5 and 97.5 % of the draws


def reference_band(
    ax: Axes, x: Float[np.ndarray, " x"], band: Band, *, label: str, noise: bool = False
) -> None:
    """Where 95 % of the reference draws lie: grey for controls, hatched for Gaussian rows."""
    look = (
        {"facecolor": "none", "edgecolor": "0.45", "hatch": "////", "lw": 0.5}
        if noise
        else {"color": COLOURS["null"], "lw": 0}
    )
    ax.fill_between(x, *band, label=label, **look)


def group_eigenvalues(
    ax: Axes,
    spectrum: Float[np.ndarray, " rank"],
    *,
    controls: Band,
    noise: Band,
    edge: float,
    control_label: str,
) -> None:
    """Eigenvalues of a group by rank over those of its references."""
    rank = np.arange(1.0, spectrum.size + 1)
    reference_band(ax, rank, controls, label=control_label)
    reference_band(ax, rank, noise, label="Gaussian rows", noise=True)
    ax.axhline(edge, color="black", ls=":", lw=1, label="edge of noise")
    ax.plot(rank, spectrum, "o-", ms=4, color=COLOURS["rare"], label="plateau group")
    ax.set(xlabel="eigenvalue, by rank", ylabel="eigenvalue", yscale="log")
    plain_ticks(ax, [0.2, 0.5, 1, 2, 4])


def hill_plot(
    ax: Axes,
    index: Float[np.ndarray, " k"],
    *,
    controls: Band,
    noise: Band,
    used: int,
    control_label: str,
) -> None:
    """Tail index by the number of eigenvalues it is estimated from."""
    k = np.arange(1.0, index.size + 1)
    reference_band(ax, k, controls, label=control_label)
    reference_band(ax, k, noise, label="Gaussian rows", noise=True)
    ax.axhline(2, color="black", ls=":", lw=1, label="published: below 2")
    ax.plot(k, index, "o-", ms=4, color=COLOURS["rare"], label="plateau group")
    ax.plot(used, index[used - 1], "s", ms=9, mfc="none", mec="black", label="k of the protocol")
    ax.set(xlabel="eigenvalues in the tail, k", ylabel="Hill tail index", yscale="log")
    plain_ticks(ax, [1, 2, 5, 10, 20, 50, 100])


def plain_ticks(ax: Axes, ticks: list[float]) -> None:
    """Written-out numbers on a short logarithmic axis."""
    low, high = ax.get_ylim()
    shown = [tick for tick in ticks if low <= tick <= high]
    ax.set_yticks(shown, [f"{tick:g}" for tick in shown])
    ax.minorticks_off()


def layer_density(
    ax: Axes,
    edges: Float[np.ndarray, " edge"],
    densities: dict[str, Float[np.ndarray, " bin"]],
    *,
    x: Float[np.ndarray, " x"],
    law: Float[np.ndarray, " x"],
) -> None:
    """Density of a layer's eigenvalues, trained and untrained, over the law of noise; log-log."""
    for (name, density), kind in zip(densities.items(), ("fit", "untrained"), strict=True):
        ax.stairs(
            np.where(density > 0, density, np.nan), edges, color=COLOURS[kind], lw=1.6, label=name
        )
    ax.plot(x, law, "--", color=COLOURS["rare"], lw=1.3, label="noise (Marchenko-Pastur)")
    ax.set(xlabel="eigenvalue", ylabel="density", xscale="log", yscale="log")


def direction_share(
    ax: Axes,
    share: Float[np.ndarray, " direction"],
    *,
    controls: Band,
    beyond: int,
    control_label: str,
) -> None:
    """Share of the group's weight variance in the layer's first directions, %."""
    direction = np.arange(1.0, share.size + 1)
    reference_band(ax, direction, controls, label=control_label)
    ax.axvline(max(beyond, 1), color="black", ls=":", lw=1, label="last one beyond noise")
    ax.plot(direction, share, color=COLOURS["rare"], lw=1.8, label="plateau group")
    ax.set(
        xlabel="leading directions of the layer",
        ylabel="share of weight variance (%)",
        xscale="log",
        ylim=(0, 103),
    )
