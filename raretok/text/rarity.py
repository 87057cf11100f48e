"""Which token types are rare, and which positions are scored."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from raretok.errors import NotTestableError, UserError
from raretok.text.corpus import Contexts
from raretok.text.protocol import Rule

# The released code scores from the fourth token on; earlier ones have next to no context.
FIRST_POS = 3
ELBOW_WINDOW = 2_000  # ranks, for the vocabularies of GPT-2 and Pythia
STRATA = ("middle", "rare", "common")
MIDDLE, RARE, COMMON = range(3)
KINDS = {"rare": RARE, "common": COMMON}  # of targets that are compared


def unigram(counts: Int[np.ndarray, " entry"], d_vocab: int) -> Float[np.ndarray, " d_vocab"]:
    """Probability of each type, add-one smoothed; rows of W_U without a token count 0.

    Raises `UserError` when there are more counts than types. (reference implementation)
    """
    if counts.size > d_vocab:
        raise UserError(
            f"{counts.size} unigram counts do not fit a vocabulary of {d_vocab}: "
            "they belong to another tokenizer"
        )
    padded = np.zeros(d_vocab)
    padded[: counts.size] = counts
    return (padded + 1) / (padded + 1).sum()


def elbow(u: Float[np.ndarray, " d_vocab"]) -> float:
    """Probability at the elbow of the rank-frequency curve, below which types are hardly used.

    Slope of log u on log rank in a sliding window over the rarer half; the elbow is where it
    changes most, if that is more than 3 standard deviations above the mean change (released code).
    A vocabulary under 50,000 types gets a proportionally narrower window. 0, which leaves out no
    type, where there is no such place or there are fewer than 75 types.
    """
    n = u.size
    window = min(ELBOW_WINDOW, n // 25)
    if window < 3:
        return 0.0
    descending = np.sort(u)[::-1]
    slopes = window_slopes(np.log(np.arange(1, n + 1)), np.log(descending), window)
    start = max(n // 2, 2 * window)
    change = np.abs(np.diff(slopes[start : n - window]))
    if change.max() <= change.mean() + 3 * change.std():
        return 0.0
    return float(descending[start + int(change.argmax()) + 1])


def window_slopes(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], window: int
) -> Float[np.ndarray, " start"]:
    """Least-squares slope of y on x in each window of consecutive points, by running sums."""
    x, y = x - x.mean(), y - y.mean()  # keeps the running sums small, hence exact

    def windowed(values):
        total = np.concatenate([[0.0], np.cumsum(values)])
        return total[window:] - total[:-window]

    sx, sy = windowed(x), windowed(y)
    return (windowed(x * y) - sx * sy / window) / (windowed(x * x) - sx * sx / window)


@dataclass(frozen=True)
class TypeClasses:
    """Rare and common token types."""

    rare: Bool[np.ndarray, " d_vocab"]
    common: Bool[np.ndarray, " d_vocab"]

    def stratum(self, types: Int[np.ndarray, " position"]) -> Int[np.ndarray, " position"]:
        """Index into STRATA of each type."""
        return np.where(self.rare[types], RARE, np.where(self.common[types], COMMON, MIDDLE))


def type_classes(
    u: Float[np.ndarray, " d_vocab"],
    rule: Rule,
    *,
    percentile: float = 15.0,
    counted: Bool[np.ndarray, " d_vocab"],
) -> TypeClasses:
    """Rare and common types under one rule, among those that are `counted`; others are in neither.

    - `percentile`: the rarest `percentile` % of types against the most frequent `percentile` %.
    - `percentile above elbow`: the same rare types without those at or below the elbow (the paper's
      words), against every more frequent type.
    - `released`: types above the elbow and outside the most frequent `percentile` %, against those
      (reference code: its percentile counts from the frequent end).
    """
    if not 0 < percentile <= 50:
        raise UserError(f"the percentile must lie between 0 and 50, got {percentile:g}")
    descending = np.sort(u[counted])[::-1]
    top = float(descending[int(descending.size * percentile / 100)])
    bottom = float(descending[int(descending.size * (1 - percentile / 100))])
    if rule == "percentile":
        rare, common = u <= bottom, u >= top
    elif rule == "percentile above elbow":
        rare, common = (u > elbow(descending)) & (u <= bottom), u > bottom
    else:
        rare, common = (u >= elbow(descending)) & (u <= top), u > top
    rare, common = rare & counted, common & counted
    if not rare.any() or not common.any():
        raise NotTestableError(
            f"no {'common' if rare.any() else 'rare'} token type is left at {percentile:g} % "
            f"under the rule '{rule}': choose another percentile"
        )
    return TypeClasses(rare, common)


def classes_of(
    counts: Int[np.ndarray, " entry"],
    counted: Bool[np.ndarray, " d_vocab"],
    rule: Rule,
    percentile: float,
) -> TypeClasses:
    """Rare and common types from token counts."""
    return type_classes(unigram(counts, counted.size), rule, percentile=percentile, counted=counted)


@dataclass(frozen=True)
class Positions:
    """Scored positions, sorted by context and pos; one entry each."""

    context: Int[np.ndarray, " position"]
    pos: Int[np.ndarray, " position"]  # of the input token
    input: Int[np.ndarray, " position"]
    target: Int[np.ndarray, " position"]
    document: Int[np.ndarray, " position"]
    stratum: Int[np.ndarray, " position"]  # index into STRATA
    weight: Float[np.ndarray, " position"]  # positions of its stratum that it stands for

    @classmethod
    def of(cls, data: Any) -> "Positions":
        """From the labels of a dataset."""
        return cls(**{f.name: data[f.name].values for f in fields(cls)})

    def __len__(self) -> int:
        return len(self.pos)

    def __getitem__(self, chosen) -> "Positions":
        return Positions(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})


def all_positions(contexts: Contexts, classes: TypeClasses, by: str) -> Positions:
    """Every position that has a target and enough context, with its stratum; weights 1."""
    context, pos = np.nonzero(
        (np.arange(contexts.tokens.shape[1] - 1) >= FIRST_POS)
        & (np.arange(1, contexts.tokens.shape[1]) < contexts.length[:, None])
    )
    inputs, targets = contexts.tokens[context, pos], contexts.tokens[context, pos + 1]
    key = targets if by == "target" else inputs
    return Positions(
        context=context,
        pos=pos,
        input=inputs,
        target=targets,
        document=contexts.document[context],
        stratum=classes.stratum(key),
        weight=np.ones(len(pos)),
    )


def draw_stratified(
    everything: Positions, *, n_per_class: int, n_middle: int, rng: np.random.Generator
) -> Positions:
    """Equal numbers of rare and common positions and some of the rest, from random contexts.

    Contexts are taken in random order until they hold `n_per_class` rare positions (or to the end);
    the other strata are drawn from the same contexts, so that few forward passes are needed.
    Weights count the positions of the whole corpus that each one stands for.
    Raises `UserError` when a class has no position.
    """
    turn = _turns(everything, rng)
    rare_turns = np.sort(turn[everything.stratum == RARE])
    if not rare_turns.size:
        raise NotTestableError("no position with a rare token is left: raise the percentile")
    last = rare_turns[min(n_per_class, rare_turns.size) - 1]
    wanted = {RARE: n_per_class, COMMON: n_per_class, MIDDLE: n_middle}
    drawn = _drawn(everything, turn <= last, wanted, rng)
    if not (drawn.stratum == COMMON).any():
        raise NotTestableError("no position with a common token is left: raise the percentile")
    return drawn


def draw_total(everything: Positions, *, n: int, rng: np.random.Generator) -> Positions:
    """`n` positions: four ninths rare, four ninths common, the rest middle, as far as they go.

    What one stratum lacks the others give. Contexts are taken in random order until they hold
    enough of every stratum. Weights count the positions of the corpus that each one stands for.
    Raises `UserError` when there are fewer than `n`.
    """
    if not 1 <= n <= len(everything):
        raise UserError(f"{n} positions were asked for; this corpus has 1 to {len(everything)}")
    wanted = _quota(np.bincount(everything.stratum, minlength=len(STRATA)), n)
    turn = _turns(everything, rng)
    last = max(np.sort(turn[everything.stratum == s])[k - 1] for s, k in enumerate(wanted) if k)
    return _drawn(everything, turn <= last, dict(enumerate(wanted)), rng)


def _turns(everything: Positions, rng: np.random.Generator) -> Int[np.ndarray, " position"]:
    """When the context of each position comes, contexts in random order."""
    contexts = rng.permutation(np.unique(everything.context))
    turn = np.empty(everything.context.max() + 1, dtype=np.int64)
    turn[contexts] = np.arange(contexts.size)
    return turn[everything.context]


def _drawn(
    everything: Positions, pool: np.ndarray, wanted: dict[int, int], rng: np.random.Generator
) -> Positions:
    """Random positions of a pool, so many of each stratum."""
    chosen = [
        rng.permutation(np.flatnonzero(pool & (everything.stratum == stratum)))[:n]
        for stratum, n in wanted.items()
    ]
    return _weighted(everything[np.sort(np.concatenate(chosen))], everything)


def _quota(available: Int[np.ndarray, " stratum"], n: int) -> list[int]:
    """How many of each stratum make `n`."""
    wanted = np.minimum(available, [n - 2 * (4 * n // 9), 4 * n // 9, 4 * n // 9])
    for stratum in (COMMON, MIDDLE, RARE):
        wanted[stratum] += min(n - wanted.sum(), available[stratum] - wanted[stratum])
    return wanted.tolist()


def draw_contexts(everything: Positions, *, n_contexts: int, rng: np.random.Generator) -> Positions:
    """Every position of a few random contexts (released code: 10)."""
    contexts = rng.permutation(np.unique(everything.context))[:n_contexts]
    drawn = everything[np.isin(everything.context, contexts)]
    for stratum in (RARE, COMMON):
        if not (drawn.stratum == stratum).any():
            raise NotTestableError(
                f"no {STRATA[stratum]} position in the {n_contexts} contexts drawn: "
                "raise the percentile or use the protocol 'corrected'"
            )
    return _weighted(drawn, everything)


def _weighted(drawn: Positions, everything: Positions) -> Positions:
    sizes = np.bincount(everything.stratum, minlength=len(STRATA))
    scored = np.bincount(drawn.stratum, minlength=len(STRATA))
    return replace(drawn, weight=sizes[drawn.stratum] / scored[drawn.stratum])
