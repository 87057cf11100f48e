r"""The page `rivals`: what else could the neurons that matter for rare targets be?

Four rivals, one score a neuron each, written down before any of it was computed; the page says what
each is. Scores and influence on rare targets are normal scores of their ranks over the layer. What
a regression on all four explains is split by Shapley values over the subsets (Lindeman, Merenda
and Gold, 1980). Difficulty is measured on one half of the documents, influence on the other; what
influence on the one half explains of that on the other is the ceiling.
"""

from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy.special import ndtri

from raretok.claims.compare import ratio
from raretok.claims.finding import or_none
from raretok.claims.regimes.estimate import under
from raretok.claims.sample import KINDS, LeftOut, PerNeuron, Sample, correlation, ranked, settled
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate, Folds, block_sums, jackknife

Correlations = Float[np.ndarray, "*fold variable variable"]
# Of each bin and block of documents: weight, and weighted sums.
Cells = tuple[Float[np.ndarray, "bin block"], Float[np.ndarray, "bin block value"]]
RIVALS = ("token frequency", "entropy", "activation scale", "difficulty")
BINS = 10  # of surprisal, each with as much of the rare targets
SAME = 1e-10  # of the largest: smaller eigenvalues are those of scores that say the same


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


def normal_scores(values: Float[np.ndarray, "*fold neuron"]) -> Float[np.ndarray, "*fold neuron"]:
    """Van der Waerden's scores of the ranks over the neurons."""
    return ndtri((ranked(values) + 0.5) / values.shape[-1])


def weight_scores(sample: Sample, unembedding: xr.Dataset) -> Float[np.ndarray, "rival neuron"]:
    """The three rivals that read no effect, by one standard deviation of the activation."""
    mean = np.average(sample.post, axis=0, weights=sample.weight)
    sd = np.sqrt(np.average((sample.post - mean) ** 2, axis=0, weights=sample.weight))
    written = np.linalg.norm(sample.W_out, axis=1) * sd
    along = np.abs(unembedding.frequency.values) * sd
    return np.stack([along, written * unembedding.null_share.values, written])


def correlations(scores: Float[np.ndarray, "*fold variable neuron"]) -> Correlations:
    """Of standardised or normal scores."""
    covariance = scores @ np.swapaxes(scores, -1, -2)
    size = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    return covariance / (size[..., None] * size[..., None, :])


def r_squared(corr: Correlations, some: tuple[int, ...]) -> Float[np.ndarray, "*fold"]:
    """Of the regression of the last variable on some of the others."""
    rows = np.array(some, dtype=int)
    inverse = np.linalg.pinv(corr[..., rows[:, None], rows], rcond=SAME, hermitian=True)
    with_last = corr[..., rows, -1]
    return np.asarray(np.einsum("...i,...ij,...j->...", with_last, inverse, with_last))


def shapley(corr: Correlations) -> Float[np.ndarray, "*fold rival"]:
    """Each variable's part of the R squared of all (the last is explained); they add up to it."""
    rivals = range(corr.shape[-1] - 1)
    some = (one for size in range(len(rivals) + 1) for one in combinations(rivals, size))
    worth = {frozenset(one): r_squared(corr, one) for one in some}
    found, orders = np.zeros((*corr.shape[:-2], len(rivals))), list(permutations(rivals))
    for order in orders:
        for i, rival in enumerate(order):
            found[..., rival] += worth[frozenset(order[: i + 1])] - worth[frozenset(order[:i])]
    return found / len(orders)


@dataclass(frozen=True)
class Explained:
    """Shares of the variance of the neurons' influence on rare targets."""

    # By rival: its "part" (Shapley value), what it explains "alone", and the "last" of all.
    by: dict[str, dict[str, Estimate]]
    all: Estimate
    ceiling: Estimate


