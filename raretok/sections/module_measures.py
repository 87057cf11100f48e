"""How modular a group of neurons is: statistics of its graph, for many groups at once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from raretok.sections.communities import (
    best_partitions,
    dealt_quality,
    modularity_matrix,
    quality,
    silhouette,
)
from raretok.sections.graphs import Activity, correlation, positive
from raretok.sections.released_modularity import released_score
from raretok.stats.documents import resample_documents

STILL = 1e-12  # share of its variance below which a neuron is constant in a sample of documents


@dataclass(frozen=True)
class Graphs:
    """Correlations within groups: over all positions, and over both halves of each split."""

    r: Float[np.ndarray, "graph node node"]
    halves: tuple[
        tuple[Float[np.ndarray, "graph node node"], Float[np.ndarray, "graph node node"]], ...
    ]

    @property
    def size(self) -> Float[np.ndarray, "graph node node"]:
        """Links by size, |r|: the graph that communities are sought in."""
        return np.abs(self.r)


@dataclass(frozen=True)
class Links:
    """Correlations of all neurons that a fold compares."""

    r: Float[np.ndarray, "used used"]
    halves: tuple[tuple[Float[np.ndarray, "used used"], Float[np.ndarray, "used used"]], ...]
    column: Int[np.ndarray, " neuron"]

    def among(self, groups: Int[np.ndarray, "graph node"]) -> Graphs:
        """The graphs of some groups."""
        at = self.column[groups]
        rows, columns = at[:, :, None], at[:, None, :]
        halves = tuple((one[rows, columns], two[rows, columns]) for one, two in self.halves)
        return Graphs(self.r[rows, columns], halves)


Measure = Callable[[Graphs], Float[np.ndarray, " graph"]]


def find_links(activity: Activity) -> Links:
    """Correlations over all positions and over both halves of each split."""

    def over(rows: Bool[np.ndarray, " position"]) -> Float[np.ndarray, "used used"]:
        return correlation(activity.post[rows], activity.weight[rows])

    halves = tuple((over(first), over(~first)) for first in activity.halves)
    return Links(correlation(activity.post, activity.weight), halves, activity.column)


def largest_Q(graphs: Graphs) -> Float[np.ndarray, " graph"]:
    """The largest Q that any partition of the |r| graph has."""
    return best_partitions(graphs.size).Q


def held_out_Q(graphs: Graphs) -> Float[np.ndarray, " graph"]:
    """Q, on one half of the documents, of the partition that is best on the other; mean of both.

    Less the mean Q of the same community sizes with the neurons dealt at random, which is a little
    below 0 for several communities: else a group in one community (Q 0) would beat chance.
    Raises `ValueError` for graphs without halves.
    """
    if not graphs.halves:
        raise ValueError("held-out Q needs at least one split of the documents, got 0")
    found = []
    for one, two in ((np.abs(one), np.abs(two)) for one, two in graphs.halves):
        found += [carried_over(one, two), carried_over(two, one)]
    return np.mean(found, axis=0)


def carried_over(
    seen: Float[np.ndarray, "graph node node"], unseen: Float[np.ndarray, "graph node node"]
) -> Float[np.ndarray, " graph"]:
    """Q above chance, on unseen links, of the partition that is best on the seen ones."""
    matrix, labels = modularity_matrix(unseen), best_partitions(seen).labels
    return quality(matrix, labels) - dealt_quality(matrix, labels)


def released_Q(graphs: Graphs) -> Float[np.ndarray, " graph"]:
    """Signed Q of the spectral clusters of the released code."""
    return released_score(graphs.r).Q_signed


def mean_link(graphs: Graphs) -> Float[np.ndarray, " graph"]:
    """Mean |r| of the pairs of a group: how much it acts together, in modules or not."""
    n_nodes = graphs.r.shape[-1]
    return graphs.size.sum(axis=(1, 2)) / (n_nodes * (n_nodes - 1))


STATISTICS: dict[str, Measure] = {
    "released Q": released_Q,
    "largest Q": largest_Q,
    "held-out Q": held_out_Q,
}


def measures(graphs: Graphs) -> dict[str, Float[np.ndarray, " graph"]]:
    """Each statistic of each graph, by name.

    Two of them are not Q. The silhouette asks whether neurons are nearer (in 1 - |r|) to their own
    community of the best partition than to the next. The second eigenvalue of the correlations
    needs no partition: one common factor lifts the first, only a second module lifts the second.
    """
    unit, best = np.eye(graphs.r.shape[-1]), best_partitions(graphs.size)
    return {
        "released Q": released_Q(graphs),
        "largest Q": best.Q,
        "held-out Q": held_out_Q(graphs),
        "largest Q, positive r": best_partitions(positive(graphs.r)).Q,
        "silhouette": silhouette((1 - graphs.size) * (1 - unit), best.labels),
        "second eigenvalue": np.linalg.eigvalsh(graphs.r + unit)[:, -2],
        "mean |r|": mean_link(graphs),
    }


def links_beyond(
    links: Links, groups: Int[np.ndarray, "graph node"], pool: Int[np.ndarray, "draw member"]
) -> Float[np.ndarray, " graph"]:
    """Mean |r| within a group less mean |r| from it to the neurons of `pool` that are not in it.

    A neuron counts as often as the pool, the control groups, holds it.
    """
    share = np.bincount(links.column[pool.ravel()], minlength=len(links.r)) / pool.size
    graphs, at = links.among(groups), links.column[groups]
    own = share[at]
    reach = np.abs(links.r) @ share
    # The diagonal of r is 0, so a member adds nothing to its own reach.
    to_others = reach[at] - np.einsum("gij,gj->gi", graphs.size, own)
    outside = to_others / np.maximum(1 - own.sum(axis=1, keepdims=True), 1e-12)
    return mean_link(graphs) - outside.mean(axis=1)


@dataclass(frozen=True)
class Moments:
    """Weighted sums over the positions of each document: all that a correlation needs."""

    weight: Float[np.ndarray, " document"]
    first: Float[np.ndarray, "document graph node"]
    second: Float[np.ndarray, "document graph node node"]

    def correlation(
        self, counts: Float[np.ndarray, "draw document"]
    ) -> Float[np.ndarray, "draw graph node node"]:
        """Correlations if each document counts that often; 0 for a constant neuron."""
        total = np.maximum(counts @ self.weight, 1e-300)
        mean = np.tensordot(counts, self.first, 1) / total[:, None, None]
        second = np.tensordot(counts, self.second, 1) / total[:, None, None, None]
        covariance = second - mean[..., :, None] * mean[..., None, :]
        diagonal = np.arange(mean.shape[-1])
        variance = covariance[..., diagonal, diagonal]
        varies = variance > STILL * np.maximum(second[..., diagonal, diagonal], 1e-300)
        sd = np.where(varies, np.sqrt(np.maximum(variance, 1e-300)), np.inf)
        r = covariance / (sd[..., :, None] * sd[..., None, :])
        r[..., diagonal, diagonal] = 0
        return np.clip(r, -1.0, 1.0)


def document_moments(activity: Activity, groups: Int[np.ndarray, "graph node"]) -> Moments:
    """The sums of each document for some groups, about the mean of all positions."""
    post, weight = activity.post.astype(np.float64), activity.weight
    # Centred and scaled first: sums of squares of a large mean would cancel.
    centred = post - np.average(post, axis=0, weights=weight)
    spread = centred.std(axis=0)
    centred = centred / np.where(spread > 0, spread, 1.0)
    at = activity.column[groups]
    starts = np.flatnonzero(np.diff(activity.document, prepend=-1))
    parts = np.split(np.arange(len(post)), starts[1:])
    values = [centred[rows][:, at] for rows in parts]
    weights = [weight[rows] for rows in parts]
    pairs = list(zip(weights, values, strict=True))
    return Moments(
        np.array([one.sum() for one in weights]),
        np.stack([np.tensordot(w, x, 1) for w, x in pairs]),
        np.stack([np.einsum("p,pgi,pgj->gij", w, x, x, optimize=True) for w, x in pairs]),
    )


def resampled_graphs(
    activity: Activity,
    groups: Int[np.ndarray, "graph node"],
    counts: Float[np.ndarray, "draw document"],
    n_splits: int,
) -> Graphs:
    """Graphs of the groups in each sample of documents, one sample after the other.

    A document drawn twice is twice in the same half, so a held-out half stays held out.
    """
    moments, n_nodes = document_moments(activity, groups), groups.shape[1]
    starts = np.flatnonzero(np.diff(activity.document, prepend=-1))

    def over(chosen: Bool[np.ndarray, " document"]) -> Float[np.ndarray, "graph node node"]:
        return moments.correlation(counts * chosen).reshape(-1, n_nodes, n_nodes)

    firsts = [first[starts] for first in activity.halves[:n_splits]]
    halves = tuple((over(first), over(~first)) for first in firsts)
    return Graphs(over(np.ones(starts.size, dtype=bool)), halves)


def difference_draws(
    activity: Activity,
    groups: Int[np.ndarray, "graph node"],
    measure: Measure,
    *,
    n_draws: int,
    n_splits: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, " draw"]:
    """The measure of the first group less the mean of the others, in samples of documents."""
    counts = resample_documents(int(activity.document.max()) + 1, n_draws, rng=rng)
    values = measure(resampled_graphs(activity, groups, counts, n_splits))
    values = values.reshape(n_draws, len(groups))
    return values[:, 0] - values[:, 1:].mean(axis=1)
