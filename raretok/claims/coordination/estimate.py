"""The page `coordination`: estimands of C1 and I1 (data/claims.yaml)."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations, starmap

import numpy as np
from jaxtyping import Float

from raretok.claims.compare import Blocks, Compared, Spread, in_folds, over_controls, together
from raretok.claims.coordination.dimension import (
    Groups,
    Moments,
    participation_ratio,
)
from raretok.claims.coordination.information import (
    ksg_terms,
    prepared,
)
from raretok.claims.finding import Finding
from raretok.claims.sample import DRAWS, KINDS, Sample
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate, block_sums

ESTIMANDS = tuple((claim, name) for claim in ("C1", "I1") for name in ("existence", "specificity"))
POSITIONS = 300  # of each class that information is measured on: its cost grows with them
CONTROLS = 8  # control groups whose information is measured: each costs as much as the group


def log_dimension(sample: Sample, kind: str) -> Compared:
    """ln participation ratio of the group and its controls on one class of targets."""
    groups = sample.with_controls(DRAWS)
    moments = Moments.of(sample, kind, np.unique(groups))
    return np.log(
        in_folds(sample, groups, lambda *fold: participation_ratio(moments.correlations(*fold)))
    )


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
