"""Drawing of the page `attention`: each function takes an Axes and arrays, and computes nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from raretok.book.style import COLOURS


def shown(ax: Axes, draw: Callable[..., Any], arguments: dict[str, Any] | str) -> Any:
    """Draw, or write down why there is nothing to draw."""
    if not isinstance(arguments, str):
        return draw(ax, **arguments)
    ax.text(0.5, 0.5, arguments, ha="center", va="center", wrap=True, transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])
    return None


def profile(
    ax: Axes,
    offset: Float[np.ndarray, " bin"],
    rare: Float[np.ndarray, " bin"],
    common: Float[np.ndarray, " bin"],
    *,
    first: dict[str, float],
    title: str,
) -> None:
    """Mean attention per key by how far back the key is; the first token apart, on the right."""
    beside = 2.5 * offset.max()
    for kind, values, style in (("common", common, "-"), ("rare", rare, "--")):
        ax.plot(offset, values, style, color=COLOURS[kind], label=f"{kind} targets", lw=1.5)
        ax.plot([beside], [first[kind]], "D", color=COLOURS[kind], ms=5, mfc="none")
    ax.set_xscale("symlog", linthresh=1)
    ax.set_yscale("log")
    ax.set_xticks([0, 1, 10, 100, beside], ["0", "1", "10", "100", "first"])
    ax.tick_params(axis="x", which="minor", bottom=False)
    ax.set(xlabel="tokens back", ylabel="attention per key", title=title)


def dots(
    ax: Axes,
    label: list[str],
    value: Float[np.ndarray, " item"],
    low: Float[np.ndarray, " item"] | None,
    high: Float[np.ndarray, " item"] | None,
    null_low: Float[np.ndarray, " item"],
    null_high: Float[np.ndarray, " item"],
    *,
    ylabel: str,
    xlabel: str,
    null_label: str,
    ceiling: Float[np.ndarray, " item"] | None = None,
    published: tuple[float, float] | None = None,
    zero: bool = False,
) -> None:
    """What was observed, with its interval, over the 95 % band of the null."""
    at = np.arange(len(label))
    if published is not None:
        ax.axhspan(*published, color=COLOURS["common"], alpha=0.15, lw=0, label="published")
    ax.bar(
        at, null_high - null_low, 0.7, null_low, color=COLOURS["null"], label=null_label, zorder=1
    )
    if ceiling is not None:
        ax.plot(at, ceiling, "_", color=COLOURS["fit"], ms=12, label="split-half ceiling")
    ax.plot(at, value, "o", color=COLOURS["rare"], ms=5, label="observed", zorder=3)
    if low is not None and high is not None:
        ax.vlines(at, low, high, color=COLOURS["rare"], lw=1.5, zorder=2)
    if zero:
        ax.axhline(0, color="black", lw=0.8, ls=":")
    step = max(1, len(label) // 24)
    ax.set_xticks(at[::step], label[::step], rotation=90 if len(label) > 8 else 0)
    ax.set(xlabel=xlabel, ylabel=ylabel)


def heat(
    ax: Axes,
    effect: Float[np.ndarray, "layer head"],
    *,
    layers: list[int],
    largest: float,
    title: str,
) -> AxesImage:
    """Effect of each head, by layer and head; `largest` is the end of the colour scale."""
    image = ax.imshow(effect, cmap="viridis", vmin=0, vmax=largest, aspect="auto")
    ax.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    step = max(1, effect.shape[1] // 16)
    ax.set_xticks(range(0, effect.shape[1], step))
    ax.set(xlabel="head", ylabel="layer", title=title)
    return image
