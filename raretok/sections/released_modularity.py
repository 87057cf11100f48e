"""What the released code calls modular: spectral clusters of signed correlation graphs.

Written from the description of the method, not from its source, for many graphs at once. Kept as
it is described: the eigengap rule takes the *smallest* gap, the weights of Newman's Q have signs,
and its test compares one value with two.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from raretok.sections.communities import modularity, quality
from raretok.sections.graphs import positive

TOP = 10  # eigenvalues among which the released rule looks for a gap
RESTARTS = 10  # of k-means
LLOYD = 50  # rounds of k-means
CLUSTERED = 0.3  # Q above which the released rule speaks of modules


@dataclass(frozen=True)
class ReleasedScore:
    """Per graph, what the released code reports."""

    labels: Int[np.ndarray, "graph node"]
    Q: Float[np.ndarray, " graph"]  # Newman's formula fed with signed weights
    Q_signed: Float[np.ndarray, " graph"]  # Q of the positive links less Q of the negative ones
    score: Float[np.ndarray, " graph"]  # of the hypothesis "modular", 0 to 1
    supported: Bool[np.ndarray, " graph"]


def released_score(r: Float[np.ndarray, "graph node node"], *, seed: int = 42) -> ReleasedScore:
    """Cluster each graph of correlations and judge it as the released code does.

    "Modular" needs Q > 0.3, two clusters or more, and a score above 0.5, to which Q > 0.3 and
    Q_signed > 0.3 add 0.3 each, two clusters and no cluster of 80 % or more of the nodes 0.2 each.
    """
    labels = spectral_labels(np.abs(r), gap_clusters(np.abs(r)), rng=np.random.default_rng(seed))
    Q, Q_signed = signed_formula(r, labels), signed_modularity(r, labels)
    sizes = (labels[:, :, None] == np.arange(labels.shape[1])).sum(axis=1)
    several = (sizes > 0).sum(axis=1) >= 2
    even = sizes.max(axis=1) < 0.8 * labels.shape[1]
    high = Q > CLUSTERED
    score = 0.3 * high + 0.3 * (Q_signed > CLUSTERED) + 0.2 * several + 0.2 * even
    return ReleasedScore(labels, Q, Q_signed, score, high & several & (score > 0.5))


def signed_formula(
    r: Float[np.ndarray, "graph node node"], labels: Int[np.ndarray, "graph node"]
) -> Float[np.ndarray, " graph"]:
    """Newman's Q with negative weights left in: 2m may come near 0, and Q may be anything.

    0 where the weights add up to exactly 0.
    """
    strength = r.sum(axis=-1)
    total = strength.sum(axis=-1)[:, None, None]
    safe = np.where(total != 0, total, np.inf)
    return quality((r - strength[:, :, None] * strength[:, None, :] / safe) / safe, labels)


def signed_modularity(
    r: Float[np.ndarray, "graph node node"], labels: Int[np.ndarray, "graph node"]
) -> Float[np.ndarray, " graph"]:
    """Q of the positive part less Q of the negative part, each with strengths of its own."""
    return modularity(positive(r), labels) - modularity(positive(-r), labels)


def gap_clusters(weights: Float[np.ndarray, "graph node node"]) -> Int[np.ndarray, " graph"]:
    """Number of clusters by the released eigengap rule, 2 to nodes - 1.

    The place of the largest difference of the ten largest eigenvalues in descending order, plus 2.
    All differences are negative, so the largest is the smallest gap.
    """
    n_nodes = weights.shape[-1]
    if n_nodes < 4:
        return np.full(len(weights), 2)
    descending = np.linalg.eigvalsh(weights)[:, ::-1][:, :TOP]
    return np.clip(np.diff(descending, axis=1).argmax(axis=1) + 2, 2, n_nodes - 1)


def spectral_labels(
    weights: Float[np.ndarray, "graph node node"],
    n_clusters: Int[np.ndarray, " graph"],
    *,
    rng: np.random.Generator,
) -> Int[np.ndarray, "graph node"]:
    """Spectral clustering: k-means on the k leading eigenvectors of the normalised weights."""
    strength = weights.sum(axis=-1)
    root = np.sqrt(np.where(strength > 0, strength, 1.0))
    _, vectors = np.linalg.eigh(weights / (root[:, :, None] * root[:, None, :]))
    embedded = vectors[:, :, ::-1] / root[:, :, None]
    labels = np.zeros(strength.shape, dtype=np.int64)
    for k in np.unique(n_clusters):
        chosen = n_clusters == k
        labels[chosen] = k_means(embedded[chosen, :, :k], int(k), rng=rng)
    return labels


def k_means(
    points: Float[np.ndarray, "graph node axis"], k: int, *, rng: np.random.Generator
) -> Int[np.ndarray, "graph node"]:
    """k-means of each set of points: the best of ten starts from random k-means++ centres."""
    n_graphs, n_nodes, _ = points.shape
    tries = np.repeat(points, RESTARTS, axis=0)
    centres = first_centres(tries, k, rng=rng)
    for _ in range(LLOYD):
        labels = squared_distances(tries, centres).argmin(axis=2)
        member = (labels[:, :, None] == np.arange(k)).astype(float)
        size = member.sum(axis=1)[:, :, None]
        means = member.transpose(0, 2, 1) @ tries / np.maximum(size, 1)
        means = np.where(size > 0, means, centres)  # an empty cluster stays where it was
        if np.allclose(means, centres):
            break
        centres = means
    inertia = squared_distances(tries, centres).min(axis=2).sum(axis=1)
    best = inertia.reshape(n_graphs, RESTARTS).argmin(axis=1)
    return labels.reshape(n_graphs, RESTARTS, n_nodes)[np.arange(n_graphs), best]


def first_centres(
    points: Float[np.ndarray, "graph node axis"], k: int, *, rng: np.random.Generator
) -> Float[np.ndarray, "graph centre axis"]:
    """k-means++: each next centre a point drawn by its squared distance to those chosen."""
    n_graphs, n_nodes, _ = points.shape
    graph = np.arange(n_graphs)
    chosen = points[graph, rng.integers(n_nodes, size=n_graphs)][:, None]
    for _ in range(k - 1):
        far = squared_distances(points, chosen).min(axis=2)
        ladder = np.cumsum(far, axis=1)
        at = (ladder < rng.random((n_graphs, 1)) * ladder[:, -1:]).sum(axis=1)
        next_centre = points[graph, np.minimum(at, n_nodes - 1)][:, None]
        chosen = np.concatenate([chosen, next_centre], axis=1)
    return chosen


def squared_distances(
    points: Float[np.ndarray, "graph node axis"], centres: Float[np.ndarray, "graph centre axis"]
) -> Float[np.ndarray, "graph node centre"]:
    return ((points[:, :, None, :] - centres[:, None, :, :]) ** 2).sum(axis=-1)


def released_p(value: float, two: Float[np.ndarray, "2"]) -> float:
    """p-value of the released test: one value against two random groups, one degree of freedom.

    A t-test of the two with the standard deviation of a population, corrected for two tests.
    """
    spread = float(two.std())
    if spread == 0:
        return 0.0 if value != two.mean() else 1.0
    t = (value - float(two.mean())) / (spread / np.sqrt(2))
    return float(min(1.0, 2 * 2 * stats.t.sf(abs(t), df=1)))