def explained(
    weights: Float[np.ndarray, "rival neuron"],
    frequent: PerNeuron,
    rare: tuple[PerNeuron, PerNeuron],
) -> Explained:
    """How much of influence on rare targets each rival explains.

    `frequent`: influence on others as surprising, on the documents of the first of `rare`; the
    second is explained.
    """
    outcome, difficulty = normal_scores(rare[1]), normal_scores(frequent)
    fixed = np.broadcast_to(normal_scores(weights), (*outcome.shape[:-1], *weights.shape))
    corr = correlations(np.concatenate([fixed, np.stack([difficulty, outcome], -2)], axis=-2))
    ceiling, names = correlation(normal_scores(rare[0]), outcome) ** 2, range(len(RIVALS))
    total = r_squared(corr, tuple(names))
    without = [r_squared(corr, tuple(k for k in names if k != i)) for i in names]
    found = {
        "part": shapley(corr),
        "alone": corr[..., :-1, -1] ** 2,
        "last": total[..., None] - np.stack(without, axis=-1),
    }
    by = {
        column: dict(zip(RIVALS, map(jackknife, values.mean(axis=1).T), strict=True))
        for column, values in found.items()
    }
    return Explained(by, *(jackknife(one.mean(axis=1)) for one in (total, ceiling)))


def share(part: LeftOut, whole: LeftOut) -> Estimate:
    """One influence as a share of another. Raises `NotTestableError` where that is not positive."""
    if whole.min() <= 0:
        raise NotTestableError("the group's influence is not positive: it has no shares")
    return jackknife(part / whole)


def through_scale(sample: Sample, interventions: xr.Dataset) -> Estimate:
    """Share of the group's influence on rare targets that goes through the final norm's scale."""
    total = sample.mean("rare", sample.folds[1])
    direct = under(sample, interventions, "direct").mean("rare", sample.folds[1])
    return share(*map(sample.of_group, (total - direct, total)))


@dataclass(frozen=True)
class Compared:
    """Everything the page shows of one model; None where a number cannot be had.

    All that is said of the group is measured on documents that it was not chosen on.
    """

    explained: Explained
    matched: float  # share of the rare targets that others are as surprising as
    influence: dict[str, Estimate]  # of the group, nats, by kind of target
    scores: dict[str, Estimate]  # its mean normal score on each rival, in sd over the layer
    ratio: Estimate | None  # its influence on rare targets over that on others as surprising
    left: Estimate | None  # one over that, as a share, for which either sign will do
    reverse: Estimate | None  # the ratio of the group that is chosen on the others instead
    through_scale: Estimate | str | None  # words where it was not measured


def compared(
    sample: Sample,
    loss: Float[np.ndarray, " position"],
    unembedding: xr.Dataset,
    interventions: xr.Dataset | None = None,
) -> Compared:
    """The rivals of one model's neurons. Raises `NotTestableError` where they cannot be had."""
    weights, both = weight_scores(sample, unembedding), matched(sample, loss)
    (_, rare), (chosen_on, frequent) = both.rare, both.frequent
    every, common = (sample.mean(kind, sample.folds[1]) for kind in ("rare", "common"))
    fixed = [np.broadcast_to(one, rare.shape) for one in normal_scores(weights)]
    scores = dict(zip(RIVALS, [*fixed, normal_scores(frequent)], strict=True))
    kinds = {"rare": rare, "as surprising": frequent, "common": common}
    other = np.argsort(-chosen_on, axis=-1, kind="stable")[..., : sample.size]
    mean, what = sample.of_group, "rare over as surprising"
    return Compared(
        explained(weights, chosen_on, (sample.mean("rare", sample.folds[0]), every)),
        both.kept,
        {name: jackknife(mean(values)) for name, values in kinds.items()},
        {name: jackknife(mean(values)) for name, values in scores.items()},
        or_none(lambda: ratio(mean(rare), mean(frequent), what)),
        or_none(lambda: share(mean(frequent), mean(rare))),
        or_none(lambda: ratio(mean(rare, other), mean(frequent, other), what)),
        "not measured" if interventions is None else or_none(through_scale, sample, interventions),
    )
