"""Joint against summed effects: by hand, and on worlds that back each other up or saturate."""

import numpy as np
import pytest

from raretok.groups import Fold
from raretok.sections.together import membership, together
from raretok.stats import resample_documents

N, NEURONS = 60, 20


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    delta = rng.normal(0.01, 0.001, (N, NEURONS)).astype(np.float32)
    document = np.arange(N) // 6
    controls = np.stack([rng.choice(np.arange(3, NEURONS), 3, replace=False) for _ in range(80)])
    fold = Fold(np.arange(3), controls, controls, np.arange(N) % 2 == 0)
    return delta, document, fold


def measured(world, joint):
    delta, document, fold = world
    counts = resample_documents(10, 200, rng=np.random.default_rng(1))
    rows, weight = np.arange(N) >= 6, np.linspace(1, 2, N)
    return together(
        [fold], delta, weight, document, rows, joint(delta), n_controls=60, counts=counts
    )


def additive(delta):
    return lambda chosen, groups: delta[chosen] @ groups.T.astype(np.float32)


def test_effects_that_add_up_show_no_excess(world):
    found = measured(world, additive)
    assert found.joint == pytest.approx(found.summed, rel=1e-6)
    assert found.joint_null == pytest.approx(found.summed_null, rel=1e-6)
    assert abs(found.test.value) < 1e-7


def test_the_means_are_those_of_the_measured_rows(world):
    delta, _, fold = world
    found, rows = measured(world, additive), (np.arange(N) >= 6) & fold.measured
    weight = np.linspace(1, 2, N)[rows]
    by_hand = np.average(delta[rows][:, :3].sum(axis=1), weights=weight)
    assert found.joint == pytest.approx(by_hand, rel=1e-5)
    assert found.interval.low < found.joint < found.interval.high
    assert found.joint_null.shape == (60,)


def test_a_group_that_backs_itself_up_is_found(world):
    def backed_up(delta):
        plain = additive(delta)
        own = np.arange(NEURONS) < 3
        return lambda chosen, groups: plain(chosen, groups) * np.where((groups == own).all(1), 2, 1)

    found = measured(world, backed_up)
    assert found.joint == pytest.approx(2 * found.summed, rel=1e-6)
    assert found.test.p < 0.05


def test_membership_marks_members_only():
    marks = membership(np.array([[0, 2], [3, 1]]), 5)
    np.testing.assert_array_equal(marks, [[1, 0, 1, 0, 0], [0, 1, 0, 1, 0]])
