"""Influence, groups and controls of a sample, against slow loops; what changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kurtosis, norm, rankdata, spearmanr

from raretok.claims.coordination.dimension import Moments
from raretok.claims.sample import DRAWS, KINDS, correlation, ranked
from raretok.errors import NotTestableError
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import COMMON, RARE
from tests.synthetic import SIZE, a_sample, clear_group, with_protocol


@pytest.fixture(scope="module")
def corrected():
    return a_sample(0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_a_fold_is_the_weighted_mean_of_its_positions(corrected, kind):
    chosen, measured = corrected.folds
    for folds in (chosen, measured):
        found = corrected.mean(kind, folds)
        for g, split in ((0, 0), (5, 3), (16, 19)):
            rows = corrected.stratum == KINDS[kind]
            rows &= folds[g, split][corrected.block] > 0
            slow = np.average(corrected.delta_loss[rows], axis=0, weights=corrected.weight[rows])
            np.testing.assert_allclose(found[g, split], slow)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_influence_is_what_the_protocol_ranks_by(protocol):
    sample = a_sample(1, protocol)
    rows = sample.stratum == RARE
    if sample.protocol.cross_fitted:
        rows &= sample.deal.halves[4][sample.block]
    delta, weight = sample.delta_loss[rows], sample.weight[rows]
    signed = np.average(delta, axis=0, weights=weight)
    size = np.average(np.abs(delta), axis=0, weights=weight)
    expected = {"code": np.where(signed > 0, size, -1), "text": size, "corrected": signed}[protocol]
    found = sample.influence("rare")
    assert found.shape[1] == (20 if protocol == "corrected" else 1)
    np.testing.assert_allclose(found[0, 4 if protocol == "corrected" else 0], expected)
    assert set(expected < 0) == {True, False} if protocol != "text" else True


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_groups_are_the_most_influential_of_those_whose_ablation_raises_the_loss(protocol):
    sample = a_sample(2, protocol, noise=0.05)
    group = sample.groups[3, 0]
    signed = sample.mean("rare", sample.folds[0])[3, 0]
    assert (signed[group] > 0).all()
    influence = sample.influence("rare")[3, 0]
    others = np.setdiff1d(np.flatnonzero(signed > 0), group)
    assert influence[group].min() >= influence[others].max()
    assert (np.diff(influence[group]) <= 0).all()


def test_a_cross_fitted_group_knows_nothing_of_the_documents_it_is_measured_on(corrected):
    split, held_out = 2, ~corrected.deal.halves[2][corrected.block]
    delta = corrected.delta_loss.copy()
    delta[held_out] = -delta[held_out]
    changed = replace(corrected, delta_loss=delta)
    np.testing.assert_array_equal(changed.groups[:, split], corrected.groups[:, split])
    assert (changed.groups[:, split + 1] != corrected.groups[:, split + 1]).any()


def test_controls_follow_their_neuron_through_the_folds():
    sample = a_sample(3)
    groups = sample.with_controls()
    assert groups.shape == (17, 20, 1 + DRAWS, SIZE)
    np.testing.assert_array_equal(groups[:, :, 0], sample.groups)
    np.testing.assert_array_equal(groups[4, 7, 30], sample.controls[sample.groups[4, 7], 29])
    np.testing.assert_array_equal(sample.with_controls(5), groups[:, :, :6])
    assert not np.isin(groups[:, :, 1:], np.unique(sample.groups)).any()


def test_ranks_and_their_correlation_are_spearmans():
    one, two = np.random.default_rng(4).normal(size=(2, 3, 40))
    found = correlation(ranked(one), ranked(two))
    expected = [spearmanr(a, b).statistic for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("protocol", ["text", "corrected"])
def test_reliability_is_the_correlation_between_halves(protocol):
    sample = a_sample(5, protocol)
    values = sample.delta_loss if protocol == "corrected" else np.abs(sample.delta_loss)
    found = []
    for half in sample.deal.halves:
        means = []
        for blocks in (half, ~half):
            rows = (sample.stratum == COMMON) & blocks[sample.block]
            means.append(np.average(values[rows], axis=0, weights=sample.weight[rows]))
        found.append(spearmanr(*means).statistic)
    assert sample.reliability("common") == pytest.approx(np.mean(found))


def test_reliability_tells_effects_from_noise():
    assert a_sample(6, rare=np.linspace(0.1, 0, 240)).reliability("rare") > 0.9
    assert abs(a_sample(6, rare=np.zeros(240)).reliability("rare")) < 0.2


def test_gates_count_what_the_rarer_class_has():
    sample = a_sample(7, n_documents=10, per_class=4)
    stratum = sample.stratum.copy()
    first = np.unique(sample.document)[0]
    stratum[(sample.document == first) & (stratum == RARE)] = 0
    assert replace(sample, stratum=stratum).gates == {
        "documents": 9,
        "positions": 36,
        "neurons": SIZE,
    }


def test_a_part_without_a_class_is_not_testable(corrected):
    stratum = np.where(corrected.block > 0, 0, corrected.stratum)
    few = replace(corrected, stratum=stratum)
    with pytest.raises(NotTestableError, match="a part of the documents has no rare position"):
        _ = few.groups


def test_neurons_that_never_help_make_no_group():
    effects = np.full(240, -1.0)
    effects[: SIZE - 1] = 1.0
    with pytest.raises(NotTestableError, match=f"fewer than {SIZE} neurons raise the loss"):
        _ = a_sample(8, rare=effects).groups


# --- what changes nothing -------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_unit_of_the_effect_changes_no_group(protocol):
    one = a_sample(9, protocol)
    seven = replace(one, delta_loss=7 * one.delta_loss)
    np.testing.assert_array_equal(one.groups, seven.groups)
    np.testing.assert_array_equal(one.controls, seven.controls)
    assert one.reliability("rare") == pytest.approx(seven.reliability("rare"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_order_of_positions_changes_nothing(protocol):
    one = a_sample(10, protocol, rare=clear_group())
    order = np.random.default_rng(0).permutation(one.document.size)
    names = ("delta_loss", "post", "weight", "document", "stratum")
    two = replace(one, **{name: getattr(one, name)[order] for name in names})
    np.testing.assert_array_equal(one.groups, two.groups)
    np.testing.assert_array_equal(one.controls, two.controls)
    np.testing.assert_allclose(one.influence("common", True), two.influence("common", True))


def test_renumbering_neurons_renumbers_groups():
    one = a_sample(11)
    order = np.random.default_rng(1).permutation(240)
    two = replace(one, delta_loss=one.delta_loss[:, order], post=one.post[:, order])
    np.testing.assert_array_equal(order[two.groups], one.groups)


def test_a_scale_or_shift_of_activations_changes_no_group_and_no_unmatched_control():
    one = a_sample(12, "text")
    rng = np.random.default_rng(2)
    two = replace(one, post=one.post * rng.uniform(0.1, 9, 240) + rng.normal(size=240))
    np.testing.assert_array_equal(one.with_controls(), two.with_controls())
    assert with_protocol(one, "corrected").groups.shape[1] == 20


# --- gated MLPs -----------------------------------------------------------------------------------


def gated(sample, seed=0):
    """The same sample as if its MLP had gates."""
    rng = np.random.default_rng(seed)
    return replace(sample, W_gate=rng.normal(size=sample.W_in.shape), gate_rate=rng.random(240))


def test_activations_of_a_gated_mlp_are_normal_scores_of_their_ranks():
    sample = gated(a_sample(13))
    rows = np.flatnonzero(sample.stratum == RARE)
    found = sample.activations(rows)
    expected = norm.ppf((rankdata(sample.post[rows], axis=0) - 0.5) / rows.size)
    np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(
        replace(sample, gate_rate=None).activations(rows), sample.post[rows]
    )


def test_no_monotone_change_of_gated_activations_moves_their_correlations():
    """Massive activations among them: only who is larger than whom counts."""
    sample = gated(a_sample(14, rare=clear_group()))
    huge = replace(sample, post=np.sinh(3 * sample.post))
    one, two = (Moments.of(s, "rare", np.arange(20)) for s in (sample, huge))
    blocks, groups = np.ones(sample.deal.n_blocks), np.arange(20)[None]
    np.testing.assert_allclose(one.correlations(blocks, groups), two.correlations(blocks, groups))
    plain = Moments.of(replace(huge, gate_rate=None), "rare", np.arange(20))
    apart = plain.correlations(blocks, groups) - one.correlations(blocks, groups)
    assert np.abs(apart).max() > 0.05


def test_gated_neurons_are_matched_on_gate_and_kurtosis():
    sample = gated(a_sample(15))
    raw = np.stack([np.log(kurtosis(sample.post, fisher=False)), sample.gate_rate], axis=1)
    expected = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    np.testing.assert_allclose(sample.traits[:, 1:3], expected, atol=1e-6)
    assert [*sample.imbalance][1:3] == ["log kurtosis", "gate rate"]
    assert sample.traits.shape[1] == len(sample.imbalance)


def test_groups_chosen_elsewhere_are_taken_as_they_are():
    one, two = a_sample(16), a_sample(17)
    given = replace(one, given_groups=two.groups)
    np.testing.assert_array_equal(given.groups, two.groups)
    np.testing.assert_array_equal(given.with_controls(3)[:, :, 0], two.groups)
