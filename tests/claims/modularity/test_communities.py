"""Modularity and its maximum against by-hand values, brute force, networkx and scikit-learn."""

import itertools

import networkx as nx
import numpy as np
import pytest

from raretok.sections import communities
from raretok.sections.communities import (
    best_partitions,
    exact_labels,
    in_order,
    modularity,
    modularity_matrix,
    quality,
    searched_labels,
    silhouette,
)
from raretok.sections.graphs import correlation
from raretok.sections.louvain import adjusted_rand, consensus, louvain_labels, mean_agreement
from raretok.sections.released_modularity import (
    gap_clusters,
    released_p,
    released_score,
    signed_modularity,
    spectral_labels,
)

RNG = np.random.default_rng


def noise_graphs(rng, n_graphs, n_nodes, n_positions=200, common=0.0):
    """|r| of independent neurons, or of neurons that share one factor with random loadings."""
    factor = common * rng.normal(size=(n_graphs, n_positions, 1))
    post = rng.normal(size=(n_graphs, n_positions, n_nodes))
    post += factor * rng.normal(size=(n_graphs, 1, n_nodes))
    return np.abs(correlation(post, np.ones(n_positions)))


def two_cliques(n=4):
    side = np.repeat([0, 1], n)
    return ((side[:, None] == side) & ~np.eye(2 * n, dtype=bool)).astype(float)


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
    np.testing.assert_array_equal(best_partitions(graph).labels, split)


@pytest.mark.parametrize("resolution", [0.5, 1.0, 2.0])
def test_modularity_is_that_of_networkx(resolution):
    rng = RNG(0)
    graphs, labels = noise_graphs(rng, 5, 12), rng.integers(4, size=(5, 12))
    ours = modularity(graphs, labels, resolution)
    for graph, label, value in zip(graphs, labels, ours, strict=True):
        sets = [set(np.flatnonzero(label == one)) for one in np.unique(label)]
        theirs = nx.community.modularity(
            nx.from_numpy_array(graph), sets, weight="weight", resolution=resolution
        )
        assert value == pytest.approx(theirs)


def test_the_exact_search_is_the_maximum_over_all_partitions():
    rng = RNG(1)
    everything = all_partitions(7)
    assert len(everything) == 877  # Bell number
    for common in (0.0, 0.7):
        matrix = modularity_matrix(noise_graphs(rng, 12, 7, common=common), 1.2)
        brute = [quality(np.tile(one, (877, 1, 1)), everything).max() for one in matrix]
        np.testing.assert_allclose(quality(matrix, exact_labels(matrix)), brute)


def test_the_search_of_larger_graphs_comes_near_the_maximum_and_never_above():
    matrix = modularity_matrix(noise_graphs(RNG(2), 100, 10, common=0.5))
    exact, found = (quality(matrix, search(matrix)) for search in (exact_labels, searched_labels))
    assert (found <= exact + 1e-12).all()
    assert (exact - found < 1e-9).mean() > 0.85
    assert (exact - found).mean() < 1e-3


def test_the_search_is_no_worse_than_a_run_of_louvain():
    graphs = noise_graphs(RNG(3), 12, 24, common=0.5)
    ours = best_partitions(graphs).Q
    runs = [np.stack([louvain_labels(graph, 1.0, seed) for graph in graphs]) for seed in range(8)]
    louvain = np.array([modularity(graphs, labels) for labels in runs])
    assert ours.mean() >= louvain.mean()
    assert np.abs(ours - louvain.max(axis=0)).max() < 0.02


def test_renumbering_nodes_and_scaling_weights_change_nothing():
    rng = RNG(4)
    graph = noise_graphs(rng, 1, 9)[0]
    order = rng.permutation(9)
    one, two = (best_partitions(g[None]) for g in (graph, 7.0 * graph[np.ix_(order, order)]))
    assert one.Q[0] == pytest.approx(two.Q[0])
    assert adjusted_rand(one.labels[0][order], two.labels[0]) == pytest.approx(1.0)


def test_a_graph_without_weight_has_no_communities():
    for n_nodes in (5, communities.EXACT_NODES + 1):
        nothing = np.zeros((2, n_nodes, n_nodes))
        assert (best_partitions(nothing).Q == 0).all()
        assert np.isfinite(released_score(nothing).Q_signed).all()
    assert consensus(np.zeros((5, 5))).Q == 0


def test_labels_are_numbered_by_first_node():
    labels = np.array([[3, 3, 1, 0, 1]])
    np.testing.assert_array_equal(in_order(labels), [[0, 0, 1, 2, 1]])


