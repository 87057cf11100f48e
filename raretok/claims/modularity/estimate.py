"""The page `modularity`: the estimand of M1 (data/claims.yaml).

The largest Q that any partition of a graph has is not modularity: it is about 0.1 for 10
independent neurons and *falls* as neurons act together. So communities are found on one part of the
documents and their Q is taken on another, less what communities of the same sizes have by chance.
That is about 0 without modules, whether neurons are independent or share one common factor.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from raretok.claims.compare import Blocks, Compared, in_folds, over_controls, together
from raretok.claims.coordination.dimension import Moments
from raretok.claims.finding import Finding
from raretok.claims.modularity.communities import (
    best_partitions,
    dealt_quality,
    modularity_matrix,
    quality,
)
from raretok.claims.sample import Sample

ESTIMANDS = (("M1", "modularity"),)
CONTROLS = 20  # control groups: each costs as much as the group itself


def held_out_Q(
    seen: Float[np.ndarray, "graph node node"], unseen: Float[np.ndarray, "graph node node"]
) -> Float[np.ndarray, " graph"]:
    """Q above chance, on unseen links, of the partition that is best on the seen ones.

    Chance is the mean Q of the same community sizes with the neurons dealt at random, a little
    below 0: else a group in one community (Q 0) would beat it.
    """
    matrix, labels = modularity_matrix(unseen), best_partitions(modularity_matrix(seen))
    return quality(matrix, labels) - dealt_quality(matrix, labels)


def halved(blocks: Blocks) -> tuple[Blocks, Blocks]:
    """The blocks in use, dealt to two parts in turn."""
    turn = np.cumsum(blocks > 0) % 2
    return blocks * turn, blocks * (1 - turn)


def modularity(sample: Sample, kind: str = "rare") -> Compared:
    """Held-out Q of the group and its controls in every fold; mean of both directions."""
    groups = sample.with_controls(CONTROLS)
    moments, members = Moments.of(sample, kind, np.unique(groups)), groups.shape[-1]

    def links(blocks: Blocks, some: Int[np.ndarray, "group member"]) -> np.ndarray:
        """|r| within the groups on either half of some blocks; none of a neuron with itself."""
        r = np.stack([moments.correlations(half, some) for half in halved(blocks)], axis=1)
        return np.abs(r) * (1 - np.eye(members))

    graphs = in_folds(sample, groups, links).reshape(-1, 2, members, members)
    one, two = graphs[:, 0], graphs[:, 1]
    Q = (held_out_Q(one, two) + held_out_Q(two, one)) / 2
    return Q.reshape(groups.shape[:3])


def findings(sample: Sample) -> Iterator[Finding]:
    """M1 under one reading."""
    yield from together(ESTIMANDS, sample, lambda: [over_controls(modularity(sample))])
