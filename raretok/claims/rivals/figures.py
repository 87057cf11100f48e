"""Figures and tables of the page `rivals`."""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from raretok.claims.rivals.estimate import RIVALS, Compared, compared, normal_scores
from raretok.claims.study import BOTH, CORRECTED, Study
from raretok.claims.style import COLOURS, PALETTE
from raretok.errors import NotTestableError, UserError
from raretok.stats.jackknife import Estimate

Models = dict[str, Compared | str]  # by name; the reason where a model cannot be had
BAR = 0.16
COLOUR = dict(zip(RIVALS, (PALETTE[2], PALETTE[4], PALETTE[1], PALETTE[9]), strict=True))
KIND = {
    "rare": (COLOURS["rare"], "o", "rare"),
    "as surprising": (PALETTE[9], "s", "frequent, as surprising"),
    "common": (COLOURS["common"], "^", "common"),
}
RELATIVE = ("all four, % of the ceiling", "of_ceiling")
OFTEN = 0.5  # of the splits: such neurons are marked as the group


def over_models(study: Study, names: dict[str, str]) -> Models:
    """The page's own model first, then those beside it, by the names that are shown."""
    studies = {study.measurements.label: study, **study.beside()}
    return {names.get(label, label): of_model(one) for label, one in studies.items()}


def of_model(study: Study) -> Compared | str:
    """The rivals in one model, or why they cannot be compared there."""
    try:
        loss = study.part(BOTH[0]).loss.values
        unembedding = study.part("unembedding")
        return compared(study.sample(CORRECTED), loss, unembedding, study.interventions())
    except UserError as error:
        return str(error)


def own(found: Models) -> Compared:
    """The page's own model. Raises `NotTestableError` with the reason where it cannot be had."""
    name = next(iter(found))
    return columns({name: found[name]})[0][1]


def columns(found: Models) -> list[tuple[int, Compared]]:
    """The models that were compared, each with its place among all.

    Raises `NotTestableError` where there is none.
    """
    some = [(i, one) for i, one in enumerate(found.values()) if not isinstance(one, str)]
    if not some:
        raise NotTestableError(next(iter(found.values())))
    return some


def by_model(ax: Axes, found: Models) -> None:
    """One column a model, those that were not compared too; a line at nothing."""
    ax.axhline(0, color="0.3", lw=0.8)
    for i, one in enumerate(found.values()):
        if isinstance(one, str):
            ax.text(i, 0, "gap\n", ha="center", va="bottom", color="0.3")
    ax.set_xticks(range(len(found)), found)
    ax.set_xlim(-0.6, len(found) - 0.4)


def whisker(ax: Axes, x: float, one: Estimate, scale: float, **more) -> None:
    """A 95 % interval."""
    ax.plot([x, x], [scale * one.low, scale * one.high], lw=1.2, **more)


def shares(ax: Axes, found: Models) -> None:
    """What each rival explains in each model, % of the variance, under its ceiling."""
    some = columns(found)
    for i, one in some:
        named = i == some[0][0]
        bars = {**one.explained.by["part"], "not explained by any": one.explained.unexplained}
        for j, (name, part) in enumerate(bars.items()):
            x = i + BAR * (j - len(RIVALS) / 2)
            label = name if named else None
            colour = COLOUR.get(name, COLOURS["controls"])
            ax.bar(x, 100 * part.value, 0.9 * BAR, color=colour, label=label)
            whisker(ax, x, part, 100.0, color="0.25")
        ends = np.array([i - 2.6 * BAR, i + 2.6 * BAR])
        label = "ceiling: influence on other documents" if named else None
        ax.plot(ends, np.full(2, 100 * one.explained.ceiling.value), "k--", lw=1.2, label=label)
    by_model(ax, found)
    ax.set(ylabel="% of the variance of\ninfluence on rare targets")


def scatter(ax: Axes, found: Models) -> None:
    """Neurons of the page's own model: token frequency score against entropy score."""
    one = own(found)
    frequency, entropy = normal_scores(one.weights)[:2]
    group = one.often >= OFTEN
    ax.plot(frequency[~group], entropy[~group], ".", ms=3, color="0.6", label="other neurons")
    ax.plot(frequency[group], entropy[group], "o", ms=6, color=COLOURS["rare"], label="group")
    for line in (ax.axhline, ax.axvline):
        line(0, color="0.6", lw=0.8, zorder=0)
    ax.set(xlabel="token frequency score (sd)", ylabel="entropy score (sd)", aspect="equal")


