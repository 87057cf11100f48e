"""Louvain communities over seeds and resolutions: the usual method, and how stable it is."""

from dataclasses import dataclass

import networkx as nx
import numpy as np
from jaxtyping import Float, Int

from raretok.sections.communities import best_partitions, in_order, modularity

RESOLUTIONS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # of Newman's Q; 1 is the usual one
SEEDS = 50


@dataclass(frozen=True)
class Consensus:
    """Many Louvain runs on one graph at one resolution."""

    resolution: float
    together: Float[np.ndarray, "node node"]  # share of seeds with both in one community
    labels: Int[np.ndarray, " node"]  # communities of nodes together in more than half of runs
    stability: float  # mean adjusted Rand index of two seeds
    Q: float  # of the mean run
    best_Q: float  # the largest Q there is (exact), or that the search finds

    @property
    def n_communities(self) -> int:
        return int(self.labels.max()) + 1


def louvain_labels(
    weights: Float[np.ndarray, "node node"], resolution: float, seed: int
) -> Int[np.ndarray, " node"]:
    """One run of networkx's Louvain; a graph without weight falls apart into its nodes."""
    labels = np.arange(len(weights))
    if weights.sum() > 0:
        graph = nx.from_numpy_array(weights)
        found = nx.community.louvain_communities(graph, resolution=resolution, seed=seed)
        for label, members in enumerate(found):
            labels[list(members)] = label
    return labels


def consensus(
    weights: Float[np.ndarray, "node node"], resolution: float = 1.0, n_seeds: int = SEEDS
) -> Consensus:
    """Louvain from `n_seeds` seeds, and the partition most of them agree on.

    Consensus communities are linked by pairs that are together in more than half of the runs
    (after Lancichinetti and Fortunato, 2012).
    """
    runs = np.stack([louvain_labels(weights, resolution, seed) for seed in range(n_seeds)])
    together = (runs[:, :, None] == runs[:, None, :]).mean(axis=0)
    agreed = nx.from_numpy_array(together > 0.5)
    labels = np.zeros(len(weights), dtype=np.int64)
    for label, members in enumerate(nx.connected_components(agreed)):
        labels[list(members)] = label
    graphs = np.broadcast_to(weights, (n_seeds, *weights.shape))
    return Consensus(
        resolution,
        together,
        in_order(labels[None])[0],
        mean_agreement(runs),
        float(modularity(graphs, runs, resolution).mean()),
        float(best_partitions(weights[None], resolution).Q[0]),
    )


def mean_agreement(runs: Int[np.ndarray, "run node"]) -> float:
    """Mean adjusted Rand index over all pairs of runs; 1 for a single run."""
    distinct, count = np.unique(in_order(runs), axis=0, return_counts=True)
    n_pairs = choose_two(np.array([len(runs)]))
    equal = choose_two(count)  # pairs of equal runs agree fully
    unequal = sum(
        count[one] * count[two] * adjusted_rand(distinct[one], distinct[two])
        for one in range(len(distinct))
        for two in range(one)
    )
    return float((equal + unequal) / n_pairs) if n_pairs else 1.0


def adjusted_rand(one: Int[np.ndarray, " node"], two: Int[np.ndarray, " node"]) -> float:
    """Agreement of two partitions corrected for chance (Hubert and Arabie, 1985); 1 if equal."""
    shared = (one[:, None] == np.unique(one)).T.astype(int) @ (two[:, None] == np.unique(two))
    together = choose_two(shared)
    first, second = choose_two(shared.sum(axis=1)), choose_two(shared.sum(axis=0))
    expected = first * second / choose_two(np.array([one.size]))
    most = (first + second) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)


def choose_two(counts: Int[np.ndarray, "*shape"]) -> float:
    """Number of pairs within sets of these sizes."""
    return float((counts * (counts - 1) / 2).sum())
