"""A group against its controls."""

import numpy as np
import pytest

from raretok.claims.compare import difference, over_controls, spread
from raretok.stats.jackknife import jackknife


def test_a_group_that_is_its_controls_differs_by_nothing():
    values = np.random.default_rng(0).normal(size=(17, 5, 1)).repeat(9, axis=2)
    found = difference(values)
    assert (found.value, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_difference_by_hand():
    values = np.random.default_rng(1).normal(size=(17, 5, 9))
    each = [np.mean(one[:, 0]) - np.mean(one[:, 1:]) for one in values]
    scatter = np.std([values[0, :, c].mean() for c in range(1, 9)], ddof=1)
    assert difference(values) == jackknife(np.array(each), scatter, 8)
    moved = difference(values + 3.0)
    assert moved.value == pytest.approx(each[0])


def test_the_spread_of_controls_holds_ninety_five_percent_of_them():
    values = np.zeros((3, 2, 102))
    values[..., 1:] = np.arange(101.0)  # the group itself is left out
    values[..., 0] = 999.0
    assert spread(values) == pytest.approx((50, 2.5, 97.5))
    assert over_controls(values)[1] == pytest.approx((0, -47.5, 47.5))
    assert over_controls(values, lambda x: 2 * x)[1][1:] == pytest.approx((-95, 95))
