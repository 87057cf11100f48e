"""Documents as the unit that is resampled, or that labels are exchanged in."""

import numpy as np
import pytest

from raretok.stats.documents import (
    DocumentSums,
    bootstrap_means,
    permute_within,
    resample_documents,
)

RNG = np.random.default_rng


def test_bootstrap_means_equal_resampling_documents_one_by_one():
    rng = RNG(0)
    document = np.sort(rng.integers(40, size=300))
    values, weight = rng.normal(size=(300, 5)), rng.uniform(0.5, 4, size=300)
    counts = resample_documents(41, 20, rng=rng)
    mine = document == np.arange(41)[:, None]  # of one document there is no position
    sums = DocumentSums((mine * weight) @ values, mine @ weight)
    means = bootstrap_means(sums, counts)
    for row, count in zip(means, counts, strict=True):
        repeated = np.concatenate(
            [np.flatnonzero(document == d).repeat(int(c)) for d, c in enumerate(count)]
        )
        slow = np.average(values[repeated], axis=0, weights=weight[repeated])
        np.testing.assert_allclose(row, slow)


def test_a_resample_without_the_class_has_no_mean():
    sums = DocumentSums(np.array([[2.0], [0.0]]), np.array([2.0, 0.0]))
    means = bootstrap_means(sums, np.array([[2.0, 0.0], [0.0, 2.0]]))
    assert means[0] == 1
    assert np.isnan(means[1]).all()


def test_one_document_is_too_few_to_resample():
    with pytest.raises(ValueError, match="at least 2"):
        resample_documents(1, 5, rng=RNG(1))


def test_permutation_stays_within_documents_and_reaches_every_order():
    rng = RNG(3)
    document = np.array([7, 2, 7, 2, 7])
    orders = {tuple(permute_within(document, rng=rng).tolist()) for _ in range(200)}
    assert len(orders) == 12
    assert all(np.array_equal(document[list(order)], document) for order in orders)
