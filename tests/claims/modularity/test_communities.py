"""Modularity and its maximum against by-hand values, brute force, networkx and scikit-learn."""

import itertools

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from raretok.claims.modularity import communities
from raretok.claims.modularity.communities import (
    best_partitions,
    dealt_quality,
    exact_labels,
    modularity_matrix,
    quality,
    searched_labels,
    silhouette,
)

RNG = np.random.default_rng


def noise_graphs(rng, n_graphs, n_nodes, n_positions=200, common=0.0):
    """|r| of independent neurons, or of neurons that share one factor with random loadings."""
    factor = common * rng.normal(size=(n_graphs, n_positions, 1))
    post = rng.normal(size=(n_graphs, n_positions, n_nodes))
    post += factor * rng.normal(size=(n_graphs, 1, n_nodes))
    return np.abs([np.corrcoef(one.T) for one in post]) * (1 - np.eye(n_nodes))


def two_cliques(n=4):
    side = np.repeat([0, 1], n)
    return ((side[:, None] == side) & ~np.eye(2 * n, dtype=bool)).astype(float)


def modularity(graphs, labels):
    return quality(modularity_matrix(graphs), labels)


def all_partitions(n_nodes):
    """Every partition once: labels that never skip ahead."""
    return np.array(
        [
            labels
            for labels in itertools.product(*(range(node + 1) for node in range(n_nodes)))
            if all(labels[i] <= max(labels[:i], default=-1) + 1 for i in range(n_nodes))
        ]
    )


def test_two_cliques_have_a_modularity_of_a_half():
    graph = two_cliques()[None]
    split = np.repeat([0, 1], 4)[None]
    assert modularity(graph, split)[0] == pytest.approx(0.5)
    assert modularity(graph, np.zeros_like(split))[0] == pytest.approx(0.0)
    found = best_partitions(modularity_matrix(graph))
    np.testing.assert_array_equal(pd.factorize(found[0])[0], split[0])


def test_modularity_is_that_of_networkx():
    rng = RNG(0)
    graphs, labels = noise_graphs(rng, 5, 12), rng.integers(4, size=(5, 12))
    ours = modularity(graphs, labels)
    for graph, label, value in zip(graphs, labels, ours, strict=True):
        sets = [set(np.flatnonzero(label == one)) for one in np.unique(label)]
        theirs = nx.community.modularity(nx.from_numpy_array(graph), sets, weight="weight")
        assert value == pytest.approx(theirs)


def test_the_exact_search_is_the_maximum_over_all_partitions():
    rng = RNG(1)
    everything = all_partitions(7)
    assert len(everything) == 877  # Bell number
    for common in (0.0, 0.7):
        matrix = modularity_matrix(noise_graphs(rng, 12, 7, common=common))
        brute = [quality(np.tile(one, (877, 1, 1)), everything).max() for one in matrix]
        np.testing.assert_allclose(quality(matrix, exact_labels(matrix)), brute)


def test_the_search_of_larger_graphs_comes_near_the_maximum_and_never_above():
    matrix = modularity_matrix(noise_graphs(RNG(2), 100, 10, common=0.5))
    exact, found = (quality(matrix, search(matrix)) for search in (exact_labels, searched_labels))
    assert (found <= exact + 1e-12).all()
    assert (exact - found < 1e-9).mean() > 0.85
    assert (exact - found).mean() < 1e-3


def test_renumbering_nodes_and_scaling_weights_change_nothing():
    rng = RNG(4)
    graph = noise_graphs(rng, 1, 9)[0]
    order = rng.permutation(9)
    graphs = [g[None] for g in (graph, 7.0 * graph[np.ix_(order, order)])]
    one, two = (best_partitions(modularity_matrix(g)) for g in graphs)
    assert modularity(graphs[0], one)[0] == pytest.approx(modularity(graphs[1], two)[0])
    pairs = set(zip(one[0, order].tolist(), two[0].tolist(), strict=True))
    assert len(pairs) == np.unique(one).size == np.unique(two).size


def test_a_graph_without_weight_has_no_communities():
    for n_nodes in (5, communities.EXACT_NODES + 1):
        nothing = np.zeros((2, n_nodes, n_nodes))
        assert (modularity(nothing, best_partitions(modularity_matrix(nothing))) == 0).all()


def test_silhouette_by_hand():
    # Nodes at 0, 1 | 10: a = 1, b = 10 and 9; the lone node counts 0.
    at = np.array([0.0, 1.0, 10.0])
    distance = np.abs(at[:, None] - at)
    by_hand = (9 / 10 + 8 / 9 + 0) / 3
    assert silhouette(distance[None], np.array([[0, 0, 1]]))[0] == pytest.approx(by_hand)
    for labels in ([0, 0, 0], [0, 1, 2]):
        assert silhouette(distance[None], np.array([labels]))[0] == 0


def test_the_search_is_no_worse_than_networkxs():
    graphs = noise_graphs(RNG(3), 8, 24, common=0.5)
    theirs = []
    for graph in graphs:
        net = nx.from_numpy_array(graph)
        sets = nx.community.louvain_communities(net, seed=0)
        theirs.append(nx.community.modularity(net, sets))
    found = best_partitions(modularity_matrix(graphs))
    assert modularity(graphs, found).mean() >= np.mean(theirs) - 1e-3


def test_quality_of_dealt_nodes_is_the_mean_over_permutations():
    rng = RNG(12)
    matrix = modularity_matrix(noise_graphs(rng, 1, 5))
    labels = np.array([[0, 0, 1, 1, 2]])
    orders = [list(order) for order in itertools.permutations(range(5))]
    slow = np.mean([quality(matrix, labels[:, order])[0] for order in orders])
    assert dealt_quality(matrix, labels)[0] == pytest.approx(slow)
    assert dealt_quality(matrix, np.zeros((1, 5), dtype=int))[0] == pytest.approx(0, abs=1e-12)
