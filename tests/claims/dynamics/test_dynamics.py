"""A group that comes to be in training: traced back and chosen anew, in planted histories."""

from dataclasses import replace

import numpy as np
import pytest

from raretok.claims.dynamics import figures
from raretok.claims.dynamics.estimate import (
    ESTIMANDS,
    QUANTITIES,
    findings,
    growing_spectra,
    history,
    influence,
    largest_step,
    reached,
    with_group_of,
)
from raretok.claims.style import panels
from raretok.errors import NotTestableError, UserError
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
    _, axes = panels(5)
    for ax, name in zip(axes, QUANTITIES, strict=True):
        figures.course(ax, found, name)
        assert ax.lines


def test_a_group_that_does_nothing_in_the_end_reaches_nothing(found):
    falling = [*reversed(found.found["influence of the group"]["traced back"])]
    vain = replace(found, found={"influence of the group": {"traced back": [*falling, None]}})
    with pytest.raises(NotTestableError, match="no influence at the last step"):
        reached(vain)


def test_the_largest_step_is_the_one_planted():
    gradual = largest_step({0: at(0.0), 16: at(0.3), 128: at(0.7), 1024: at(1.0)})
    assert gradual.low <= 0.4 <= gradual.high
    assert gradual.high - gradual.low < 0.1
    sudden = largest_step({0: at(0.0), 16: at(0.05), 128: at(0.95), 1024: at(1.0)})
    assert sudden.low <= 0.9 <= sudden.high


def test_the_step_is_chosen_on_other_documents_than_it_is_measured_on():
    """Where nothing rises from step to step, the largest of many noisy rises is none."""
    flat = {step: at(1.0, seed=0) for step in (0, 1, 2, 4)}
    noisy = {
        step: replace(one, delta_loss=one.delta_loss + 0.2 * noise)
        for (step, one), noise in zip(
            flat.items(),
            np.random.default_rng(0).normal(size=(4, *at(1.0).delta_loss.shape)),
            strict=True,
        )
    }
    found = largest_step(noisy)
    assert found.low <= 0 <= found.high


def test_spectra_that_grow_are_found_and_those_that_stay_are_not():
    last, n = at(1.0), 100
    alike = last.W_in.copy()
    alike[n : n + SIZE] += 3 * last.W_in[n]
    grown = growing_spectra({0: at(0.0), 16: at(0.5), 1024: replace(last, W_in=alike)})
    assert grown.low > 0
    same = growing_spectra({0: at(0.0), 16: at(0.5), 1024: last})
    assert same.value == pytest.approx(0, abs=1e-9)


def test_two_checkpoints_have_no_largest_step_and_the_rest_goes_on():
    with pytest.raises(NotTestableError, match="needs 3 checkpoints, got 2"):
        largest_step({0: at(0.0), 16: at(1.0)})
    found = list(findings({0: at(0.0), 16: at(1.0)}))
    assert [(one.claim, one.estimand) for one in found] == list(ESTIMANDS)
    assert found[0].reason == "a largest step needs 3 checkpoints, got 2"
    assert found[1].estimate is not None
