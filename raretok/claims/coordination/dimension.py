"""How many dimensions a group of neurons uses, from sums over blocks of documents."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from raretok.claims.compare import Blocks
from raretok.claims.sample import KINDS, Sample
from raretok.stats.jackknife import block_sums

Correlations = Float[np.ndarray, "group member member"]
Groups = Int[np.ndarray, "group member"]
STILL = 1e-10  # share of its mean square below which a neuron's variance is rounding


@dataclass(frozen=True, eq=False)
class Moments:
    """Weighted sums of activations and of their products in each block, for some neurons."""

    weight: Blocks
    first: Float[np.ndarray, "block used"]
    second: Float[np.ndarray, "block used used"]
    column: Int[np.ndarray, " neuron"]  # of each neuron; -1: not used

    @classmethod
    def of(cls, sample: Sample, kind: str, used: Int[np.ndarray, " used"]) -> "Moments":
        """Of the positions of one class."""
        rows = np.flatnonzero(sample.stratum == KINDS[kind])
        post, weight = sample.activations(rows, used), sample.weight[rows]
        # Centred and scaled first: sums of squares of a large mean would cancel.
        post = post - np.average(post, axis=0, weights=weight)
        spread = post.std(axis=0)
        post = post / np.where(spread > 0, spread, 1.0)
        block, n = sample.block[rows], sample.deal.n_blocks
        parts = [(weight[block == b], post[block == b]) for b in range(n)]
        column = np.full(sample.post.shape[1], -1)
        column[used] = np.arange(used.size)
        return cls(
            np.bincount(block, weight, n),
            block_sums(post, weight, block, n),
            np.stack([(w[:, None] * x).T @ x for w, x in parts]),
            column,
        )

    def correlations(self, blocks: Blocks, groups: Groups) -> Correlations:
        """Pearson correlations within each group over some blocks; 0 for a constant neuron.

        The diagonal is 1, or 0 for a constant neuron.
        """
        some = np.flatnonzero(blocks)
        at, total = self.column[groups], self.weight[some].sum()
        mean = self.first[some].sum(axis=0)[at] / total
        pairs = self.second[some[:, None, None, None], at[:, :, None], at[:, None, :]]
        second = pairs.sum(axis=0) / total
        covariance = second - mean[:, :, None] * mean[:, None, :]
        diagonal = np.arange(groups.shape[1])
        variance = covariance[:, diagonal, diagonal]
        varies = variance > STILL * np.maximum(second[:, diagonal, diagonal], 1e-300)
        sd = np.where(varies, np.sqrt(np.maximum(variance, 1e-300)), np.inf)
        r = covariance / (sd[:, :, None] * sd[:, None, :])
        r[:, diagonal, diagonal] = varies
        return np.clip(r, -1.0, 1.0)


def whole_correlations(sample: Sample, kind: str, groups: Groups) -> Correlations:
    """Correlations within each group over all positions of a class."""
    moments = Moments.of(sample, kind, np.unique(groups))
    return moments.correlations(np.ones(sample.deal.n_blocks), groups)


def participation_ratio(r: Correlations) -> Float[np.ndarray, " group"]:
    r"""Effective number of dimensions of each correlation matrix; NaN where all is constant.

    $$\frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}
    = \frac{(\mathrm{tr} R)^2}{\sum_{ij} R_{ij}^2} = \frac{n}{1 + (n - 1)\, \overline{r^2}}$$

    From 1 (all n neurons alike) to n (none correlated): the mean square of the correlations in
    another unit. The last form holds where no neuron is constant.
    """
    squares = (r**2).sum(axis=(1, 2))
    trace = np.trace(r, axis1=1, axis2=2)
    return trace**2 / np.where(squares > 0, squares, np.nan)
