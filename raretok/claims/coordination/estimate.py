"""The page `coordination`: estimands of C1 and I1 (data/claims.yaml).

Information of pairs of neurons is estimated by the first way of Kraskov, Stoegbauer and Grassberger
(2004), which the released code uses through scikit-learn: no bins, and nearly no bias where two
neurons are unrelated.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations, starmap

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from scipy.special import digamma

from raretok.claims.compare import Blocks, Compared, Spread, in_folds, over_controls, together
from raretok.claims.finding import Finding
from raretok.claims.sample import DRAWS, KINDS, Sample
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate, block_sums

Correlations = Float[np.ndarray, "group member member"]
Groups = Int[np.ndarray, "group member"]
Activations = Float[np.ndarray, " position"]
ESTIMANDS = tuple((claim, name) for claim in ("C1", "I1") for name in ("existence", "specificity"))
POSITIONS = 300  # of each class that information is measured on: its cost grows with them
STILL = 1e-10  # share of its mean square below which a neuron's variance is rounding
NEIGHBOURS = 3  # scikit-learn's default
TINY = 1e-6  # sd; parts activations that are equal though nothing was rounded
CONTROLS = 8  # control groups whose information is measured: each costs as much as the group


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


def log_dimension(sample: Sample, kind: str) -> Compared:
    """ln participation ratio of the group and its controls on one class of targets."""
    groups = sample.with_controls(DRAWS)
    moments = Moments.of(sample, kind, np.unique(groups))
    return np.log(
        in_folds(sample, groups, lambda *fold: participation_ratio(moments.correlations(*fold)))
    )


def ksg_terms(x: Activations, y: Activations, k: int = NEIGHBOURS) -> Activations:
    r"""What each position adds to the mutual information of two neurons, their mean; in nats.

    It can come out slightly below 0.

    $$I = \psi(k) + \psi(N) - \langle \psi(n_x + 1) + \psi(n_y + 1) \rangle$$

    $n_x$: positions nearer in $x$ than the k-th neighbour in the plane (largest of the two
    distances). Give both the same scale and no ties (`prepared`).
    Raises `ValueError` for fewer than `k + 1` positions.
    """
    if x.size <= k:
        raise ValueError(f"{k} neighbours need at least {k + 1} positions, got {x.size}")
    points = np.column_stack([x, y])
    # A plain tree: built faster than a balanced one, and searched once only.
    tree = cKDTree(points, leafsize=8, balanced_tree=False, compact_nodes=False)
    distance = tree.query(points, k=[k + 1], p=np.inf)[0][:, 0]
    near = digamma(_nearer(x, distance) + 1) + digamma(_nearer(y, distance) + 1)
    return digamma(k) + digamma(x.size) - near


def _nearer(x: Activations, distance: Activations) -> Int[np.ndarray, " position"]:
    """How many other positions lie strictly nearer than each position's distance."""
    ordered = np.sort(x)
    # `distance` is one of the differences, so rounding would decide at the edge: step inside it.
    inside = distance * (1 - 1e-9)
    last = np.searchsorted(ordered, x + inside, side="right")
    return np.maximum(last - np.searchsorted(ordered, x - inside, side="left") - 1, 0)


def prepared(
    post: Float[np.ndarray, "position neuron"], *, rng: np.random.Generator
) -> Float[np.ndarray, "position neuron"]:
    """Z-scored activations, each moved at random within the step it was rounded to.

    Equal neighbours would count as no distance; spread over their step they are as they were.
    """
    sd = post.std(axis=0)
    z = (post - post.mean(axis=0)) / np.where(sd > 0, sd, 1.0)
    gaps = np.diff(np.sort(z, axis=0), axis=0)
    step = np.where(gaps > TINY, gaps, np.inf).min(axis=0, initial=np.inf)
    step = np.where(np.isfinite(step), step, TINY)  # the step each neuron was rounded to
    return z + step * rng.uniform(-0.5, 0.5, size=z.shape)


class Information:
    """Mutual information of pairs of neurons on one class of targets, each pair measured once.

    Each position adds a term to the information of a pair; its mean over the positions of some
    blocks is the information there, the neighbours being those of all.
    """

    def __init__(self, sample: Sample, kind: str):
        rows = np.flatnonzero(sample.stratum == KINDS[kind])
        rng = sample.rng(f"information {kind}")
        rows = np.sort(rng.permutation(rows)[:POSITIONS])
        self.post = prepared(sample.activations(rows), rng=rng).T.copy()
        self.weight, self.block = sample.weight[rows], sample.block[rows]
        self.n_blocks = sample.deal.n_blocks
        self.total = np.bincount(self.block, self.weight, self.n_blocks)
        self.measured = cache(self.of_pair)

    def of_pair(self, one: int, two: int) -> Blocks:
        """Sums over blocks of the terms of a pair."""
        terms = ksg_terms(self.post[one], self.post[two])
        return block_sums(terms[:, None], self.weight, self.block, self.n_blocks)[:, 0]

    def of_groups(self, blocks: Blocks, groups: Groups) -> Float[np.ndarray, " group"]:
        """Mean over the pairs of each group, over some blocks, nats."""
        total = blocks @ self.total
        if total <= 0:
            raise NotTestableError("a part of the documents has no position of the class")
        pairs = (combinations(sorted(map(int, group)), 2) for group in groups)
        sums = [np.mean(list(starmap(self.measured, some)), axis=0) for some in pairs]
        return np.stack(sums) @ blocks / total


def shared_information(sample: Sample, kind: str) -> Compared:
    """Mean information of the pairs of the group and of its controls, nats."""
    information = Information(sample, kind)
    return in_folds(sample, sample.with_controls(CONTROLS), information.of_groups)


def findings(sample: Sample, dear: bool = True) -> Iterator[Finding]:
    """Existence and specificity of C1 and (where `dear`) of I1 under one reading."""

    def both(measure: Callable, scale: Callable) -> list[tuple[Estimate, Spread]]:
        rare, common = (measure(sample, kind) for kind in KINDS)
        return [over_controls(one, scale) for one in (rare, rare - common)]

    yield from together(ESTIMANDS[:2], sample, lambda: both(log_dimension, np.exp))
    if dear:
        yield from together(ESTIMANDS[2:], sample, lambda: both(shared_information, np.positive))
