"""Figures and tables of the page `groups`."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from raretok.claims.finding import or_none
from raretok.claims.groups.estimate import (
    KINDS,
    Groups,
    effect,
    of_sets,
    selectivity,
    selectivity_of_sets,
    synergy,
)
from raretok.claims.style import COLOURS, MARKS, number, points, table, ticks
from raretok.stats.jackknife import Estimate

LINEAR = 0.01  # nats: below it the axis of effects is linear, so that none and negative ones show


def together(ax: Axes, groups: Groups, chosen_for: str) -> None:
    """Loss change by how many neurons go together, with 95 % intervals, over random sets."""
    for kind in KINDS:
        bands = [of_sets(groups, kind, chosen_for, one) for one in groups.percent]
        shade = {"color": COLOURS[kind], "alpha": 0.2, "lw": 0, "label": f"{kind}, random sets"}
        ax.fill_between(groups.percent, *np.transpose(bands), **shade)
    by_size(ax, groups, chosen_for, effect)
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set_yscale("symlog", linthresh=LINEAR)
    ax.margins(y=0.1)
    ax.set_ylabel("change of the loss (nats)")


def over_single(
    ax: Axes, groups: Groups, chosen_for: str, beside: dict[str, Groups] | None = None
) -> None:
    """Joint over the sum of single effects by size; other models as thin lines, rare targets."""
    for i, (name, other) in enumerate((beside or {}).items()):
        ratios = [or_none(synergy, other, "rare", chosen_for, p) for p in other.percent]
        there = [(p, one.value) for p, one in zip(other.percent, ratios, strict=True) if one]
        if there:
            ax.plot(*np.transpose(there), ("-", "--", ":", "-.")[i % 4], color="0.55", label=name)
    by_size(ax, groups, chosen_for, synergy)
    ax.axhline(1, color="0.3", lw=0.8)
    ax.set(yscale="log", ylim=(0.5, 3), ylabel="joint over sum of single effects")
    ticks(ax.yaxis, (0.5, 0.7, 1, 1.5, 2, 3))


def by_size(ax: Axes, groups: Groups, chosen_for: str, of: Callable[..., Estimate]) -> None:
    """A number of either class of targets by how many neurons go together."""
    for i, kind in enumerate(KINDS):
        found = [or_none(of, groups, kind, chosen_for, percent) for percent in groups.percent]
        x = groups.percent * (1 + 0.08 * i)
        points(ax, x, found, label=f"{kind} targets", ls="-", ms=6, lw=1.6, **MARKS[kind])
    ax.set(xscale="log", xlabel="neurons that go together, %")
    ax.set_title(f"chosen for {chosen_for} targets")
    ticks(ax.xaxis, groups.percent)


def group_table(groups: Groups) -> pd.DataFrame:
    """Every size and choice of the group: effects, random sets, joint over single, selectivity."""
    rows = {
        (chosen_for, f"{percent:g}"): of_size(groups, chosen_for, percent)
        for chosen_for in KINDS
        for percent in groups.percent
    }
    return table(rows, ["chosen for", "% of the layer"])


def of_size(groups: Groups, chosen_for: str, percent: float) -> dict[str, Estimate | str | None]:
    """Row of one size and choice."""
    row = {"neurons": str(groups.sizes[groups.at(percent)])}
    for kind in KINDS:
        of = (groups, kind, chosen_for, percent)
        row[f"{kind} loss, nats"] = effect(*of)
        row[f"{kind} loss, random sets"] = range_of_sets(*of)
        row[f"joint over single, {kind}"] = or_none(synergy, *of)
    row["rare over common"] = or_none(selectivity, groups, chosen_for, percent)
    row["the same of random sets"] = or_none(selectivity_of_sets, groups, chosen_for, percent)
    return row


def range_of_sets(groups: Groups, kind: str, chosen_for: str, percent: float) -> str:
    return " to ".join(map(number, of_sets(groups, kind, chosen_for, percent)))


def of_model(groups: Groups, percent: float = 1.0) -> dict[str, Estimate | None]:
    """Row of a model: its group chosen for rare targets, and how selective the other one is."""
    return {
        "rare loss, nats": or_none(effect, groups, "rare", "rare", percent),
        "common loss, nats": or_none(effect, groups, "common", "rare", percent),
        "joint over single, rare": or_none(synergy, groups, "rare", "rare", percent),
        "rare over common": or_none(selectivity, groups, "rare", percent),
        "of the group for common": or_none(selectivity, groups, "common", percent),
    }
