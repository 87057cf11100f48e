"""Influence of every neuron on a class of targets, and its rank curve.

The tests of the curve's shape are in plateau.py (the head) and pieces.py (three regimes), rare
against common in contrast.py, what the paper's released code does in released.py.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from raretok.stats.documents import (
    DocumentSums,
    bootstrap_means,
    document_halves,
    percentile_interval,
    ratio_mean,
)

N_SPLITS = 6  # random halves a cross-fitted curve is averaged over


def influence(
    delta_loss: Float[np.ndarray, "position neuron"],
    weight: Float[np.ndarray, " position"],
    *,
    signed: bool,
) -> Float[np.ndarray, " neuron"]:
    """Weighted mean over positions of delta_loss, or of its size, in nats.

    The mean size is bounded below by noise and favours neurons that vary (Jensen).
    """
    return ratio_mean(delta_loss if signed else np.abs(delta_loss), weight)


@dataclass(frozen=True)
class CurveBand:
    """A rank curve ready to be drawn, with 95 % intervals over documents (nats)."""

    rank: Float[np.ndarray, " point"]
    value: Float[np.ndarray, " point"]
    low: Float[np.ndarray, " point"]
    high: Float[np.ndarray, " point"]


def sorted_band(sums: DocumentSums, counts: Float[np.ndarray, "boot document"]) -> CurveBand:
    """Sorted values with each neuron's own interval; ranks and values share their noise."""
    values = bootstrap_means(sums, np.ones((1, sums.weight.size)))[0]
    order = np.argsort(-values, kind="stable")
    low, high = percentile_interval(bootstrap_means(sums, counts)[:, order])
    return CurveBand(np.arange(1.0, values.size + 1), values[order], low, high)


def cross_fitted_band(
    sums: DocumentSums,
    counts: Float[np.ndarray, "boot document"],
    document: Int[np.ndarray, " position"],
    *,
    rng: np.random.Generator,
) -> CurveBand:
    """Cross-fitted curve in log-spaced bins of ranks, refitted in each bootstrap sample."""
    halves = np.zeros((N_SPLITS, sums.weight.size), dtype=bool)
    for half in halves:
        half[document] = document_halves(document, rng=rng)
    curve = cross_fitted_values(sums, halves, np.ones((1, sums.weight.size)))
    rank, value = bin_means(curve)
    low, high = percentile_interval(bin_means(cross_fitted_values(sums, halves, counts))[1])
    return CurveBand(rank, value[0], low, high)


def cross_fitted_values(
    sums: DocumentSums,
    halves: Bool[np.ndarray, "split document"],
    counts: Float[np.ndarray, "boot document"],
) -> Float[np.ndarray, "boot neuron"]:
    """Ranked on one half of the documents, read on the other, swapped; mean over splits.

    Free of the selection that lifts a sorted curve's head; not sorted, and in part negative.
    """
    curve = np.zeros((counts.shape[0], sums.value.shape[1]))
    for half in halves:
        means = [bootstrap_means(sums, counts * part) for part in (half, ~half)]
        for ranked, read in (means, means[::-1]):
            order = np.argsort(-ranked, axis=1, kind="stable")
            curve += np.take_along_axis(read, order, axis=1) / (2 * len(halves))
    return curve


def bin_means(
    values: Float[np.ndarray, "draw neuron"], *, per_decade: int = 8
) -> tuple[Float[np.ndarray, " bin"], Float[np.ndarray, "draw bin"]]:
    """Mean rank and mean value of each draw in log-spaced bins of ranks."""
    n = values.shape[1]
    edges = np.round(np.geomspace(1, n + 1, round(per_decade * np.log10(n + 1)) + 1))
    edges = np.unique(edges).astype(int) - 1
    count = np.diff(edges)
    rank = np.add.reduceat(np.arange(1.0, n + 1), edges[:-1]) / count
    return rank, np.add.reduceat(values, edges[:-1], axis=1) / count


def top_share(values: Float[np.ndarray, " neuron"], fraction: float = 0.01) -> float:
    """Share of all positive influence that the top neurons hold; noise raises it."""
    positive = np.sort(values[values > 0])[::-1]
    if positive.size == 0:
        raise ValueError("no neuron has a positive value: there is no share to report")
    return float(positive[: max(1, round(fraction * values.size))].sum() / positive.sum())


def top_overlap(
    first: Int[np.ndarray, " ranked"], second: Int[np.ndarray, " other"], k: int
) -> float:
    """Share of the first k neurons of one ranking that are among the first k of the other.

    Independent rankings of n neurons would share k / n.
    """
    if not 0 < k <= min(first.size, second.size):
        raise ValueError(f"k must lie in 1..{min(first.size, second.size)}, got {k}")
    return np.intersect1d(first[:k], second[:k]).size / k
