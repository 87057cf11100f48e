"""Estimands of C1 and I1: by slow loops, on planted groups, and what changes nothing."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from raretok.claims.compare import difference
from raretok.claims.coordination import estimate
from raretok.claims.coordination.estimate import (
    ESTIMANDS,
    Information,
    findings,
    log_dimension,
    shared_information,
)
from raretok.claims.coordination.information import ksg_terms
from raretok.claims.sample import DRAWS, KINDS
from raretok.errors import NotTestableError
from raretok.text.rarity import COMMON, RARE
from tests.synthetic import NEURONS, SIZE, a_sample, clear_group


def sharing(seed, kinds=(), protocol="corrected", strength=1.0):
    """The group shares a cause at the positions of some classes."""
    sample = a_sample(seed, protocol, rare=clear_group())
    rows = np.isin(sample.stratum, [KINDS[kind] for kind in kinds])
    post = sample.post.copy()
    cause = np.random.default_rng(seed).normal(size=(rows.sum(), 1))
    sd = post[:, :SIZE].std(axis=0)
    post[rows, :SIZE] += strength * sd * cause
    return replace(sample, post=post)


def test_log_dimension_of_one_fold_is_that_of_its_positions():
    sample = replace(a_sample(0), weight=np.ones(576))
    found = log_dimension(sample, "rare")
    assert found.shape == (17, 20, 1 + DRAWS)
    rows = (sample.stratum == RARE) & (sample.folds[1][2, 5][sample.block] > 0)
    group = sample.with_controls()[2, 5, 40]
    spectrum = np.linalg.eigvalsh(np.corrcoef(sample.post[rows][:, group].T))
    assert found[2, 5, 40] == pytest.approx(np.log(spectrum.sum() ** 2 / (spectrum**2).sum()))


@pytest.mark.parametrize(
    ("kinds", "existence", "specificity"),
    [((), False, False), (("rare",), True, True), (("rare", "common"), True, False)],
)
def test_coordination_is_found_where_it_is_and_told_from_that_on_common_targets(
    kinds, existence, specificity
):
    found = {one.estimand: one for one in findings(sharing(1, kinds), dear=False)}
    assert set(found) == {"existence", "specificity"}
    for name, there in (("existence", existence), ("specificity", specificity)):
        one = found[name].estimate
        assert (one.high < 0.9) if there else (one.low < 1 < one.high)
        assert found[name].controls[1] < 1 < found[name].controls[2]
    assert {"imbalance", "documents", "positions", "neurons"} <= set(found["existence"].gates)


def test_the_estimate_is_the_ratio_of_geometric_means():
    sample = sharing(2, ("rare",))
    rare, common = (log_dimension(sample, kind)[0].mean(axis=0) for kind in KINDS)
    found = {one.estimand: one.estimate.value for one in findings(sample, dear=False)}
    ratio = [np.exp(one[0] - one[1:].mean()) for one in (rare, common)]
    assert found["existence"] == pytest.approx(ratio[0])
    assert found["specificity"] == pytest.approx(ratio[0] / ratio[1])


@pytest.mark.parametrize("protocol", ["text", "code"])
def test_scale_and_shift_of_activations_change_no_dimension(protocol):
    one = sharing(3, ("rare",), protocol)
    rng = np.random.default_rng(0)
    two = replace(one, post=one.post * rng.uniform(0.1, 9, NEURONS) + rng.normal(size=NEURONS))
    for a, b in zip(findings(one, dear=False), findings(two, dear=False), strict=True):
        assert vars(a.estimate) == pytest.approx(vars(b.estimate))


def test_the_order_of_positions_and_the_unit_of_effects_change_no_dimension():
    one = sharing(4, ("rare",))
    order = np.random.default_rng(1).permutation(one.document.size)
    names = ("delta_loss", "post", "weight", "document", "stratum")
    two = replace(one, **{name: getattr(one, name)[order] for name in names})
    two = replace(two, delta_loss=7 * two.delta_loss)
    for a, b in zip(findings(one, dear=False), findings(two, dear=False), strict=True):
        assert vars(a.estimate) == pytest.approx(vars(b.estimate))


def test_a_group_that_never_varies_is_not_testable():
    sample = a_sample(5, rare=clear_group())
    post = sample.post.copy()
    post[sample.stratum == RARE, :SIZE] = 1.0
    found = list(findings(replace(sample, post=post), dear=False))
    assert [one.estimate for one in found] == [None, None]
    assert found[0].reason


# --- information ----------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(estimate, "POSITIONS", 120)
    monkeypatch.setattr(estimate, "CONTROLS", 3)


def test_information_of_a_group_is_the_weighted_mean_over_pairs_and_positions(few):
    sample = a_sample(6)
    information = Information(sample, "common")
    assert information.weight.size == 120
    group = np.array([[5, 1, 9]])
    blocks = np.isin(np.arange(16), [0, 3, 4, 9]).astype(float)
    rows = blocks[information.block] > 0
    slow = [
        np.average(
            ksg_terms(information.post[a], information.post[b])[rows],
            weights=information.weight[rows],
        )
        for a, b in combinations([1, 5, 9], 2)
    ]
    assert information.of_groups(blocks, group)[0] == pytest.approx(np.mean(slow))
    with pytest.raises(NotTestableError, match="no position of the class"):
        information.of_groups(np.zeros(16), group)


def test_information_is_measured_at_positions_of_its_class(few):
    sample = a_sample(7)
    post = np.where((sample.stratum == COMMON)[:, None], sample.post, 1e6)
    hidden = Information(replace(sample, post=post), "common")
    np.testing.assert_array_equal(hidden.post, Information(sample, "common").post)


def test_shared_information_finds_a_shared_cause(few):
    values = {k: difference(shared_information(sharing(8, ("rare",)), k)) for k in KINDS}
    assert values["rare"].low > 0.02
    assert values["common"].low < 0 < values["common"].high


def test_both_claims_have_both_estimands(few):
    found = list(findings(a_sample(9, rare=clear_group())))
    assert tuple((one.claim, one.estimand) for one in found) == ESTIMANDS
    assert all(one.estimate.low < one.estimate.high for one in found)
