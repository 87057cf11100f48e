"""The page `modularity`: the estimand of M1 (data/claims.yaml).

The largest Q that any partition of a graph has is not modularity: it is about 0.1 for 10
independent neurons and *falls* as neurons act together. So communities are found on one part of the
documents and their Q is taken on another, less what communities of the same sizes have by chance.
That is about 0 without modules, whether neurons are independent or share one common factor.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from raretok.claims.compare import Compared, Spread, controls_only, difference, together
from raretok.claims.coordination.dimension import Moments
from raretok.claims.finding import Finding
from raretok.claims.modularity.communities import (
    best_partitions,
    dealt_quality,
    modularity_matrix,
    quality,
)
from raretok.claims.sample import Sample
from raretok.stats.jackknife import Estimate

ESTIMANDS = (("M1", "modularity"),)
CONTROLS = 20  # control groups: each costs as much as the group itself


def links(
    moments: Moments, blocks: Float[np.ndarray, " block"], groups: Int[np.ndarray, "group member"]
) -> Float[np.ndarray, "group member member"]:
    """Links of each group over some blocks: |r|, none of a neuron with itself."""
    r = np.abs(moments.correlations(blocks, groups))
    diagonal = np.arange(groups.shape[1])
    r[:, diagonal, diagonal] = 0
    return r


def held_out_Q(
    seen: Float[np.ndarray, "graph node node"], unseen: Float[np.ndarray, "graph node node"]
) -> Float[np.ndarray, " graph"]:
    """Q above chance, on unseen links, of the partition that is best on the seen ones.

    Chance is the mean Q of the same community sizes with the neurons dealt at random, a little
    below 0: else a group in one community (Q 0) would beat it.
    """
    matrix, labels = modularity_matrix(unseen), best_partitions(seen).labels
    return quality(matrix, labels) - dealt_quality(matrix, labels)


def halved(blocks: Float[np.ndarray, " block"]) -> tuple[np.ndarray, np.ndarray]:
    """The blocks in use, dealt to two parts in turn."""
    used = np.flatnonzero(blocks)
    parts = np.zeros((2, blocks.size))
    parts[0, used[::2]], parts[1, used[1::2]] = 1, 1
    return parts[0], parts[1]


def modularity(sample: Sample, kind: str = "rare") -> Compared:
    """Held-out Q of the group and its controls in every fold; mean of both directions."""
    groups = sample.with_controls(CONTROLS)
    moments = Moments.of(sample, kind, np.unique(groups))
    graphs: list[list[np.ndarray]] = [[], []]
    for blocks, some in zip(
        sample.folds[1].reshape(-1, sample.deal.n_blocks),
        groups.reshape(-1, *groups.shape[2:]),
        strict=True,
    ):
        for part, half in zip(graphs, halved(blocks), strict=True):
            part.append(links(moments, half, some))
    one, two = (np.concatenate(part) for part in graphs)
    Q = (held_out_Q(one, two) + held_out_Q(two, one)) / 2
    return Q.reshape(groups.shape[:3])


def findings(sample: Sample) -> Iterator[Finding]:
    """M1 under one reading."""

    def held_out() -> list[tuple[Estimate, Spread]]:
        values = modularity(sample)
        return [(difference(values), controls_only(values))]

    yield from together(ESTIMANDS, sample, held_out)
