"""Communities of weighted graphs: Newman's modularity, and the partition that maximises it.

A test against 1,000 control groups needs the maximum of 1,000 small graphs. Up to `EXACT_NODES`
nodes it is found exactly, by dynamic programming over subsets, so that no search bias is left;
above, all graphs are searched together by merging communities and moving nodes. Group and controls
have the same size, so they always get the same search.
"""

from functools import cache

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import silhouette_score

Graphs = Float[np.ndarray, "graph node node"]
Labels = Int[np.ndarray, "graph node"]
PerGraph = Float[np.ndarray, " graph"]
EXACT_NODES = 11  # 3**11 / 2 splits of subsets; each node more takes three times as long
AT_ONCE = 250  # graphs whose tables are kept at a time: (2**11, 250) doubles are 4 MB
SWEEPS = 20  # rounds of merging and moving; they end long before
CLEAR = 1e-12  # a gain below this is rounding


def modularity_matrix(weights: Graphs) -> Graphs:
    r"""Share of the weight on each pair above what the strengths of its nodes lead to expect.

    $$B_{ij} = \frac{w_{ij}}{2m} - \frac{k_i k_j}{(2m)^2}, \quad
    Q = \sum_{ij} B_{ij} [c_i = c_j]$$

    Newman (2004), weighted. A graph without any weight has no communities: its matrix, and with it
    Q, is 0.
    """
    strength = weights.sum(axis=-1)
    total = strength.sum(axis=-1)[:, None, None]
    safe = np.where(total > 0, total, 1.0)
    expected = strength[:, :, None] * strength[:, None, :] / safe
    return (weights - expected) / safe


def quality(matrix: Graphs, labels: Labels) -> PerGraph:
    """Sum of the matrix over pairs of one community: Q, for a modularity matrix."""
    same = labels[:, :, None] == labels[:, None, :]
    return np.einsum("gij,gij->g", matrix, same)


def dealt_quality(matrix: Graphs, labels: Labels) -> PerGraph:
    """Mean quality if the nodes are dealt at random to communities of the same sizes.

    Each pair is together with one probability p, each node with itself for certain. Below 0 for a
    modularity matrix: its diagonal is negative, and all of it adds up to 0.
    """
    n_nodes = labels.shape[1]
    together = (labels[:, :, None] == labels[:, None, :]).sum(axis=(1, 2)) - n_nodes
    p = together / (n_nodes * (n_nodes - 1))
    own = np.trace(matrix, axis1=1, axis2=2)
    return own + p * (matrix.sum(axis=(1, 2)) - own)


def best_partitions(matrix: Graphs) -> Labels:
    """The partition with the largest sum within communities: exact up to `EXACT_NODES` nodes."""
    search = exact_labels if matrix.shape[-1] <= EXACT_NODES else searched_labels
    parts = [search(matrix[at : at + AT_ONCE]) for at in range(0, len(matrix), AT_ONCE)]
    return np.concatenate(parts)


@cache
def splits(n_nodes: int) -> list[tuple[Int[np.ndarray, " split"], Int[np.ndarray, " split"]]]:
    """For each non-empty set of nodes (as bits): subsets with its highest node, and the rests."""
    found, sets = [], np.arange(1 << n_nodes)[::-1]
    for members in range(1, 1 << n_nodes):
        top = 1 << (members.bit_length() - 1)
        parts = sets[(sets & members == sets) & (sets & top > 0)]
        found.append((parts, members ^ parts))
    return found


def exact_labels(matrix: Graphs) -> Labels:
    """Partition with the largest sum within communities, by dynamic programming over node sets.

    best(S) = max over subsets T of S that hold its highest node: sum within T + best(S without T).
    """
    n_graphs, n_nodes, _ = matrix.shape
    within = sums_within(matrix)
    best = np.zeros_like(within)
    chosen = np.zeros(within.shape, dtype=np.int64)
    graph = np.arange(n_graphs)
    for members, (part, rest) in enumerate(splits(n_nodes), start=1):
        value = within[part] + best[rest]
        pick = value.argmax(axis=0)
        best[members], chosen[members] = value[pick, graph], part[pick]
    labels = np.zeros((n_graphs, n_nodes), dtype=np.int64)
    left = np.full(n_graphs, (1 << n_nodes) - 1)
    for label in range(n_nodes):
        part = chosen[left, graph]  # of the empty set: none
        labels[(part[:, None] >> np.arange(n_nodes)) & 1 == 1] = label
        left = left ^ part
    return labels


