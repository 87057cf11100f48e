"""Figures and tables of the page `attention`."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from raretok.claims.attention.estimate import LAST, alike, gini_difference, moved
from raretok.claims.attention.profiles import class_sums
from raretok.claims.compare import spread
from raretok.claims.digest import QUIET
from raretok.claims.finding import or_none
from raretok.claims.sample import Sample
from raretok.claims.style import COLOURS, PALETTE, points, shade
from raretok.measure.attention import WHOLE, HeadSums, Rows
from raretok.stats.jackknife import Deal, Estimate

MARKS = {"all attention": ("o", COLOURS["fit"]), "first token removed": ("s", PALETTE[2])}


def profiles(axes: list[Axes], rows: Rows, deal: Deal, matched: bool) -> None:
    """Mean attention per key by how far back the key is, in each of the last layers.

    The first token stands apart, on the right.
    """
    keep = rows.keys.sum(axis=0) > 0
    offset = rows.edges[keep[1:]].astype(float)
    apart = 2.5 * offset.max()
    for ax, (layer, mass) in zip(axes, list(enumerate(rows.mass))[-LAST:], strict=False):
        sums = class_sums(mass[..., keep], rows.keys[:, keep], rows, deal, matched)
        for kind, dash in (("common", "-"), ("rare", "--")):
            first, *values = sums[kind].profile(np.ones(deal.n_blocks)).mean(axis=0)
            ax.plot(offset, values, dash, color=COLOURS[kind], label=f"{kind} targets", lw=1.8)
            ax.plot([apart], [first], "D", color=COLOURS[kind], ms=7, mfc="none")
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xticks([0, 1, 10, apart], ["0", "1", "10", "first"])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set(yscale="log", xlabel="tokens back", title=f"layer {layer}")
        ax.set_ylabel("attention per key")


def of_layer(claim: str, rows: Rows, deal: Deal, matched: bool, first_token: bool) -> Estimate:
    """A1 or A2 of one layer, with or without the first token."""
    if claim == "A1":
        return alike(rows, deal, matched, first_token).over_ceiling()
    return gini_difference(rows.gini if first_token else rows.gini_rest, rows, deal, matched)


def by_layer(ax: Axes, rows: Rows, deal: Deal, matched: bool, claim: str, spec: Any) -> None:
    """A1 or A2 of every layer over the regions of the claim; its layers are shaded."""
    values = [spec.supports[0][0], *(b for one in spec.contradicts for b in one if b is not None)]
    layers, n = [rows.layer(number) for number in range(len(rows.mass))], len(rows.mass)
    for i, (name, (shape, colour)) in enumerate(MARKS.items()):
        found = [or_none(of_layer, claim, one, deal, matched, not i) for one in layers]
        points(ax, np.arange(n) + 0.2 * i, found, marker=shape, color=colour, ms=4.5, label=name)
        values += [one.value for one in found if one]
    margin = 0.15 * (max(values) - min(values))
    ax.set(ylim=(min(values) - margin, max(values) + margin), xlabel="layer", ylabel=spec.unit)
    shade(ax, spec)
    last = {"alpha": 0.15, "lw": 0, "zorder": 1, "label": f"{QUIET}layers of the claim"}
    ax.axvspan(n - LAST - 0.4, n - 0.4, color="0.5", **last)


def heads(
    ax: Axes, sample: Sample, sums: HeadSums, layers: list[int], *, published: tuple[float, float]
) -> None:
    """Change of the group by each head, over the range of its controls."""
    effect = moved(sample, sums, layers).measured[0].mean(axis=0)
    names = [f"{layer}.{head}" for layer, head in sums.targets if layer in layers and head != WHOLE]
    low, high = np.quantile(effect[1:], [0.025, 0.975], axis=0)
    at = np.arange(len(names))
    band = {"color": COLOURS["published"], "alpha": 0.2, "lw": 0, "label": f"{QUIET}published"}
    ax.axhspan(*published, **band)
    ax.text(-0.4, np.mean(published), "published for the largest", va="center")
    ax.bar(at, high - low, 0.7, low, color=COLOURS["controls"], label="control groups, 95 %")
    ax.plot(at, effect[0], "o", color=COLOURS["rare"], ms=7, label="plateau group")
    ax.set_xticks(at, names, rotation=90 if len(names) > 10 else 0)
    ax.set(xlabel="layer.head", ylabel="change (sd of the activation)", ylim=(0, None))


def modes_table(sample: Sample, modes: dict[str, HeadSums], layers: list[int]) -> pd.DataFrame:
    """A3 and A4 for every way to ablate heads: the group beside the mean of its controls."""
    rows: dict[str, dict[str, str]] = {}
    for name, sums in modes.items():
        found, rows[name] = moved(sample, sums, layers), {}
        both = (("largest head, sd", found.largest(), 2), ("whole layer, %", found.layer, 0))
        for label, values, digits in both:
            rows[name][label] = f"{values[0].mean(axis=0)[0]:.{digits}f}"
            rows[name][f"{label}: controls"] = f"{spread(values)[0]:.{digits}f}"
    return pd.DataFrame(rows).T.rename_axis("in its place")
