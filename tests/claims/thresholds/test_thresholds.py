"""Other thresholds and a gradient in frequency: identities, slow loops and planted worlds."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from raretok.claims.dynamics.estimate import influence
from raretok.claims.regimes import estimate as regimes
from raretok.claims.sample import Sample
from raretok.claims.study import Study
from raretok.claims.style import interval_text, panels
from raretok.claims.thresholds import estimate, figures, gradient
from raretok.errors import NotTestableError
from raretok.measure.parameters import PageParameters
from raretok.stats.jackknife import Estimate
from raretok.text.rarity import RARE, classes_of
from tests.synthetic import SIZE, a_sample, clear_group

TYPES, ALL = 200, np.ones(200, dtype=bool)
COUNTS = np.round(50_000 / np.arange(1.0, TYPES + 1)).astype(int)


def a_world(above=1.0, below=1.0, scatter=0.0, seed=0) -> SimpleNamespace:
    """Effects that fall by a straight line in log frequency, `above` it on rare targets.

    `below`: times as large again on the rarest 5 % of types; `scatter`: of each neuron's own
    factor on rare targets about 1.
    """
    rng = np.random.default_rng(seed)
    base = a_sample(seed, rare=np.zeros(240), per_class=24)
    target = rng.permutation(np.resize(np.arange(TYPES), base.document.size))
    model = xr.Dataset({"counts": ("entry", COUNTS), "counted": ("type", ALL)})
    effects = xr.Dataset({"target": ("position", target)})
    x = gradient.log_frequency(effects, model)
    factor = 1 + scatter * rng.normal(size=240)
    rare = classes_of(COUNTS, ALL, "percentile", 15.0).rare[target]
    rarest = classes_of(COUNTS, ALL, "percentile", 5.0).rare[target]
    step = np.where(rare[:, None], above * factor, 1.0) * np.where(rarest[:, None], below, 1.0)
    slopes = clear_group() if scatter == 0 else np.full(240, 0.05)
    effect = step * (0.2 - x[:, None]) * slopes
    delta = effect + 0.01 * rng.normal(size=effect.shape)

    def types(rule, percentile):
        return classes_of(COUNTS, ALL, rule, percentile)

    def at(percentile, rule="percentile", by="target") -> Sample:
        return replace(base, delta_loss=delta, stratum=types(rule, percentile).stratum(target))

    parts = {"model": model, "effects: stratified": effects}
    parameters = SimpleNamespace(rare_percentile=15.0)
    return SimpleNamespace(at=at, types=types, part=parts.__getitem__, parameters=parameters)


@pytest.mark.parametrize("above", [1.0, 2.0])
def test_a_planted_step_is_found_and_a_line_has_none(above):
    found = gradient.step(*gradient.read(a_world(above)))
    assert found.low < above < found.high
    assert found.high / found.low < 1.3
    assert gradient.unbiased_step(*gradient.read(a_world(above))).value == pytest.approx(
        found.value
    )


def test_only_a_group_chosen_for_rare_targets_stands_above_neurons_that_scatter():
    sample, x = gradient.read(a_world(scatter=0.3))
    assert gradient.step(sample, x).low > 1.25
    chance = np.array(
        [
            gradient.unbiased_step(*gradient.read(a_world(scatter=0.3, seed=seed))).value
            for seed in range(6)
        ]
    )
    assert abs(chance.mean() - 1) < 0.15  # six neurons a group: 0.3 / sqrt(36) each way


def test_the_line_is_that_of_a_slow_fit():
    sample, x = gradient.read(a_world())
    rows = sample.stratum != RARE
    level, slope = gradient.line(sample, x, rows)
    here = rows & (sample.folds[True][3, 5][sample.block] > 0)
    slow = np.polyfit(x[here], sample.delta_loss[here, 7], 1, w=np.sqrt(sample.weight[here]))
    np.testing.assert_allclose([slope[3, 5, 7], level[3, 5, 7]], slow, atol=1e-9)


def test_bins_split_no_type_and_hold_every_position():
    sample, x = gradient.read(a_world())
    bins = gradient.in_bins(x, sample.stratum == RARE, 4)
    np.testing.assert_array_equal(np.sum(bins, axis=0), sample.stratum == RARE)
    assert all(not set(x[one]) & set(x[two]) for one, two in pairwise(bins))
    found = gradient.gradient(sample, x)
    for rows, one in zip(bins, found.bins, strict=False):
        line = (0.2 - np.average(x[rows], weights=sample.weight[rows])) * 0.2
        assert one.value == pytest.approx(line, rel=0.01)


def test_below_the_elbow_is_found_where_there_is_one(monkeypatch):
    world = a_world(below=3.0)
    (sample, x), plain = gradient.read(world), gradient.read(a_world())
    low = x[
        classes_of(COUNTS, ALL, "percentile", 5.0).rare[world.part("effects: stratified").target]
    ]
    expected = gradient.below_elbow(*plain, low.max()).value
    assert gradient.below_elbow(sample, x, low.max()).value == pytest.approx(3 * expected, rel=0.02)
    monkeypatch.setattr(gradient, "elbow", lambda u: 0.0)
    with pytest.raises(NotTestableError, match="no elbow to look below"):
        gradient.log_elbow(world.part("model"))


def test_a_line_that_is_not_positive_is_one_line():
    sample, x = gradient.read(a_world())
    opposed = np.where((sample.stratum == RARE)[:, None], 1, -1) * sample.delta_loss
    with pytest.raises(
        NotTestableError, match=r"^influence over what the line predicts: a ratio needs"
    ):
        gradient.step(replace(sample, delta_loss=opposed), x)


def test_a_lift_over_itself_is_1_with_the_scatter_of_both():
    sample = a_sample(rare=clear_group())
    same = estimate.lift_ratio(sample, sample)
    assert same.value == 1 < same.high


def test_slopes_are_those_planted_and_the_group_lies_far_out():
    sample, x = gradient.read(a_world())
    found = gradient.slopes(sample, x)
    np.testing.assert_allclose(found.slope, -clear_group(), atol=2e-3)
    np.testing.assert_array_equal(np.flatnonzero(found.member), np.arange(SIZE))
    assert found.same_sign > 0.8  # of the least, noise has the sign
    assert found.distance.high < -3


def test_a_rule_without_rare_types_is_a_gap_in_the_table():
    def none(*_):
        raise NotTestableError("no rare token type is left")

    case = estimate.case(SimpleNamespace(at=none), 2.0)
    table = figures.cases_table([case])
    assert table.iloc[0, 0] == "gap: no rare token type is left"
    assert list(table.index) == [(2.0, "percentile", "target")]


def test_everything_is_drawn():
    world = a_world()
    cases = [estimate.case(world, 15.0)]
    _, axes = panels(6)
    for ax, name in zip(axes, figures.SHOWN, strict=False):
        figures.sweep(ax, {"tiny": cases}, name, SimpleNamespace(supports=[[1.5, None]]))
        assert ax.lines
    figures.frequency(axes[4], gradient.gradient(*gradient.read(world)))
    figures.slopes(axes[5], gradient.slopes(*gradient.read(world)))


def test_numbers_are_short_without_exponents_or_a_sign_of_nothing():
    assert interval_text(Estimate(1.234, -0.05, 1234.0)) == "1.23 (-0.050 to 1,234)"
    assert interval_text(Estimate(-1e-7, -0.4567, 0.5), 100.0) == "0.0000 (-46 to 50)"
    assert interval_text(None, why="none") == "none"


@pytest.fixture(scope="module")
def study() -> Study:
    return Study(PageParameters(model="docs-gpt2"))


def test_15_percent_is_what_the_section_pages_say(study):
    case, sample = estimate.case(study, 15.0), study.sample("corrected")
    assert list(case.found.values()) == [
        regimes.lift(sample, "rare"),
        regimes.lift(sample, "common"),
        regimes.concentration(sample),
        influence(sample),
    ]
    assert case.positions == pytest.approx(case.worth) == (sample.stratum == RARE).sum()


def test_findings_have_the_keys_gates_and_numbers_of_their_parts(study):
    found = list(estimate.findings(study))
    assert [(one.claim, one.estimand) for one in found] == list(estimate.ESTIMANDS)
    assert all(one.gates["reliability"] > 0 and one.reading == "corrected" for one in found)
    lifts = [regimes.lift(study.at(one), "rare").value for one in (10.0, 20.0)]
    assert found[0].estimate.value == pytest.approx(lifts[0] / lifts[1])
    assert found[1].estimate == gradient.step(*gradient.read(study))
