"""Figures of the page `regimes`."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from raretok.claims.style import COLOURS, PALETTE
from raretok.stats.jackknife import Estimate

Curve = Float[np.ndarray, " rank"]
DASHES = ("-", "--", "-.", ":")


def rank_curve(ax: Axes, values: Curve, low, high, *, kind: str, label: str) -> None:
    """Influence by rank, log-log, in bins of ranks with their 95 % band."""
    rank = np.arange(1.0, values.size + 1)
    shown = values > 0
    ax.plot(rank[shown], values[shown], "o", ms=3, mew=0, color=COLOURS[kind], label=label)
    floor = np.nanmin(high[high > 0]) * 1e-3
    ax.fill_between(rank, np.maximum(low, floor), high, color=COLOURS[kind], alpha=0.2, lw=0)


def law(ax: Axes, values: Curve, *, head: int, label: str = "one smooth curve") -> None:
    """The smooth curve: solid where it is fitted, dotted where it is continued upwards."""
    rank = np.arange(1.0, values.size + 1)
    ax.plot(rank[head:], values[head:], "-", color=COLOURS["fit"], lw=1.3, label=label)
    ax.plot(rank[: head + 1], values[: head + 1], ":", color=COLOURS["fit"], lw=1.3)
    ax.axvspan(0.9, head + 0.5, color="0.93", lw=0, zorder=0)
    ax.set(xscale="log", yscale="log", xlabel="neuron, by rank", ylabel="influence (nats a token)")


def lifts(
    ax: Axes, shares: list[float], found: dict[str, list[Estimate | None]], regions: dict[str, list]
) -> None:
    """Lift of heads of several sizes over the smooth curve, with the regions of the claim."""
    for name, some in regions.items():
        for low, high in some:
            ax.axhspan(low or 0.01, high or 20, color=COLOURS[name], lw=0, zorder=0)
    for i, (kind, estimates) in enumerate(found.items()):
        for j, (share, one) in enumerate(zip(shares, estimates, strict=True)):
            if one is not None:
                x = share * (0.95 if i else 1.05)
                ax.plot([x, x], [one.low, one.high], color=COLOURS[kind], lw=1.5)
                name = f"{kind} targets" if j == 0 else None
                ax.plot(x, one.value, "o", color=COLOURS[kind], ms=5, label=name)
    ax.axhline(1, color="0.3", lw=0.8)
    ax.set(xscale="log", yscale="log", ylim=(0.05, 12), xlabel="head, % of the neurons")
    ax.set(ylabel="x the smooth curve", xticks=shares, yticks=(0.1, 0.3, 1, 3, 10))
    ax.set_xticklabels([f"{share:g}" for share in shares])
    ax.set_yticklabels(["0.1", "0.3", "1", "3", "10"])
    ax.minorticks_off()


def interventions(ax: Axes, curves: dict[str, Curve]) -> None:
    """Rank curves under several interventions."""
    for (name, values), style, colour in zip(curves.items(), DASHES, PALETTE, strict=False):
        rank = np.arange(1.0, values.size + 1)
        shown = values > 0
        ax.plot(rank[shown], values[shown], style, color=colour, lw=1.5, label=name)
    ax.set(xscale="log", yscale="log", xlabel="neuron, by rank", ylabel="influence (nats a token)")