def test_silhouette_by_hand_and_by_scikit_learn():
    # Nodes at 0, 1 | 10: a = 1, b = 10 and 9; the lone node counts 0.
    at = np.array([0.0, 1.0, 10.0])
    distance = np.abs(at[:, None] - at)
    by_hand = (9 / 10 + 8 / 9 + 0) / 3
    assert silhouette(distance[None], np.array([[0, 0, 1]]))[0] == pytest.approx(by_hand)
    assert silhouette(distance[None], np.array([[0, 0, 0]]))[0] == 0
    import sklearn.metrics as metrics

    rng = RNG(5)
    graphs, labels = noise_graphs(rng, 6, 14), rng.integers(4, size=(6, 14))
    distances = (1 - graphs) * (1 - np.eye(14))
    theirs = [
        metrics.silhouette_score(d, label, metric="precomputed")
        for d, label in zip(distances, labels, strict=True)
    ]
    np.testing.assert_allclose(silhouette(distances, labels), theirs)


def test_adjusted_rand_by_hand_and_by_scikit_learn():
    one, two = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert adjusted_rand(one, 1 - one) == 1
    assert adjusted_rand(one, two) == pytest.approx(-0.5)
    import sklearn.metrics as metrics

    rng = RNG(6)
    for _ in range(5):
        one, two = rng.integers(4, size=(2, 20))
        assert adjusted_rand(one, two) == pytest.approx(metrics.adjusted_rand_score(one, two))


def test_mean_agreement_counts_every_pair_of_runs():
    runs = RNG(11).integers(3, size=(7, 9))
    runs[4] = 2 - runs[0]
    pairs = [adjusted_rand(runs[i], runs[j]) for i in range(7) for j in range(i)]
    assert mean_agreement(runs) == pytest.approx(np.mean(pairs))
    assert mean_agreement(runs[:1]) == 1


def test_consensus_of_two_cliques_is_stable_and_of_noise_less_so():
    clear = consensus(two_cliques() + 0.01 * (1 - np.eye(8)), n_seeds=10)
    assert clear.stability == 1
    np.testing.assert_array_equal(clear.labels, np.repeat([0, 1], 4))
    assert pytest.approx(clear.best_Q) == clear.Q
    noise = consensus(noise_graphs(RNG(7), 1, 24)[0], n_seeds=10)
    assert noise.stability < 0.9
    assert noise.best_Q + 1e-12 >= noise.Q


# Reference-method.md 7.7 measured, for |r| graphs of independent neurons at several lengths:
NOISE_FLOOR = {30: (0.060, 0.067, 0.084, 0.088), 50: (0.057, 0.060, 0.072, 0.076)}
NOISE_FLOOR[100] = (0.045, 0.049, 0.055, 0.058)


@pytest.mark.parametrize("n_nodes", [30, 50, 100])
def test_independent_neurons_give_the_published_modularity(n_nodes):
    """The paper's Q of 0.05 to 0.11 is what neurons without any relation have."""
    graphs = noise_graphs(RNG(8), 1500 // n_nodes, n_nodes, n_positions=400)
    labels = spectral_labels(graphs, gap_clusters(graphs), rng=RNG(0))
    low, high, louvain_low, louvain_high = NOISE_FLOOR[n_nodes]
    assert low - 0.003 < modularity(graphs, labels).mean() < high + 0.003
    few = graphs[:6]
    louvain = modularity(few, np.stack([louvain_labels(graph, 1.0, 0) for graph in few])).mean()
    assert louvain_low - 0.004 < louvain < louvain_high + 0.004


def test_spectral_clusters_are_those_of_scikit_learn():
    import sklearn.cluster as cluster

    rng = RNG(9)
    side = np.repeat([0, 1, 2], 5)
    post = rng.normal(size=(300, 3))[:, side] + rng.normal(size=(300, 15))
    graph = np.abs(correlation(post, np.ones(300)))
    ours = spectral_labels(graph[None], np.array([3]), rng=rng)[0]
    theirs = cluster.SpectralClustering(3, affinity="precomputed", random_state=0).fit(graph)
    assert adjusted_rand(ours, theirs.labels_) == 1
    assert adjusted_rand(ours, side) == 1


def test_the_released_eigengap_takes_the_smallest_gap():
    values = np.array([9.0, 5.0, 4.9, 1.0, 0.0])  # the gap between 5 and 4.9 is the smallest
    basis = np.linalg.qr(RNG(10).normal(size=(5, 5)))[0]
    assert gap_clusters((basis * values @ basis.T)[None])[0] == 3


def test_signed_modularity_by_hand():
    """Two cliques of positive links, negative links between them: both parts agree."""
    r = two_cliques(2) * 2 - 1 + np.eye(4)
    labels = np.array([[0, 0, 1, 1]])
    # Positive part: 0.5. Negative part: no link inside, so minus the squared shares: -0.5.
    assert signed_modularity(r[None], labels)[0] == pytest.approx(1.0)
    assert signed_modularity(np.abs(r)[None], labels)[0] == pytest.approx(1 / 3 - 1 / 2)


def test_the_released_test_has_one_degree_of_freedom():
    # t = (3 - 1) / (1 / sqrt 2), p of a Cauchy variable doubled twice.
    t = 2 * np.sqrt(2)
    p = 2 * 2 * (0.5 - np.arctan(t) / np.pi)
    assert released_p(3.0, np.array([0.0, 2.0])) == pytest.approx(p)
    assert released_p(1.0, np.array([1.0, 1.0])) == 1
