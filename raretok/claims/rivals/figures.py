"""Figures, tables and sentences of the page `rivals`."""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from raretok.claims.rivals.estimate import RIVALS, Compared, compared
from raretok.claims.study import BOTH, CORRECTED, Study
from raretok.claims.style import COLOURS, PALETTE, interval_text, number, points, there
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
SAID = ("answer", "group", "rarity", "scale", "noiseless", "matched")
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


def rivals_table(found: Models) -> pd.DataFrame:
    """What each rival explains in each model, % of the variance, and what the group scores."""
    rows = {}
    for model, one in found.items():
        if isinstance(one, str):
            rows[model, ""] = {"part": one}
            continue
        of, scores = one.explained, one.scores
        for name in RIVALS:
            rows[model, name] = {column: percent(each[name]) for column, each in of.by.items()}
            rows[model, name]["group's score, sd"] = interval_text(scores[name])
        rows[model, "all four"] = {"part": percent(of.all)}
        rows[model, "ceiling"] = {"part": percent(of.ceiling)}
    index = pd.MultiIndex.from_tuples(rows, names=["model", "rival"])
    return pd.DataFrame(list(rows.values()), index=index).fillna("")


def group_table(found: Models) -> pd.DataFrame:
    """The group at equal surprisal and through the norm's scale, one row a model."""
    rows: dict[str, dict[str, str]] = {}
    for name, one in found.items():
        if isinstance(one, str):
            rows[name] = {"rare / as surprising": one}
            continue
        rows[name] = {
            "rare / as surprising": interval_text(one.ratio),
            "left at equal surprisal, %": percent(one.left),
            "rare / as surprising, chosen on the latter": interval_text(one.reverse),
            "through the norm's scale, %": percent(one.through_scale),
            "rare targets matched, %": number(100 * one.matched),
        }
    return pd.DataFrame.from_dict(rows, orient="index").fillna("").rename_axis("model")


def said(one: Compared | str) -> dict[str, str]:
    """What the page's sentences name; the reason in the first where there is nothing."""
    if isinstance(one, str):
        return dict.fromkeys(SAID, "not testable here") | {"answer": one}
    of, scores, scale = one.explained, one.scores, one.through_scale
    best = max(RIVALS, key=lambda name: of.by["part"][name].value)
    first = max(RIVALS, key=lambda name: scores[name].value)
    answer = (
        f"{best} explains most, {percent(of.by['part'][best])} % of the variance of the neurons' "
        f"influence on rare targets. All four together explain {percent(of.all)} %, where the same "
        f"neurons' influence on other documents explains {percent(of.ceiling)} %"
    )
    group = f"{first} (mean score {interval_text(scores[first])} sd over the layer)"
    through = "a share not measured here" if scale is None else f"{percent(scale)} %"
    numbers = (number(100 * value) for value in (np.sqrt(of.ceiling.value), one.matched))
    return dict(zip(SAID, (answer, group, rarity(one.left), through, *numbers), strict=True))


def rarity(left: Estimate | None) -> str:
    """Whether rarity matters to the group where surprisal is equal, in words."""
    if left is None:
        return "The group has no influence on rare targets that could be compared."
    verdict = "The documents leave open whether rarity remains at equal surprisal"
    if left.high < 1:
        verdict = "Rarity matters even at equal surprisal"
    elif left.low > 1:
        verdict = "At equal surprisal rarity adds nothing"
    return (
        f"{verdict}: on frequent targets that are as surprising as the rare ones the group has "
        f"{percent(left)} % of the influence that it has on these."
    )