def sums_within(matrix: Graphs) -> Float[np.ndarray, "set graph"]:
    """Sum of the matrix over all pairs within each set of nodes (sets as bits)."""
    nodes = np.arange(matrix.shape[1])
    member = (np.arange(1 << nodes.size)[:, None] >> nodes & 1).astype(float)
    pairs = (member[:, :, None] * member[:, None, :]).reshape(len(member), -1)
    return pairs @ matrix.reshape(len(matrix), -1).T


def searched_labels(matrix: Graphs) -> Labels:
    """A partition with a large sum within communities, for graphs too large for the exact search.

    Merges the two communities that gain most (Clauset, Newman and Moore, 2004), moves single nodes
    as Louvain does, and repeats both until neither gains; once starting with each, the better kept.
    """
    alone = np.tile(np.arange(matrix.shape[1]), (matrix.shape[0], 1))
    one, two = (climbed(matrix, start) for start in (alone, moved(matrix, alone)))
    better = quality(matrix, two) > quality(matrix, one) + CLEAR
    return np.where(better[:, None], two, one)


def climbed(matrix: Graphs, labels: Labels) -> Labels:
    """Merge communities and move nodes in turn until nothing changes."""
    for _ in range(SWEEPS):
        before = labels
        labels = moved(matrix, merged(matrix, labels))
        if (labels == before).all():
            break
    return labels


def merged(matrix: Graphs, labels: Labels) -> Labels:
    """Join, in each graph, the pair of communities that gains most, until none gains."""
    n_graphs, n_nodes, _ = matrix.shape
    member = (labels[:, :, None] == np.arange(n_nodes)).astype(float)
    between = member.transpose(0, 2, 1) @ matrix @ member
    labels, graph = labels.copy(), np.arange(n_graphs)
    diagonal = np.arange(n_nodes)
    between[:, diagonal, diagonal] = 0  # what a community holds does not change by a merge
    while True:
        best = between.reshape(n_graphs, -1).argmax(axis=1)
        one, two = np.divmod(best, n_nodes)
        gains = between[graph, one, two] > CLEAR
        if not gains.any():
            return labels
        at, one, two = graph[gains], one[gains], two[gains]
        between[at, one] += between[at, two]
        between[at, :, one] += between[at, :, two]
        between[at, two], between[at, :, two] = 0, 0
        between[at, one, one] = 0
        labels[at] = np.where(labels[at] == two[:, None], one[:, None], labels[at])


def moved(matrix: Graphs, labels: Labels) -> Labels:
    """Move single nodes to the community (or to one of their own) that gains most."""
    n_graphs, n_nodes, _ = matrix.shape
    labels, graph = labels.copy(), np.arange(n_graphs)
    member = (labels[:, :, None] == np.arange(n_nodes)).astype(float)
    for _ in range(SWEEPS):
        before = labels.copy()
        for node in range(n_nodes):
            member[graph, node, labels[:, node]] = 0
            links = (matrix[:, None, node] @ member)[:, 0]  # an empty community links with 0
            to = links.argmax(axis=1)
            stays = links[graph, to] <= links[graph, labels[:, node]] + CLEAR
            labels[:, node] = np.where(stays, labels[:, node], to)
            member[graph, node, labels[:, node]] = 1
        if (labels == before).all():
            break
    return labels


def silhouette(distance: Graphs, labels: Labels) -> PerGraph:
    """Mean silhouette (Rousseeuw, 1987) of each partition: 1 clear clusters, 0 none.

    A node alone in its community counts 0, and so does a graph in one community.
    """

    def one(apart: np.ndarray, community: np.ndarray) -> float:
        clusters = 1 < np.unique(community).size < community.size
        return silhouette_score(apart, community, metric="precomputed") if clusters else 0.0

    return np.array(list(map(one, distance, labels)), dtype=float)
