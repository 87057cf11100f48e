"""Figures, tables and sentences of the page `groups`."""

from collections.abc import Callable
from typing import Any

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
from raretok.claims.study import Study
from raretok.claims.style import COLOURS, MARKS, interval_text, number, points, ticks
from raretok.stats.jackknife import Estimate

ASIDE, LINE = 0.08, {"ls": "-", "ms": 6, "lw": 1.6}  # of the second series, and of both
LINEAR = 0.01  # nats: below it the axis of effects is linear, so that none and negative ones show


def read(study: Study) -> Groups:
    """The groups of a study. Raises `NotTestableError` where they were not measured."""
    return Groups.of(study.part("groups"))


def together(ax: Axes, groups: Groups, chosen_for: str) -> None:
    """Loss change by how many neurons go together, with 95 % intervals, over random sets."""
    for i, kind in enumerate(KINDS):
        bands = [of_sets(groups, kind, chosen_for, one) for one in groups.percent]
        shade = {"color": COLOURS[kind], "alpha": 0.2, "lw": 0, "label": f"{kind}, random sets"}
        ax.fill_between(groups.percent, *np.transpose(bands), **shade)
        found = [effect(groups, kind, chosen_for, one) for one in groups.percent]
        x = groups.percent * (1 + ASIDE * i)
        points(ax, x, found, label=f"{kind} targets", **LINE, **MARKS[kind])
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set_yscale("symlog", linthresh=LINEAR)
    percents(ax, groups)
    ax.set(title=f"chosen for {chosen_for} targets", ylabel="change of the loss (nats)")


def over_single(
    ax: Axes, groups: Groups, chosen_for: str, beside: dict[str, Groups] | None = None
) -> None:
    """Joint over the sum of single effects by size; other models as thin lines, rare targets."""
    for i, (name, other) in enumerate((beside or {}).items()):
        ratios = [or_none(synergy, other, "rare", chosen_for, p) for p in other.percent]
        there = [(p, one.value) for p, one in zip(other.percent, ratios, strict=True) if one]
        if there:
            ax.plot(*np.transpose(there), ("-", "--", ":", "-.")[i % 4], color="0.55", label=name)
    for i, kind in enumerate(KINDS):
        found = [or_none(synergy, groups, kind, chosen_for, p) for p in groups.percent]
        x = groups.percent * (1 + ASIDE * i)
        points(ax, x, found, label=f"{kind} targets", **LINE, **MARKS[kind])
    ax.axhline(1, color="0.3", lw=0.8)
    ax.set(yscale="log", ylim=(0.5, 3), title=f"chosen for {chosen_for} targets")
    ticks(ax.yaxis, (0.5, 0.7, 1, 1.5, 2, 3))
    ax.set_ylabel("joint over sum of single effects")
    percents(ax, groups)


def percents(ax: Axes, groups: Groups) -> None:
    ax.set(xscale="log", xlabel="neurons that go together, %")
    ticks(ax.xaxis, groups.percent)
    ax.yaxis.minorticks_off()


def group_table(groups: Groups) -> pd.DataFrame:
    """Every size and choice of the group: effects, random sets, joint over single, selectivity."""
    rows = [one_row(groups, chosen_for, p) for chosen_for in KINDS for p in groups.percent]
    return pd.DataFrame(rows).set_index(["chosen for", "% of the layer"])


def one_row(groups: Groups, chosen_for: str, percent: float) -> dict[str, str]:
    row = {
        "chosen for": chosen_for,
        "% of the layer": f"{percent:g}",
        "neurons": str(groups.sizes[groups.at(percent)]),
    }
    for kind in KINDS:
        low, high = of_sets(groups, kind, chosen_for, percent)
        row[f"{kind} loss, nats"] = shown(effect, groups, kind, chosen_for, percent)
        row[f"{kind} loss, random sets"] = f"{number(low)} to {number(high)}"
        row[f"joint over single, {kind}"] = shown(synergy, groups, kind, chosen_for, percent)
    row["rare over common"] = shown(selectivity, groups, chosen_for, percent)
    row["the same of random sets"] = shown(selectivity_of_sets, groups, chosen_for, percent)
    return row


