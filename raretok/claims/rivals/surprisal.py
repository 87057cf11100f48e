"""Influence on rare targets and on others that are as surprising."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from raretok.claims.sample import KINDS, PerNeuron, Sample, settled
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Folds, block_sums

# Of each bin and block of documents: weight, and weighted sums.
Cells = tuple[Float[np.ndarray, "bin block"], Float[np.ndarray, "bin block value"]]
BINS = 10  # of surprisal, each with as much of the rare targets


def surprisal_bins(
    loss: Float[np.ndarray, " position"],
    weight: Float[np.ndarray, " position"],
    rare: Bool[np.ndarray, " position"],
) -> Int[np.ndarray, " position"]:
    """Bin of each position; the edges are weighted quantiles of the rare ones' surprisal, nats."""
    order = np.argsort(loss[rare], kind="stable")
    values, mass = loss[rare][order], weight[rare][order]
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    after = np.searchsorted(middle, np.arange(1, BINS) / BINS)
    return np.searchsorted(values[np.minimum(after, values.size - 1)], loss, side="right")


@dataclass(frozen=True, eq=False)
class Matched:
    """Influence on rare targets, and on others that are as surprising; nats.

    The first of either is measured on the documents that neurons are chosen on, the second on the
    others.
    """

    rare: tuple[PerNeuron, PerNeuron]
    frequent: tuple[PerNeuron, PerNeuron]
    kept: float  # share of the rare weight in bins that have other targets in every fold


def matched(sample: Sample, loss: Float[np.ndarray, " position"]) -> Matched:
    """Raises `NotTestableError` where no bin of surprisal has both kinds of targets throughout."""
    rare = sample.stratum == KINDS["rare"]
    bins = surprisal_bins(loss, sample.weight, rare)
    n, cell = sample.deal.n_blocks, bins * sample.deal.n_blocks + sample.block

    def in_bins(rows: Bool[np.ndarray, " position"]) -> Cells:
        sums = block_sums(sample.delta_loss[rows], sample.weight[rows], cell[rows], BINS * n)
        total = np.bincount(cell[rows], sample.weight[rows], BINS * n)
        return total.reshape(BINS, n), sums.reshape(BINS, n, -1)

    cells = in_bins(rare), in_bins(~rare)
    there = [[folds @ total.T > 0 for total, _ in cells] for folds in sample.folds]
    full = np.all(there, axis=(0, 1, 2, 3))
    if not full.any():
        raise NotTestableError("no other target is as surprising as the rare ones")
    found = [means_over_bins(folds, *cells, full) for folds in sample.folds]
    ours, others = (tuple(settled(one) for one in pair) for pair in zip(*found, strict=True))
    by_bin = cells[0][0].sum(axis=1)
    return Matched(ours, others, float(by_bin[full].sum() / by_bin.sum()))


def means_over_bins(
    folds: Folds, rare: Cells, others: Cells, full: Bool[np.ndarray, " bin"]
) -> tuple[PerNeuron, PerNeuron]:
    """Means over some blocks, of rare targets and of others with the rare ones' surprisal."""
    weight = folds @ rare[0][full].T
    share = weight / weight.sum(axis=-1, keepdims=True)

    def mean(total: np.ndarray, sums: np.ndarray) -> PerNeuron:
        each = zip(np.moveaxis(share, -1, 0), total[full], sums[full], strict=True)
        return sum((part / (folds @ w))[..., None] * (folds @ s) for part, w, s in each)

    return mean(*rare), mean(*others)
