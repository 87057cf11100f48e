"""Held-out modularity: about 0 without modules whatever else neurons do, clear with them."""

from dataclasses import replace

import numpy as np
import pytest

from raretok.claims.compare import difference
from raretok.claims.modularity.communities import best_partitions, modularity_matrix, quality
from raretok.claims.modularity.estimate import (
    CONTROLS,
    findings,
    halved,
    held_out_Q,
    modularity,
)
from raretok.text.rarity import RARE
from tests.synthetic import NEURONS, SIZE, a_sample, clear_group

SIDE = np.arange(SIZE) % 2


def graph(post):
    return (np.abs(np.corrcoef(post.T)) * (1 - np.eye(post.shape[1])))[None]


def activity(rng, n_factors, n=10, n_positions=200):
    post = rng.normal(size=(n_positions, n))
    if n_factors:
        post += rng.normal(size=(n_positions, n_factors))[:, np.arange(n) % n_factors]
    return post


@pytest.mark.parametrize(
    ("n_factors", "low", "high"), [(0, -0.01, 0.01), (1, -0.01, 0.01), (2, 0.25, 0.5)]
)
def test_held_out_Q_has_no_floor_and_finds_modules(n_factors, low, high):
    rng = np.random.default_rng(0)
    one, two = (
        np.concatenate([graph(activity(rng, n_factors)) for _ in range(60)]) for _ in range(2)
    )
    assert low < held_out_Q(one, two).mean() < high
    # What the largest Q of any partition is for neurons without modules.
    matrix = modularity_matrix(one)
    assert n_factors == 1 or quality(matrix, best_partitions(matrix)).mean() > 0.05


def test_held_out_Q_of_two_cliques_by_hand():
    clear = (SIDE[:, None] == SIDE) * (1.0 - np.eye(SIZE))
    # Q is 1/2; dealt anew a pair is together by 2/5, each node with itself:
    dealt = -SIZE / SIZE**2 * (1 - 2 / 5)
    assert held_out_Q(clear[None], clear[None])[0] == pytest.approx(1 / 2 - dealt)
    nothing = np.ones((1, SIZE, SIZE)) - np.eye(SIZE)
    assert held_out_Q(clear[None], nothing)[0] == pytest.approx(0, abs=1e-12)
    assert held_out_Q(0 * nothing, nothing)[0] == pytest.approx(0, abs=1e-12)


def test_halves_take_the_blocks_in_use_in_turn():
    one, two = halved(np.array([0.0, 1, 1, 0, 1, 1, 1]))
    np.testing.assert_array_equal(one, [0, 1, 0, 0, 1, 0, 1])
    np.testing.assert_array_equal(two, [0, 0, 1, 0, 0, 1, 0])


def planted(seed, n_factors, protocol="corrected"):
    sample = a_sample(seed, protocol, rare=clear_group(), uneven=False, per_class=20)
    post = sample.post.copy()
    rows = sample.stratum == RARE
    if n_factors:
        cause = np.random.default_rng(seed).normal(size=(rows.sum(), n_factors))
        post[rows, :SIZE] += 2 * post[:, :SIZE].std(axis=0) * cause[:, np.arange(SIZE) % n_factors]
    return replace(sample, post=post)


@pytest.mark.parametrize("n_factors", [0, 1])
def test_groups_without_modules_are_no_more_modular_than_controls(n_factors):
    (found,) = findings(planted(1, n_factors))
    assert found.estimate.low < 0.02
    assert abs(found.estimate.value) < 0.05
    assert found.controls[1] < 0 < found.controls[2]


def test_two_modules_are_found_in_their_class():
    sample = planted(2, 2)
    (found,) = findings(sample)
    assert found.estimate.low > 0.1
    assert difference(modularity(sample, "common")).low < 0.05


def test_Q_of_one_fold_is_that_of_its_positions():
    sample = planted(3, 2)
    values = modularity(sample)
    assert values.shape == (17, 20, 1 + CONTROLS)
    for g, split, one in ((0, 0, 0), (6, 11, 3)):
        graphs = []
        for part in halved(sample.folds[1][g, split]):
            rows = (sample.stratum == RARE) & (part[sample.block] > 0)
            graphs.append(graph(sample.post[rows][:, sample.with_controls()[g, split, one]]))
        slow = (held_out_Q(*graphs) + held_out_Q(*graphs[::-1])) / 2
        assert values[g, split, one] == pytest.approx(slow[0])


def test_scale_and_shift_of_activations_change_no_modularity():
    one = planted(4, 2, "text")
    rng = np.random.default_rng(0)
    two = replace(one, post=one.post * rng.uniform(0.1, 9, NEURONS) + rng.normal(size=NEURONS))
    np.testing.assert_allclose(modularity(one), modularity(two), atol=1e-9)


def test_too_few_documents_are_told_as_the_reason():
    sample = a_sample(5)
    stratum = np.where(sample.block > 0, 0, sample.stratum)
    (found,) = findings(replace(sample, stratum=stratum))
    assert found.estimate is None
    assert "no rare position" in found.reason
