"""Controls: never a member, none twice in a draw, near the neuron they stand for."""

import numpy as np
import pytest

from raretok.errors import NotTestableError
from raretok.stats.matching import (
    NEIGHBOURS,
    POOL,
    TRAITS,
    draw_controls,
    imbalance,
    neuron_traits,
)

RNG = np.random.default_rng
GROUPS = np.array([[[3, 8, 50], [3, 8, 51]], [[3, 8, 50], [3, 9, 50]]])  # folds share most
MEMBERS = np.unique(GROUPS)


def drawn(matched, seed=0, n=200, n_draws=60):
    traits = RNG(1).normal(size=(n, len(TRAITS)))
    return traits, draw_controls(GROUPS, traits, n_draws, matched=matched, rng=RNG(seed))


@pytest.mark.parametrize("matched", [True, False])
def test_controls_are_no_members_and_stand_once_in_a_draw(matched):
    _, controls = drawn(matched)
    assert (controls[np.setdiff1d(np.arange(200), MEMBERS)] == -1).all()
    assert not np.isin(controls[MEMBERS], MEMBERS).any()
    assert (controls[MEMBERS] >= 0).all()
    assert all(np.unique(draw).size == MEMBERS.size for draw in controls[MEMBERS].T)
    again, other = drawn(matched)[1], drawn(matched, seed=1)[1]
    np.testing.assert_array_equal(controls, again)
    assert (controls != other).any()


def test_matched_controls_are_among_the_nearest_and_all_of_those_are_used():
    traits, controls = drawn(True)
    for member in MEMBERS:
        distance = np.linalg.norm(traits - traits[member], axis=1)
        distance[MEMBERS] = np.inf
        # The first to choose has its ten nearest; the last may have lost some to the others.
        allowed = np.argsort(distance)[: NEIGHBOURS + MEMBERS.size - 1]
        assert np.isin(controls[member], allowed).all()
    often = np.unique(controls[3])
    distance = np.linalg.norm(traits - traits[3], axis=1)
    distance[MEMBERS] = np.inf
    np.testing.assert_array_equal(often, np.sort(np.argsort(distance)[:NEIGHBOURS]))


def test_matched_controls_leave_less_imbalance_than_any_neurons():
    traits = RNG(2).normal(size=(400, 4))
    groups = np.argsort(-traits[:, 0])[20:26][None]  # all of them high in the first trait
    found = {}
    for matched in (True, False):
        controls = draw_controls(groups, traits, 50, matched=matched, rng=RNG(0))
        found[matched] = imbalance(traits, groups, controls)
        slow = np.mean([traits[m] - traits[c] for m in groups[0] for c in controls[m]], axis=0)
        np.testing.assert_allclose(found[matched], slow)
    assert found[False][0] > 1
    assert np.abs(found[True]).max() < 0.4


def test_unmatched_controls_come_from_one_pool():
    traits = np.zeros((2_000, 4))
    controls = draw_controls(GROUPS, traits, 400, matched=False, rng=RNG(3))[MEMBERS]
    assert 0.9 * POOL < np.unique(controls).size <= POOL


def test_a_layer_with_too_few_other_neurons_is_refused():
    traits = np.zeros((14, 4))
    groups = np.array([[0, 1, 2, 3, 4]])
    with pytest.raises(NotTestableError, match="5 of 14 neurons are in a group at times"):
        draw_controls(groups, traits, 3, matched=False, rng=RNG(0))
    draw_controls(groups, np.zeros((15, 4)), 3, matched=True, rng=RNG(0))


def test_traits_are_in_standard_deviations_over_the_layer():
    rng = RNG(4)
    post, W_out = rng.normal(1, 2, size=(50, 30)), rng.normal(size=(30, 8))
    found = neuron_traits(post, W_out)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.std(axis=0), 1)
    slow = np.log([np.linalg.norm(row) for row in W_out])
    np.testing.assert_allclose(found[:, 3], (slow - slow.mean()) / slow.std())
    rate = np.array([np.mean(column > 0) for column in post.T])
    np.testing.assert_allclose(found[:, 2], (rate - rate.mean()) / rate.std())


def test_traits_of_a_silent_neuron_and_of_a_trait_all_share_are_finite():
    post = np.abs(RNG(5).normal(size=(50, 30)))  # all always fire: one firing rate
    post[:, 4] = 1e-9
    found = neuron_traits(post, np.ones((30, 8)))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 2:], 0, atol=1e-9)
