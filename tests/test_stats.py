import numpy as np
import pytest

from raretok.stats import (
    benjamini_hochberg,
    bootstrap_means,
    document_halves,
    document_sums,
    interval,
    monte_carlo_p,
    percentile_interval,
    permute_within,
    ratio_mean,
    resample_documents,
)

RNG = np.random.default_rng


def positions(rng, n=300, n_documents=40, n_neurons=5):
    document = np.sort(rng.integers(n_documents, size=n))
    return rng.normal(size=(n, n_neurons)), document, rng.uniform(0.5, 4, size=n)


def test_ratio_mean_by_hand_and_refuses_empty_weights():
    values = np.array([[1.0, 10.0], [4.0, 40.0]])
    np.testing.assert_allclose(ratio_mean(values, np.array([3.0, 1.0])), [1.75, 17.5])
    with pytest.raises(ValueError, match="positive sum"):
        ratio_mean(values, np.zeros(2))


def test_bootstrap_means_equal_resampling_documents_one_by_one():
    rng = RNG(0)
    values, document, weight = positions(rng)
    counts = resample_documents(41, 20, rng=rng)
    means = bootstrap_means(document_sums(values, document, weight, 41), counts)
    for row, count in zip(means, counts, strict=True):
        repeated = np.concatenate(
            [np.flatnonzero(document == d).repeat(int(c)) for d, c in enumerate(count)]
        )
        np.testing.assert_allclose(row, ratio_mean(values[repeated], weight[repeated]))


def test_bootstrap_interval_covers_when_documents_share_a_topic():
    """95 % intervals of a mean whose positions are strongly correlated within documents."""
    rng, covered = RNG(1), 0
    document = np.repeat(np.arange(60), 10)
    for _ in range(200):
        values = rng.normal(size=60).repeat(10)[:, None] + 0.1 * rng.normal(size=(600, 1))
        sums = document_sums(values, document, np.ones(600))
        low, high = percentile_interval(bootstrap_means(sums, resample_documents(60, 200, rng=rng)))
        covered += low[0] <= 0 <= high[0]
    # Binomial(200, 0.93) is below 176 with probability 0.006; resampling positions covers 50 %.
    assert covered >= 176


def test_a_resample_without_the_class_is_left_out_of_the_interval():
    sums = document_sums(np.ones((2, 1)), np.array([0, 0]), np.ones(2), n_documents=2)
    means = bootstrap_means(sums, np.array([[2.0, 0.0], [0.0, 2.0]]))
    assert np.isnan(means[1]).all()
    assert percentile_interval(means)[0] == 1
    with pytest.raises(ValueError, match="none of the bootstrap"):
        percentile_interval(means[1:])


def test_halves_part_documents_evenly_and_keep_them_whole():
    rng = RNG(2)
    _, document, _ = positions(rng, n=2000, n_documents=101)
    first = document_halves(document, rng=rng)
    assert not set(document[first]) & set(document[~first])
    assert abs(len(set(document[first])) - len(set(document[~first]))) <= 1
    assert abs(first.mean() - 0.5) < 0.02
    assert not np.array_equal(first, document_halves(document, rng=rng))
    with pytest.raises(ValueError, match="at least 2 documents"):
        document_halves(np.zeros(5, dtype=int), rng=rng)


def test_permutation_stays_within_documents_and_reaches_every_order():
    rng = RNG(3)
    document = np.array([7, 2, 7, 2, 7])
    orders = {tuple(permute_within(document, rng=rng).tolist()) for _ in range(200)}
    assert len(orders) == 12
    assert all(np.array_equal(document[list(order)], document) for order in orders)


def test_monte_carlo_p_counts_ties_and_never_reaches_zero():
    null = np.array([1.0, 2.0, 3.0, 4.0])
    assert monte_carlo_p(4.0, null) == pytest.approx(2 / 5)
    assert monte_carlo_p(9.0, null) == pytest.approx(1 / 5)
    np.testing.assert_allclose(monte_carlo_p(np.array([0.0, 2.5]), null), [1, 3 / 5])


def test_benjamini_hochberg_by_hand():
    np.testing.assert_allclose(benjamini_hochberg(np.array([0.01, 0.04, 0.03])), [0.03, 0.04, 0.04])


def test_interval_of_a_known_law():
    found = interval(RNG(4).normal(size=100_000), level=0.9)
    np.testing.assert_allclose([found.low, found.high], [-1.645, 1.645], atol=0.03)
    assert found.level == 0.9