def models_table(models: dict[str, Groups | str], percent: float = 1.0) -> pd.DataFrame:
    """One row a model: its group chosen for rare targets, or why there is none."""
    columns: dict[str, Callable[[Groups], Estimate]] = {
        "rare loss, nats": lambda one: effect(one, "rare", "rare", percent),
        "common loss, nats": lambda one: effect(one, "common", "rare", percent),
        "joint over single, rare": lambda one: synergy(one, "rare", "rare", percent),
        "rare over common": lambda one: selectivity(one, "rare", percent),
        "of the group for common": lambda one: selectivity(one, "common", percent),
    }
    rows = {}
    for name, one in models.items():
        if isinstance(one, str):
            rows[name] = [one, *[""] * (len(columns) - 1)]
        else:
            rows[name] = [shown(compute, one) for compute in columns.values()]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(columns))
    return table.rename_axis("model")


def shown(compute: Callable[..., Estimate], *of: Any) -> str:
    return interval_text(or_none(compute, *of))


def against_sum(one: Estimate | None) -> str:
    """How a joint effect compares with the sum of single ones, as its interval allows."""
    if one is None:
        return "cannot be compared with"
    if one.low > 1:
        return "is more than"
    return "is less than" if one.high < 1 else "cannot be told from"


MEANING = {
    "is more than": "each, while it is away alone, is partly made up for by the others",
    "is less than": "they overlap: what one takes away, another cannot take away again",
    "cannot be told from": "they add up as far as these documents can tell",
    "cannot be compared with": "one of the two does not raise the loss",
}
SAID = (
    *("answer", "most", "joint_most", "sets_1", "against_sum_1", "meaning_1"),
    *("selectivity_1", "selectivity_common_1", "more_selective_1"),
)


def against_sets(groups: Groups, percent: float = 1.0) -> str:
    """Whether the group chosen for rare targets does more to them than every random set."""
    of = (groups, "rare", "rare", percent)
    return (
        "more than any" if effect(*of).low > of_sets(*of)[1] else "not clearly more than every one"
    )


def more_selective(groups: Groups, percent: float = 1.0) -> str:
    """Which of the two groups favours rare targets more, as far as the intervals lie apart."""
    pair = [or_none(selectivity, groups, kind, percent) for kind in KINDS]
    if None in pair:
        return "cannot be compared with"
    own, other = pair
    if own.low > other.high:
        return "is higher than"
    return "is lower than" if own.high < other.low else "cannot be told from"


def answer(groups: Groups, percent: float) -> str:
    """What the group chosen for rare targets does to them, in words."""
    one = or_none(synergy, groups, "rare", "rare", percent)
    times = "" if one is None else f" ({interval_text(one)} times the sum)"
    return (
        f"Without the {groups.sizes[groups.at(percent)]} neurons (1 % of the last MLP) that matter "
        f"most to rare targets, the loss on these changes by "
        f"{interval_text(effect(groups, 'rare', 'rare', percent))} nats a token. That is "
        f"{against_sets(groups, percent)} of the {groups.n_sets} random sets of similar neurons "
        f"changes it, and {against_sum(one)} the sum of what each neuron does alone{times}."
    )


def said(groups: Groups | str, percent: float = 1.0) -> dict[str, str]:
    """What the page's sentences name; the reason in the first where there is no group."""
    if isinstance(groups, str):
        return dict.fromkeys(SAID, "not testable here") | {"answer": groups}
    most = float(groups.percent[-1])
    low, high = of_sets(groups, "rare", "rare", percent)
    words = against_sum(or_none(synergy, groups, "rare", "rare", percent))
    values = (
        answer(groups, percent),
        f"{most:g}",
        shown(effect, groups, "rare", "rare", most),
        f"{number(low)} to {number(high)}",
        words,
        MEANING[words],
        *(shown(selectivity, groups, kind, percent) for kind in KINDS),
        more_selective(groups, percent),
    )
    return dict(zip(SAID, values, strict=True))
