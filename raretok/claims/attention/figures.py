"""Figures and tables of the page `attention`."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes

from raretok.claims.attention.estimate import LAST, moved
from raretok.claims.attention.profiles import class_sums
from raretok.claims.compare import spread
from raretok.claims.sample import Sample
from raretok.claims.style import COLOURS
from raretok.measure.head_sums import WHOLE, HeadSums
from raretok.measure.rows import Rows
from raretok.stats.jackknife import Deal


def profiles(rows: Rows, deal: Deal, matched: bool) -> list[dict[str, Any]]:
    """Mean attention by distance in each of the last layers, for `profile`."""
    keep = rows.keys.sum(axis=0) > 0
    everything = np.ones((1, deal.n_blocks))
    edges = np.concatenate([[0], rows.edges])[keep]
    found = []
    for layer, mass in list(enumerate(rows.mass))[-LAST:]:
        sums = class_sums(mass[..., keep], rows.keys[:, keep], rows, deal, matched)
        heads = {
            kind: one.profile(everything)[0].reshape(mass.shape[1], -1).mean(axis=0)
            for kind, one in sums.items()
        }
        found.append({"offset": edges[1:].astype(float), **heads, "title": f"layer {layer}"})
    return found


def profile(
    ax: Axes,
    offset: Float[np.ndarray, " bin"],
    rare: Float[np.ndarray, " category"],
    common: Float[np.ndarray, " category"],
    *,
    title: str,
) -> None:
    """Mean attention per key by how far back the key is; the first token apart, on the right."""
    beside = 2.5 * offset.max()
    for kind, values, style in (("common", common, "-"), ("rare", rare, "--")):
        ax.plot(offset, values[1:], style, color=COLOURS[kind], label=f"{kind} targets", lw=1.5)
        ax.plot([beside], values[:1], "D", color=COLOURS[kind], ms=5, mfc="none")
    ax.set_xscale("symlog", linthresh=1)
    ax.set_yscale("log")
    ax.set_xticks([0, 1, 10, 100, beside], ["0", "1", "10", "100", "first"])
    ax.tick_params(axis="x", which="minor", bottom=False)
    ax.set(xlabel="tokens back", ylabel="attention per key", title=title)


def head_effects(sample: Sample, sums: HeadSums, layers: list[int]) -> dict[str, Any]:
    """Change of the group by each head beside its controls, for `heads`."""
    found = moved(sample, sums, layers)
    effect = found.measured[0].mean(axis=0)
    names = [f"{layer}.{head}" for layer, head in sums.targets if layer in layers and head != WHOLE]
    low, high = np.quantile(effect[1:], [0.025, 0.975], axis=0)
    return {"names": names, "group": effect[0], "low": low, "high": high}


def heads(
    ax: Axes,
    names: list[str],
    group: Float[np.ndarray, " head"],
    low: Float[np.ndarray, " head"],
    high: Float[np.ndarray, " head"],
    *,
    published: tuple[float, float],
) -> None:
    """Change of the group by each head, over the range of its controls."""
    at = np.arange(len(names))
    ax.axhspan(*published, color=COLOURS["common"], alpha=0.15, lw=0, label="published, largest")
    ax.bar(at, high - low, 0.7, low, color=COLOURS["controls"], label="control groups, 95 %")
    ax.plot(at, group, "o", color=COLOURS["rare"], ms=6, label="plateau group")
    ax.set_xticks(at, names)
    ax.set(xlabel="layer.head", ylabel="change (sd of the activation)", ylim=(0, None))


def modes_table(sample: Sample, modes: dict[str, HeadSums], layers: list[int]) -> pd.DataFrame:
    """A3 and A4 for every way to ablate heads: the group beside the mean of its controls."""
    rows = {}
    for name, sums in modes.items():
        found = moved(sample, sums, layers)
        row = {}
        for label, values, digits in (
            ("largest head, sd", found.largest(), 2),
            ("whole layer, %", found.layer, 0),
        ):
            group = values[0].mean(axis=0)[0]
            row[label] = f"{group:.{digits}f}"
            row[f"{label}: controls"] = f"{spread(values)[0]:.{digits}f}"
        rows[name] = row
    return pd.DataFrame(rows).T.rename_axis("in its place")
