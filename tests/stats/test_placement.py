"""What is left of "spatial": by-hand values and chance levels."""

import numpy as np
import pytest
from numpy.random import default_rng as RNG

from raretok.stats import placement


def test_index_distance_by_hand_and_its_mean_over_random_groups():
    assert placement.index_distance(np.array([[0, 1, 5]]))[0] == pytest.approx((1 + 5 + 4) / 3)
    rng = RNG(0)
    groups = np.stack([rng.choice(60, 8, replace=False) for _ in range(3_000)])
    found = placement.index_distance(groups)
    expected = (60 + 1) / 3
    assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(found.size)
    every_pair = np.array([[i, j] for i in range(60) for j in range(i)])
    assert placement.index_distance(every_pair).mean() == pytest.approx(expected)


def test_absolute_cosine_by_hand():
    rows = np.array([[1.0, 0.0], [0.0, -2.0], [3.0, 3.0], [0.0, 0.0]])
    found = placement.absolute_cosine(rows, np.array([[0, 1, 2], [0, 2, 3]]))
    root = np.sqrt(0.5)
    np.testing.assert_allclose(found, [2 * root / 3, root / 3])


def test_same_head_counts_pairs():
    cosine = np.eye(3)[[0, 0, 1, 2]]
    assert placement.same_head(cosine, np.array([[0, 1, 2, 3]]))[0] == pytest.approx(1 / 6)
