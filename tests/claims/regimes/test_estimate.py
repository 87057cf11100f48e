"""Estimands of the page `regimes` against slow loops, by hand, and on planted worlds."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr

from raretok.claims.regimes import estimate
from raretok.claims.regimes.curve import lift_scatter
from raretok.claims.regimes.estimate import (
    ESTIMANDS,
    concentration,
    findings,
    head_of,
    lift,
    rank_curves,
    shared_order,
    size,
    top_share,
    under,
)
from raretok.claims.sample import KINDS
from raretok.errors import NotTestableError
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import COMMON, RARE
from tests.synthetic import a_sample, power_law

N = 1024


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(estimate, "lift_scatter", partial(lift_scatter, n_draws=12))


def large(seed=0, head=1.0, common_head=1.0, **more):
    rare, common = power_law(N, exponent=0.3), power_law(N, exponent=0.3) / 2
    rare[:10] *= head
    common[:10] *= common_head
    more = {"per_class": 3, "noise": 1e-4, "post": np.zeros((144, N))} | more
    return a_sample(seed, rare=rare, common=common, **more)


def positions_of(sample, kind, blocks):
    rows = (sample.stratum == KINDS[kind]) & blocks[sample.block]
    return sample.delta_loss[rows], sample.weight[rows]


def influence_on(sample, kind, blocks):
    """What a protocol ranks by, over some blocks."""
    delta, weight = positions_of(sample, kind, blocks)
    signed = np.average(delta, axis=0, weights=weight)
    if sample.protocol.signed:
        return signed
    value = np.average(np.abs(delta), axis=0, weights=weight)
    return np.where(signed > 0, value, -1) if sample.protocol.boost_only else value


def parts(sample, left_out):
    """Pairs of blocks: chosen on, measured on."""
    kept = np.arange(16) != left_out
    if not sample.protocol.cross_fitted:
        return [(kept, kept)]
    return [(kept & half, kept & ~half) for half in sample.deal.halves]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rank_curves_equal_a_slow_loop(protocol, kind):
    sample = a_sample(1, protocol)
    found = rank_curves(sample, kind)
    assert found.shape == (17, 240)
    for g, left_out in ((0, None), (9, 8)):
        each = []
        for chosen, measured in parts(sample, left_out):
            order = np.argsort(-influence_on(sample, kind, chosen), kind="stable")
            each.append(influence_on(sample, kind, measured)[order])
        np.testing.assert_allclose(found[g], np.mean(each, axis=0))


def test_cross_fitting_removes_the_head_that_selection_makes():
    crossed = a_sample(2, rare=np.zeros(240), noise=0.1)
    selected = replace(crossed, protocol=replace(crossed.protocol, cross_fitted=False))
    assert abs(rank_curves(crossed, "rare")[0, :5].mean()) < 0.01
    assert rank_curves(selected, "rare")[0, :5].mean() > 0.01


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_top_share_equals_a_slow_loop(protocol):
    sample = a_sample(3, protocol)
    slow = []
    for chosen, measured in parts(sample, 4):
        ranking, values = (influence_on(sample, "common", b) for b in (chosen, measured))
        head = np.argsort(-ranking, kind="stable")[:2]
        slow.append(values[head].sum() / values[ranking > 0].sum())
    np.testing.assert_allclose(top_share(sample, "common")[5], slow)


def test_shares_by_hand():
    effects = np.zeros(240)
    effects[:6] = [6, 2, 1, 1, -5, -5]
    common = np.r_[np.full(10, 1.0), np.zeros(230)]
    sample = a_sample(4, rare=effects, common=common, noise=0.0)
    np.testing.assert_allclose(top_share(sample, "rare"), 0.8)
    found = concentration(sample)
    assert (found.value, found.low, found.high) == pytest.approx((0.6, 0.6, 0.6))
    with pytest.raises(NotTestableError, match="no neuron helps common targets"):
        concentration(a_sample(4, rare=effects, common=-common, noise=0.0))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shared_order_equals_its_construction_from_scipy(protocol):
    sample = a_sample(5, protocol, noise=1e-3)
    signed = sample.protocol.signed

    def ranks_on(kind, blocks):
        delta, weight = positions_of(sample, kind, blocks)
        return np.average(delta if signed else np.abs(delta), axis=0, weights=weight)

    each = []
    for half in sample.deal.halves:
        one, two = ({k: ranks_on(k, b) for k in KINDS} for b in (half, ~half))
        each.append(
            [
                spearmanr(one["rare"], two["common"]).statistic,
                spearmanr(one["rare"], two["rare"]).statistic,
                spearmanr(one["common"], two["common"]).statistic,
            ]
        )
    across, rare, common = np.mean(each, axis=0)
    assert shared_order(sample).value == pytest.approx(across / np.sqrt(rare * common))


def test_one_order_with_noise_is_shared_and_noise_alone_cannot_be_asked():
    found = shared_order(a_sample(6, noise=0.02))
    assert found.low < 1 < found.high
    with pytest.raises(NotTestableError, match="does not repeat between halves"):
        shared_order(a_sample(0, rare=np.zeros(240)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_head_is_lifted_in_its_class_alone(kind):
    heads = {"rare": "head", "common": "common_head"}
    sample = large(7, **{heads[kind]: 3.0})
    found = {one: lift(sample, one) for one in KINDS}
    assert found[kind].value == pytest.approx(3, rel=0.1)
    assert found[kind].low > 1.25
    (other,) = set(KINDS) - {kind}
    assert found[other].low < 1 < found[other].high
    assert found[other].value == pytest.approx(1, abs=0.1)


def test_the_size_of_a_planted_head_in_percent():
    found = size(large(8, head=4.0))
    assert found.value == pytest.approx(100 * 10 / N)
    assert found.low <= found.value <= found.high


def test_heads_are_a_share_and_never_one_neuron():
    assert head_of(large()) == 10
    assert head_of(large(), 0.03) == 31
    assert head_of(a_sample(0), 0.001) == 2


def sums_by_document(sample, values, name="direct"):
    """Weighted sums over the positions of each document and class, as a measurement keeps them."""
    cells = [(d, s) for d in np.unique(sample.document) for s in (RARE, COMMON)]
    rows = [(sample.document == d) & (sample.stratum == s) for d, s in cells]
    sums = np.stack([sample.weight[one] @ values[one] for one in rows])
    weight = np.array([sample.weight[one].sum() for one in rows])
    document, stratum = np.array(cells).T
    return xr.Dataset(
        {
            "delta_loss": (("intervention", "cell", "neuron"), np.stack([0 * sums, sums])),
            "weight": ("cell", weight),
            "cell_document": ("cell", document),
            "cell_stratum": ("cell", stratum),
        },
        attrs={"interventions": ["other", name]},
    )


def test_curves_from_sums_by_document_are_those_from_positions():
    sample = a_sample(9)
    found = under(sample, sums_by_document(sample, sample.delta_loss), "direct")
    np.testing.assert_allclose(rank_curves(found, "rare"), rank_curves(sample, "rare"))


def test_findings_hold_every_estimand_and_say_why_one_is_missing():
    sample = a_sample(11)
    found = list(findings(sample, sums_by_document(sample, sample.delta_loss)))
    assert {(one.claim, one.estimand) for one in found} == set(ESTIMANDS)
    assert all(one.estimate and np.isfinite(one.estimate.high) for one in found)
    assert {"reliability", "reliability of common", "documents"} <= set(found[0].gates)
    direct = {one.estimand: one for one in found if one.claim == "R1"}
    values = [vars(direct[name].estimate) for name in ("direct effect", "lift")]
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    small = list(findings(a_sample(11, rare=power_law(100), size=3)))
    reasons = {(one.claim, one.estimand): one.reason for one in small}
    assert "100 neurons are too few" in reasons["R1", "lift"]
    assert "for the reading corrected only" in reasons["R1", "direct effect"]
    assert reasons["R0", "concentration"] == ""
    assert len(small) == len(ESTIMANDS)


def test_the_unit_of_the_effect_changes_nothing():
    one = large(12, head=2.0)
    seven = replace(one, delta_loss=7 * one.delta_loss)
    for number in (lambda s: lift(s, "rare"), concentration, shared_order, size):
        assert vars(number(one)) == pytest.approx(vars(number(seven)), rel=1e-5)


def test_renumbering_neurons_and_reordering_positions_changes_nothing():
    one = large(13)
    rng = np.random.default_rng(0)
    neurons, rows = rng.permutation(N), rng.permutation(144)
    names = ("weight", "document", "stratum")
    two = replace(
        one,
        delta_loss=one.delta_loss[rows][:, neurons],
        **{name: getattr(one, name)[rows] for name in names},
    )
    for number in (lambda s: lift(s, "common"), concentration, shared_order, size):
        assert vars(number(one)) == pytest.approx(vars(number(two)), rel=1e-6)
