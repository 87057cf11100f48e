"""Uncertainty shared by every page: bootstrap over documents, halves, permutations, FDR.

Positions of one document share its topic and its words, so the document is the unit that is
resampled or split; labels are permuted inside a document.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control


@dataclass(frozen=True)
class Interval:
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True)
class DocumentSums:
    """All that a bootstrap of weighted means needs; rows are documents, some may be empty."""

    value: Float[np.ndarray, "document neuron"]  # sum of weight * value
    weight: Float[np.ndarray, " document"]  # sum of weight


def ratio_mean(
    values: Float[np.ndarray, "position neuron"], weight: Float[np.ndarray, " position"]
) -> Float[np.ndarray, " neuron"]:
    """Weighted mean over positions (the Hajek estimator for inverse inclusion probabilities).

    Raises `ValueError` when no weight is positive or one is negative.
    """
    if weight.size == 0 or weight.min() < 0 or weight.sum() <= 0:
        raise ValueError(f"a mean needs non-negative weights with a positive sum, got {weight}")
    return (weight @ values) / weight.sum()


def document_sums(
    values: Float[np.ndarray, "position neuron"],
    document: Int[np.ndarray, " position"],
    weight: Float[np.ndarray, " position"],
    n_documents: int | None = None,
) -> DocumentSums:
    """Sum positions into documents 0 .. n_documents-1, once, before any resampling.

    Give two classes the same `n_documents` to resample them together.
    """
    n_documents = int(document.max()) + 1 if n_documents is None else n_documents
    order = np.argsort(document, kind="stable")
    present, start = np.unique(document[order], return_index=True)
    sums = np.zeros((n_documents, values.shape[1]))
    sums[present] = np.add.reduceat(weight[order, None] * values[order], start, axis=0)
    return DocumentSums(sums, np.bincount(document, weight, minlength=n_documents))


def resample_documents(
    n_documents: int, n_boot: int, *, rng: np.random.Generator
) -> Float[np.ndarray, "boot document"]:
    """How often each document is drawn in each bootstrap sample (multinomial counts).

    One table of counts used for two classes keeps their difference paired.
    Raises `ValueError` for fewer than two documents: they would show no variation.
    """
    if n_documents < 2:
        raise ValueError(f"a bootstrap over documents needs at least 2, got {n_documents}")
    return rng.multinomial(n_documents, np.full(n_documents, 1 / n_documents), n_boot).astype(float)


def bootstrap_means(
    sums: DocumentSums, counts: Float[np.ndarray, "boot document"]
) -> Float[np.ndarray, "boot neuron"]:
    """Weighted mean of each neuron in each bootstrap sample (a ratio: its total weight varies).

    A sample that draws no document of a small class has no mean; its row is NaN, and
    `percentile_interval` leaves it out.
    """
    total = counts @ sums.weight
    return (counts @ sums.value) / np.where(total > 0, total, np.nan)[:, None]


def percentile_interval(
    draws: Float[np.ndarray, "draw *shape"], level: float = 0.95
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Lower and upper percentile of the draws that are finite in all entries."""
    finite = draws[np.isfinite(draws).reshape(draws.shape[0], -1).all(axis=1)]
    if finite.shape[0] == 0:
        raise ValueError("none of the bootstrap samples has a finite value")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.asarray(low), np.asarray(high)


def interval(draws: Float[np.ndarray, " draw"], level: float = 0.95) -> Interval:
    """Percentile interval of one number."""
    low, high = percentile_interval(draws, level)
    return Interval(float(low), float(high), level)


