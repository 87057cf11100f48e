"""Rank agreement: scipy's value, by-hand recall, and what a perfect and a useless screen give."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from raretok.ablation.screen import rank_agreement, recall, spearman
from raretok.stats.documents import DocumentSums, resample_documents


def test_spearman_is_that_of_scipy_row_by_row():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 20)).round(1)  # ties too
    expected = [spearmanr(*pair).statistic for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(a, b), expected)


def test_recall_by_hand():
    exact = np.arange(20.0)[None]  # the largest two are 18 and 19
    half = exact.copy()
    half[0, [3, 18]] = half[0, [18, 3]]
    assert recall(exact, exact)[0] == 1
    assert recall(half, exact)[0] == 0.5
    assert recall(-exact, exact)[0] == 0


@pytest.fixture
def sums():
    """Ten neurons with known effects, the same in each of 30 documents but for noise."""
    rng = np.random.default_rng(0)
    value = np.linspace(-1, 2, 10) + rng.normal(scale=0.05, size=(30, 10))
    return DocumentSums(value, np.ones(30))


@pytest.mark.parametrize("resample_neurons", [False, True])
def test_a_perfect_screen_agrees_and_one_without_sign_only_in_size(sums, resample_neurons):
    counts = resample_documents(30, 200, rng=np.random.default_rng(1))
    rng = np.random.default_rng(2) if resample_neurons else None
    perfect = rank_agreement(sums, sums, counts, rng=rng)
    np.testing.assert_allclose(perfect, 1)
    unsigned = DocumentSums(-sums.value, sums.weight)
    (value, sizes, found), low, high = rank_agreement(unsigned, sums, counts, rng=rng)
    assert value == low[0] == high[0] == -1
    assert sizes == found == 1


def test_resampling_neurons_widens_the_interval(sums):
    noisy = DocumentSums(
        sums.value + np.random.default_rng(3).normal(scale=0.7, size=10), sums.weight
    )
    counts = resample_documents(30, 400, rng=np.random.default_rng(1))
    documents = rank_agreement(noisy, sums, counts)
    both = rank_agreement(noisy, sums, counts, rng=np.random.default_rng(2))
    np.testing.assert_array_equal(documents[0], both[0])
    assert both[2, 0] - both[1, 0] > documents[2, 0] - documents[1, 0]


def test_resamples_without_the_class_are_left_out(sums):
    weight = np.zeros(30)
    weight[0] = 1
    rare = DocumentSums(sums.value * weight[:, None], weight)
    counts = resample_documents(30, 100, rng=np.random.default_rng(1))
    np.testing.assert_allclose(rank_agreement(rare, rare, counts), 1)
