"""What replaces an activation, and from where it may come."""

import numpy as np
import pytest

from raretok.ablation.interventions import check_mode, donors
from raretok.errors import UserError

STRATUM = np.array([0, 1, 0, 2, 1, 0, 2, 0])


def test_a_donor_is_of_the_class_and_never_the_position_itself():
    for seed in range(50):
        donor = donors(STRATUM, np.random.default_rng(seed))
        assert (STRATUM[donor] == STRATUM).all()
        assert (donor != np.arange(8)).all()


def test_every_other_position_of_a_class_is_drawn_equally_often():
    stratum, rng = np.zeros(4, dtype=int), np.random.default_rng(0)
    drawn = np.stack([donors(stratum, rng) for _ in range(3000)])
    for position in range(4):
        counts = np.bincount(drawn[:, position], minlength=4)
        assert counts[position] == 0
        # 1,000 expected of each, standard deviation 26
        assert (abs(np.delete(counts, position) - 1000) < 110).all()


def test_equal_generators_give_equal_draws():
    first, again, other = (donors(STRATUM, np.random.default_rng(s)) for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("mode", "stratum", "message"),
    [
        ("median", STRATUM, "unknown ablation mode 'median': choose one of mean, zero, resa"),
        ("resample", np.array([0, 0, 1]), "class rare has 1 position: score more positions"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(mode, stratum, message):
    with pytest.raises(UserError, match=message) as caught:
        check_mode(mode, stratum)
    assert "\n" not in str(caught.value)