def contrast(ax: Axes, found: Models) -> None:
    """Influence of the group on rare targets, on others as surprising, and on common ones."""
    some = columns(found)
    for i, one in some:
        named = i == some[0][0]
        for j, (kind, estimate) in enumerate(one.group.influence.items()):
            colour, mark, label = KIND[kind]
            x = i + 0.18 * (j - 1)
            ax.plot(x, 1000 * estimate.value, mark, color=colour, label=label if named else None)
            whisker(ax, x, estimate, 1000.0, color=colour)
    by_model(ax, found)
    ax.set(ylabel="influence of the group\n(thousandths of a nat)")


def shown(one: Estimate | None, scale: float = 1.0) -> str:
    """A number with its interval, to two digits."""
    if one is None:
        return "gap"
    value, low, high = (number(scale * end) for end in (one.value, one.low, one.high))
    return f"{value} ({low} to {high})"


def number(value: float) -> str:
    """To two digits from 0.1 on, smaller ones to two places; no exponent."""
    places = 2 - (abs(value) >= 0.995) - (abs(value) >= 9.95)
    text = f"{value:.{places}f}"
    return text.lstrip("-") if float(text) == 0 else text


percent = partial(shown, scale=100.0)


def rivals_table(found: Models) -> pd.DataFrame:
    """What each rival explains in each model, % of the variance, and what the group scores."""
    rows = {}
    for model, one in found.items():
        if isinstance(one, str):
            rows[model, ""] = {"part": f"gap: {one}"}
            continue
        of, size = one.explained, one.size
        for name in RIVALS:
            rows[model, name] = {
                **{column: percent(of.by[column][name]) for column in ("part", "alone", "last")},
                "part of the size": percent(size.by["part"][name]),
                "correlation": shown(of.by["correlation"][name]),
                "group's score, sd": shown(one.group.scores[name]),
            }
        for name, end in (("all four", "all"), ("ceiling", "ceiling"), RELATIVE):
            both = (percent(getattr(which, end)) for which in (of, size))
            rows[model, name] = dict(zip(("part", "part of the size"), both, strict=True))
    index = pd.MultiIndex.from_tuples(rows, names=["model", "rival"])
    return pd.DataFrame(list(rows.values()), index=index).fillna("")


def group_table(found: Models) -> pd.DataFrame:
    """The group at equal surprisal and through the norm's scale, one row a model."""
    rows = {}
    for model, one in found.items():
        if isinstance(one, str):
            rows[model] = {"rare / as surprising": f"gap: {one}"}
            continue
        group, both = one.group, one.matched
        rows[model] = {
            "rare / as surprising": shown(group.ratio),
            "left at equal surprisal, %": percent(group.left),
            "rare / as surprising, chosen on the latter": shown(group.reverse),
            "through the norm's scale, %": percent(group.through_scale),
            "rare targets matched, %": number(100 * both.kept),
            "surprisal of either, nats": " and ".join(map(number, both.surprisal)),
        }
    return pd.DataFrame.from_dict(rows, orient="index").fillna("").rename_axis("model")


def said(found: Models) -> dict[str, str]:
    """What the page's sentences name; the reason in each where there is nothing to name."""
    try:
        one = own(found)
    except NotTestableError as error:
        why = f"not testable here: {error}"
        return dict.fromkeys(("answer", "group", "rarity", "scale", "noiseless", "matched"), why)
    of, scale = one.explained, one.group.through_scale
    best = max(RIVALS, key=lambda name: of.by["part"][name].value)
    scores = one.group.scores
    first = max(RIVALS, key=lambda name: scores[name].value)
    return {
        "answer": f"{best} explains most, {percent(of.by['part'][best])} % of the variance of the "
        f"neurons' influence on rare targets. All four together explain {percent(of.all)} %, where "
        f"the same neurons' influence on other documents explains {percent(of.ceiling)} %",
        "group": f"{first} (mean score {shown(scores[first])} sd over the layer)",
        "rarity": rarity(one.group.left),
        "scale": "a share not measured here" if scale is None else f"{percent(scale)} %",
        "noiseless": number(100 * np.sqrt(of.ceiling.value)),
        "matched": number(100 * one.matched.kept),
    }


def rarity(left: Estimate | None) -> str:
    """Whether rarity matters to the group where surprisal is equal, in words."""
    if left is None:
        return "The group has no influence on rare targets that could be compared."
    verdict = "The documents leave open whether rarity remains at equal surprisal"
    if left.high < 1:
        verdict = "Rarity remains at equal surprisal"
    elif left.low > 1:
        verdict = "Rarity does not remain at equal surprisal"
    return (
        f"{verdict}: on frequent targets that are as surprising as the rare ones the group has "
        f"{percent(left)} % of the influence that it has on these."
    )
