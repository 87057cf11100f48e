"""Figures and tables of the page `rivals`."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from raretok.claims.rivals.estimate import RIVALS, Compared, compared
from raretok.claims.study import BOTH, CORRECTED, Study
from raretok.claims.style import COLOURS, PALETTE, interval_text, number, points, table, there
from raretok.stats.jackknife import Estimate

Models = dict[str, Compared | str]  # by name; the reason where a model cannot be had
BAR = 0.18
CEILING = "ceiling: influence on other documents"
COLOUR = dict(zip(RIVALS, (PALETTE[2], PALETTE[4], PALETTE[1], PALETTE[9]), strict=True))
KIND = {
    "rare": (COLOURS["rare"], "o", "rare"),
    "as surprising": (PALETTE[9], "s", "frequent, as surprising"),
    "common": (COLOURS["common"], "^", "common"),
}
percent = partial(interval_text, scale=100.0)


def read(study: Study) -> Compared:
    """The rivals in one model. Raises `NotTestableError` where they cannot be compared there."""
    loss, unembedding = study.part(BOTH[0]).loss.values, study.part("unembedding")
    return compared(study.sample(CORRECTED), loss, unembedding, study.interventions())


def by_model(ax: Axes, found: Models) -> list[tuple[int, Compared]]:
    """One column a model, those that were not compared too; the others with their places.

    Raises `NotTestableError` where there is none.
    """
    some = [(i, one) for i, one in enumerate(found.values()) if not isinstance(one, str)]
    if not some:
        there(next(iter(found.values())))
    ax.axhline(0, color="0.3", lw=0.8)
    names = [f"{name}\n(gap)" if isinstance(one, str) else name for name, one in found.items()]
    ax.set_xticks(range(len(found)), names)
    ax.set_xlim(-0.6, len(found) - 0.4)
    return some


def shares(ax: Axes, found: Models) -> None:
    """What each rival explains in each model, as a share of the variance, and the ceiling."""
    some = by_model(ax, found)
    at = np.array([i for i, _ in some])
    for j, name in enumerate(RIVALS):
        x = at + BAR * (j - (len(RIVALS) - 1) / 2)
        parts = [one.explained.by["part"][name] for _, one in some]
        ax.bar(x, [one.value for one in parts], 0.9 * BAR, color=COLOUR[name], label=name)
        points(ax, x, parts, marker="", color="0.25")
    ceiling = [one.explained.ceiling.value for _, one in some]
    ax.hlines(ceiling, at - 2.2 * BAR, at + 2.2 * BAR, "black", "--", lw=1.2, label=CEILING)
    ax.yaxis.set_major_formatter("{x:.0%}")
    ax.set(ylabel="share of the variance of\ninfluence on rare targets")


def contrast(ax: Axes, found: Models) -> None:
    """Influence of the group on rare targets, on others as surprising, and on common ones."""
    some = by_model(ax, found)
    for j, (kind, (colour, mark, label)) in enumerate(KIND.items()):
        x = [i + 0.18 * (j - 1) for i, _ in some]
        each = [one.influence[kind] for _, one in some]
        points(ax, x, each, marker=mark, ms=7, color=colour, label=label)
    ax.set(ylabel="influence of the group\n(nats a token)")


def largest(of: dict[str, Estimate]) -> str:
    """Which rival has the largest number; several where their intervals overlap with its own."""
    most = max(of.values(), key=lambda one: one.value)
    return " or ".join(name for name, one in of.items() if one.high >= most.low)


def rivals_table(found: Models) -> pd.DataFrame:
    """What each rival explains in each model, % of the variance, and what the group scores."""
    rows: dict[tuple[str, str], Any] = {}
    for model, one in found.items():
        if isinstance(one, str):
            rows[model, ""] = one
            continue
        for name in RIVALS:
            shares = {column: percent(each[name]) for column, each in one.explained.by.items()}
            rows[model, name] = shares | {"group's score, sd": one.scores[name]}
        rows[model, "all four"] = {"part": percent(one.explained.all)}
        rows[model, "ceiling"] = {"part": percent(one.explained.ceiling)}
    return table(rows, ["model", "rival"])


def of_group(one: Compared) -> dict[str, Estimate | str | None]:
    """Row of a model: its group at equal surprisal and through the norm's scale."""
    through = one.through_scale
    return {
        "rare / as surprising": one.ratio,
        "left at equal surprisal, %": percent(one.left),
        "rare / as surprising, chosen on the latter": one.reverse,
        "through the norm's scale, %": through if isinstance(through, str) else percent(through),
        "rare targets matched, %": number(100 * one.matched),
    }