def document_halves(
    document: Int[np.ndarray, " position"], *, rng: np.random.Generator
) -> Bool[np.ndarray, " position"]:
    """True where a position's document falls in the first of two halves.

    Documents are paired by their number of positions and a coin parts each pair, so the halves
    differ by at most one document and hardly in size. Raises `ValueError` for one document.
    """
    present, index, size = np.unique(document, return_inverse=True, return_counts=True)
    if present.size < 2:
        raise ValueError(f"halves need at least 2 documents, got {present.size}")
    # The shuffle decides between documents of one size; the sort is stable.
    shuffled = rng.permutation(present.size)
    by_size = shuffled[np.argsort(-size[shuffled], kind="stable")]
    coin = rng.random((present.size + 1) // 2) < 0.5
    first = np.empty(present.size, dtype=bool)
    first[by_size] = np.column_stack([coin, ~coin]).reshape(-1)[: present.size]
    return first[index]


def permute_within(
    document: Int[np.ndarray, " position"], *, rng: np.random.Generator
) -> Int[np.ndarray, " position"]:
    """A random order of the positions in which each stays in its document."""
    order = np.argsort(document, kind="stable")
    # A document's number and a random fraction: one sort, within documents at random.
    shuffled = np.argsort(document + rng.random(document.size), kind="stable")
    permutation = np.empty_like(order)
    permutation[order] = shuffled
    return permutation


def monte_carlo_p(
    observed: float | Float[np.ndarray, " test"], null: Float[np.ndarray, " draw"]
) -> float | Float[np.ndarray, " test"]:
    """Share of null draws at least as large as observed, or equal; the floor is 1 / (draws + 1)."""
    hits = null.size - np.searchsorted(np.sort(null), observed - tie(null, observed), side="left")
    p = (1 + hits) / (1 + null.size)
    return p if isinstance(observed, np.ndarray) else float(p)


def tie(*numbers: float | Float[np.ndarray, "..."]) -> float:
    """What two numbers may differ by and count as equal: what rounding can part."""
    return TIE * max(float(np.abs(one).max(initial=0)) for one in map(np.asarray, numbers))


def benjamini_hochberg(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Adjusted p-values that control the false discovery rate (Benjamini and Hochberg, 1995)."""
    return false_discovery_control(p, method="bh")


Side = Literal["greater", "less", "two-sided"]
ALPHA = 0.05  # a test below this level counts as seen
TIE = 1e-9  # of the largest number: processors differ by less
POWER = 0.8  # an absence counts only if the design would have seen the effect this often


@dataclass(frozen=True)
class NullTest:
    """A statistic referred to draws of it where there is no effect."""

    value: float
    null: Float[np.ndarray, " draw"]
    side: Side
    p: float  # its floor is 1 / (draws + 1)
    z: float  # (value - mean) / sd of the draws
    smallest: float  # effect, in units of the statistic, that 80 % of runs would have seen

    def power(self, effect: float) -> float:
        """Chance of p < 0.05 if the effect, a shift of the statistic, were there.

        Assumes that the statistic scatters around the effect as it does around none.
        """
        return power_of_shift(self.null, abs(effect), self.side)


def null_test(value: float, null: Float[np.ndarray, " draw"], side: Side) -> NullTest:
    """Refer a statistic to its null; draws that are not finite are left out.

    Raises `ValueError` ("not testable") where the value or every draw is not finite, and where the
    draws are all the same: a null without scatter would grant every power.
    """
    null = null[np.isfinite(null)]
    if null.size == 0 or not np.isfinite(value):
        raise ValueError("not testable: the statistic or its null has no finite value")
    sd = float(null.std())
    if sd <= 1e-12 * float(np.abs(null).max()):  # what rounding leaves of equal values
        raise ValueError(f"not testable: all draws of the null are the same, {null[0]:.3g}")
    above = float(monte_carlo_p(value, null))
    below = float(monte_carlo_p(-value, -null))
    p = {"greater": above, "less": below, "two-sided": min(1.0, 2 * min(above, below))}[side]
    z = (value - float(null.mean())) / sd
    return NullTest(value, null, side, p, z, smallest_effect(null, side))


def critical_value(null: Float[np.ndarray, " draw"], tail: float) -> float:
    """What a statistic must exceed to have a Monte-Carlo p below `tail`.

    Infinite where the draws are too few for any value to have one (19 for a tail of 0.05).
    """
    p = (1 + np.arange(null.size)) / (1 + null.size)  # by how many draws reach the statistic
    allowed = int(np.count_nonzero(p < tail))
    return float(np.sort(null)[-allowed]) if allowed else np.inf


def smallest_effect(null: Float[np.ndarray, " draw"], side: Side) -> float:
    """Shift of the null that is seen, at the 5 % level, in 80 % of draws.

    Two-sided: in the direction where it takes more. Infinite where the draws are too few.
    """
    missed = null.size - math.ceil(POWER * null.size)  # draws that a shift may leave unseen
    shifts = [
        critical_value(draws, tail) - np.sort(draws)[max(missed - 1, 0)]
        for draws, tail in directions(null, side)
    ]
    return float(max(shifts))


def power_of_shift(null: Float[np.ndarray, " draw"], shift: float, side: Side) -> float:
    """Share of draws that the test sees once moved by `shift`, 0 or more, to the test's side.

    Two-sided: in the direction where fewer are seen.
    """
    return min(
        float((draws + shift > critical_value(draws, tail) + tie(draws, draws + shift)).mean())
        for draws, tail in directions(null, side)
    )


def directions(
    null: Float[np.ndarray, " draw"], side: Side
) -> list[tuple[Float[np.ndarray, " draw"], float]]:
    """The draws, turned so that an effect raises them, and the level, for each side tested."""
    both = [(null, ALPHA / 2), (-null, ALPHA / 2)]
    return {"greater": [(null, ALPHA)], "less": [(-null, ALPHA)], "two-sided": both}[side]
