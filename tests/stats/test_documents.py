import numpy as np
import pytest

from raretok.stats.documents import (
    benjamini_hochberg,
    bootstrap_means,
    critical_value,
    document_halves,
    document_sums,
    interval,
    monte_carlo_p,
    null_test,
    percentile_interval,
    permute_within,
    power_of_shift,
    ratio_mean,
    resample_documents,
    smallest_effect,
)

RNG = np.random.default_rng


def positions(rng, n=300, n_documents=40, n_neurons=5):
    document = np.sort(rng.integers(n_documents, size=n))
    return rng.normal(size=(n, n_neurons)), document, rng.uniform(0.5, 4, size=n)




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








def test_permutation_stays_within_documents_and_reaches_every_order():
    rng = RNG(3)
    document = np.array([7, 2, 7, 2, 7])
    orders = {tuple(permute_within(document, rng=rng).tolist()) for _ in range(200)}
    assert len(orders) == 12
    assert all(np.array_equal(document[list(order)], document) for order in orders)
