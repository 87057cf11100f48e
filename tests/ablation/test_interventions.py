"""What replaces an activation, and from where it may come."""

import numpy as np
import pytest
import torch

from raretok.ablation.interventions import check_mode, donors, replacement
from raretok.errors import UserError

STRATUM = np.array([0, 1, 0, 2, 1, 0, 2, 0])


def test_mean_and_zero_are_one_value_a_neuron():
    post, mean = torch.randn(8, 5), torch.arange(5.0)
    assert torch.equal(replacement("mean", post, mean, STRATUM), mean)
    assert torch.equal(replacement("zero", post, mean, STRATUM), torch.zeros(5))


def test_resample_takes_whole_vectors_of_the_class_and_never_the_position_itself():
    post = torch.arange(40.0).view(8, 5)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        found = replacement("resample", post, post[0], STRATUM, rng)
        donor = (found[:, 0] / 5).long()
        assert torch.equal(found, post[donor])
        assert (STRATUM[donor] == STRATUM).all()
        assert (donor.numpy() != np.arange(8)).all()


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
    ("mode", "stratum", "rng", "message"),
    [
        ("median", STRATUM, None, "unknown ablation mode 'median': choose one of mean, zero, resa"),
        ("resample", STRATUM, None, "draws at random, got no rng: give a numpy Generator"),
        (
            "resample",
            np.array([0, 0, 1]),
            np.random.default_rng(0),
            "class rare has 1 position: score more positions",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(mode, stratum, rng, message):
    with pytest.raises(UserError, match=message) as caught:
        check_mode(mode, stratum, rng)
    assert "\n" not in str(caught.value)
