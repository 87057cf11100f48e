"""Correlations from sums over blocks, and the dimensions they leave."""

from dataclasses import replace

import numpy as np
import pytest

from raretok.claims.coordination.dimension import Moments, participation_ratio
from raretok.claims.sample import KINDS
from raretok.text.rarity import RARE
from tests.synthetic import a_sample

USED = np.array([1, 4, 7, 30, 31, 80])
GROUPS = np.array([[4, 80, 1], [30, 7, 31]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blocks", [np.arange(16), np.array([3, 4, 11]), np.array([0])])
def test_correlations_over_some_blocks_equal_numpys_on_their_positions(kind, blocks):
    sample = a_sample(0, uneven=False)
    some = np.isin(np.arange(16), blocks).astype(float)
    found = Moments.of(sample, kind, USED).correlations(some, GROUPS)
    rows = (sample.stratum == KINDS[kind]) & np.isin(sample.block, blocks)
    for r, group in zip(found, GROUPS, strict=True):
        np.testing.assert_allclose(r, np.corrcoef(sample.post[rows][:, group].T), atol=1e-12)


def test_weights_count_positions():
    sample = a_sample(1)
    weight = np.random.default_rng(0).integers(1, 5, sample.weight.size)
    sample = replace(sample, weight=weight.astype(float), post=sample.post + 1e4)
    found = Moments.of(sample, "rare", USED).correlations(np.ones(16), GROUPS)
    rows = np.repeat(np.flatnonzero(sample.stratum == RARE), weight[sample.stratum == RARE])
    slow = [np.corrcoef(sample.post[rows][:, group].T) for group in GROUPS]
    np.testing.assert_allclose(found, slow, atol=1e-9)


def test_a_neuron_that_never_varies_correlates_with_nothing():
    sample = a_sample(2)
    post = sample.post.copy()
    post[:, 4] = -0.17
    post[sample.block == 0, 80] = 2.5  # varies elsewhere
    moments = Moments.of(replace(sample, post=post), "rare", USED)
    everywhere, there = (
        moments.correlations(b, GROUPS[:1])[0] for b in (np.ones(16), np.eye(16)[0])
    )
    assert (everywhere[0] == 0).all()
    np.testing.assert_array_equal(np.diag(everywhere), [0, 1, 1])
    np.testing.assert_array_equal(np.diag(there), [0, 0, 1])
    assert np.isfinite(there).all()


@pytest.mark.parametrize("r", [0.0, 0.3, 0.9, 1.0])
def test_participation_ratio_of_equal_correlations_by_hand(r):
    n = 8
    matrix = np.full((1, n, n), r)
    matrix[0][np.diag_indices(n)] = 1
    by_hand = n / (1 + (n - 1) * r**2)
    assert participation_ratio(matrix)[0] == pytest.approx(by_hand)
    spectrum = np.linalg.eigvalsh(matrix[0])
    assert spectrum.sum() ** 2 / (spectrum**2).sum() == pytest.approx(by_hand)


def test_a_constant_member_takes_one_dimension_and_a_constant_group_has_none():
    matrix = np.eye(5)[None].copy()
    matrix[0, 2, 2] = 0
    assert participation_ratio(matrix)[0] == 4
    assert np.isnan(participation_ratio(np.zeros((1, 4, 4)))[0])


def test_participation_ratio_of_unrelated_neurons_has_its_known_bias():
    """E r^2 = 1 / (T - 1) for unrelated Gaussian neurons."""
    n, n_positions, rng = 20, 60, np.random.default_rng(5)
    draws = [np.corrcoef(rng.normal(size=(n, n_positions))) for _ in range(300)]
    found = participation_ratio(np.stack(draws)).mean()
    assert found == pytest.approx(n / (1 + (n - 1) / (n_positions - 1)), rel=0.01)
