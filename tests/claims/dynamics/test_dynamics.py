"""A group that comes to be in training: traced back and chosen anew, in planted histories."""

from dataclasses import replace

import numpy as np
import pytest

from raretok.claims.dynamics import figures
from raretok.claims.dynamics.estimate import QUANTITIES, history, influence, reached, with_group_of
from raretok.claims.style import panels
from raretok.errors import UserError
from tests.synthetic import SIZE, a_sample, power_law


def at(strength: float, seed: int = 0, first: int = 100):
    """A step at which the last group (neurons from `first` on) has some of its influence."""
    effects = power_law()
    effects[first : first + SIZE] = 0.2 * strength
    return a_sample(seed, rare=effects)


@pytest.fixture(scope="module")
def found():
    return history({0: at(0.0), 16: at(0.3), 128: at(0.8), 1024: at(1.0)}, {64: "not measured"})


def test_the_traced_group_has_the_influence_planted_at_each_step(found):
    traced = found.found["influence of the group"]["traced back"]
    np.testing.assert_allclose([one.value for one in traced], [0.0, 0.06, 0.16, 0.2], atol=0.005)
    assert all(one.low <= one.value <= one.high for one in traced)
    assert reached(found) == 128
    assert reached(found, 0.2) == 16


def test_a_group_chosen_anew_is_the_strongest_there_is(found):
    traced, anew = found.found["influence of the group"].values()
    assert anew[0].value > traced[0].value + 0.005
    assert anew[-1].value == traced[-1].value


def test_the_traced_sample_differs_in_its_group_alone():
    last, early = at(1.0), at(0.0, seed=0)
    traced = with_group_of(early, last)
    np.testing.assert_array_equal(traced.groups, last.groups)
    np.testing.assert_array_equal(traced.delta_loss, early.delta_loss)
    assert with_group_of(early, last) is traced
    assert influence(early).value != influence(traced).value


def test_other_positions_are_refused():
    other = replace(at(1.0), document=at(1.0).document + 1)
    with pytest.raises(UserError, match="checkpoints were measured at other positions"):
        with_group_of(at(0.0), other)


def test_no_checkpoint_is_one_line():
    with pytest.raises(UserError, match="no checkpoint was measured"):
        history({})


def test_a_gap_is_a_row_with_its_reason_and_every_quantity_is_drawn(found):
    table = figures.course_table(found, "traced back")
    assert list(table.index) == [0, 16, 64, 128, 1024]
    assert table.loc[64].iloc[0] == "gap: not measured"
    _, axes = panels(2, 3)
    for ax, name in zip(axes, QUANTITIES, strict=False):
        figures.course(ax, found, name)
        assert ax.lines
    assert figures.said(found, "tiny")["last"] == "1,024"
