"""Figures and tables of the page `attention`."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes

from raretok.claims.attention.estimate import LAST, alike, gini_difference, moved
from raretok.claims.attention.profiles import class_sums
from raretok.claims.compare import spread
from raretok.claims.finding import or_none
from raretok.claims.sample import Sample
from raretok.claims.style import COLOURS
from raretok.measure.head_sums import WHOLE, HeadSums
from raretok.measure.rows import Rows
from raretok.stats.jackknife import Deal, Estimate

Heads = Float[np.ndarray, " head"]
Profile = Float[np.ndarray, " category"]
ENDS = ("value", "low", "high")


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
    ax: Axes, offset: Float[np.ndarray, " bin"], rare: Profile, common: Profile, *, title: str
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


def layers(rows: Rows, deal: Deal, matched: bool) -> dict[str, dict[str, list[Estimate | None]]]:
    """A1 and A2 of every layer by itself, with and without the first token, for `by_layer`."""
    found: dict[str, dict[str, list[Estimate | None]]] = {"A1": {}, "A2": {}}
    for name, first_token in (("all attention", True), ("first token removed", False)):
        for one in map(rows.layer, range(len(rows.mass))):
            gini = one.gini if first_token else one.gini_rest
            numbers = {
                "A1": lambda one=one, f=first_token: alike(one, deal, matched, f).over_ceiling(),
                "A2": lambda one=one, g=gini: gini_difference(g, one, deal, matched),
            }
            for claim, compute in numbers.items():
                found[claim].setdefault(name, []).append(or_none(compute))
    return found


def by_layer(ax: Axes, found: dict[str, list[Estimate | None]], spec: Any) -> None:
    """Estimates of every layer over the regions of the claim; its layers are shaded."""
    marks = zip(found.items(), ("o", "s"), (COLOURS["rare"], COLOURS["fit"]), strict=False)
    values = [spec.supports[0][0], *(b for one in spec.contradicts for b in one if b is not None)]
    for i, ((name, estimates), shape, colour) in enumerate(marks):
        there = [(layer, one) for layer, one in enumerate(estimates) if one is not None]
        x = np.array([layer + 0.2 * i for layer, _ in there])
        value, low, high = (np.array([getattr(e, n) for _, e in there]) for n in ENDS)
        ax.vlines(x, low, high, color=colour, lw=1)
        ax.plot(x, value, shape, color=colour, ms=3.5, label=name)
        values += [*value]
    low, high = min(values), max(values)
    bottom, top = low - 0.15 * (high - low), high + 0.15 * (high - low)
    for name, regions in (("supports", spec.supports), ("contradicts", spec.contradicts)):
        for start, stop in regions:
            low = bottom if start is None else max(start, bottom)
            high = top if stop is None else min(stop, top)
            if low < high:
                ax.axhspan(low, high, color=COLOURS[name], lw=0, zorder=0)
    n = max(map(len, found.values()), default=0)
    ax.axvspan(n - LAST - 0.4, n - 0.4, color="0.5", alpha=0.15, lw=0, zorder=1)
    ax.set(ylim=(bottom, top), xlabel="layer", ylabel=spec.unit)


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
    group: Heads,
    low: Heads,
    high: Heads,
    *,
    published: tuple[float, float],
) -> None:
    """Change of the group by each head, over the range of its controls."""
    at = np.arange(len(names))
    ax.axhspan(*published, color=COLOURS["common"], alpha=0.15, lw=0, label="published, largest")
    ax.bar(at, high - low, 0.7, low, color=COLOURS["controls"], label="control groups, 95 %")
    ax.plot(at, group, "o", color=COLOURS["rare"], ms=6, label="plateau group")
    ax.set_xticks(at, names, rotation=90 if len(names) > 10 else 0)
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
