"""Estimands of A1 to A4: by slow loops, on planted attention, and gates."""

from dataclasses import replace

import numpy as np
import pytest

from raretok.claims.attention.estimate import (
    ESTIMANDS,
    alike,
    attention_findings,
    gini_difference,
    head_findings,
    moved,
)
from raretok.claims.compare import of_group
from raretok.claims.sample import correlation
from raretok.errors import NotTestableError
from raretok.stats.jackknife import deal
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import COMMON, RARE
from tests.synthetic import HEADS, LAYERS, SIZE, a_sample, clear_group, some_heads, some_rows


def dealt(rows, seed=0):
    return deal(rows.queries.document, rng=np.random.default_rng(seed))


# --- attention ------------------------------------------------------------------------------------


def plain_profile(rows, layer, head, chosen):
    return rows.mass[layer, chosen, head].sum(axis=0) / rows.keys[chosen].sum(axis=0)


def test_correlations_of_profiles_equal_a_slow_loop():
    rows = some_rows(0, matched=False, n_documents=16)
    of = dealt(rows)
    found = alike(rows, of, False)
    block = of.of(rows.queries.document)

    def compared(one, two):
        r = [
            correlation(plain_profile(rows, i, h, one), plain_profile(rows, i, h, two))
            for i in LAYERS
            for h in range(HEADS)
        ]
        return np.mean(r)

    without = block != 5
    assert found.whole[0] == pytest.approx(compared(rows.rare, ~rows.rare))
    assert found.whole[6] == pytest.approx(compared(rows.rare & without, ~rows.rare & without))
    half = of.halves[3][block]
    assert found.across[6, 3] == pytest.approx(
        compared(rows.rare & half & without, ~rows.rare & ~half & without)
    )
    assert found.within["common"][0, 3] == pytest.approx(
        compared(~rows.rare & half, ~rows.rare & ~half)
    )


def test_the_first_token_is_left_out_where_asked():
    rows = some_rows(1)
    mass = rows.mass.copy()
    mass[..., 0] *= 50 * np.random.default_rng(0).uniform(size=mass.shape[:-1])
    other = replace(rows, mass=mass)
    of = dealt(rows)
    one, two = (alike(x, of, False, first_token=False) for x in (rows, other))
    np.testing.assert_allclose(one.whole, two.whole)
    assert (alike(rows, of, False).whole != alike(other, of, False).whole).any()


def test_classes_that_attend_alike_reach_the_ceiling_and_others_do_not():
    ceiling = {
        lift: alike(some_rows(2, lift=lift), dealt(some_rows(2)), True).over_ceiling()
        for lift in (0.0, 0.4)
    }
    assert ceiling[0.0].low < 1 < ceiling[0.0].high
    assert ceiling[0.0].high - ceiling[0.0].low < 0.1
    assert ceiling[0.4].high < 0.95


def test_noise_lowers_the_correlation_itself_and_not_that_over_its_ceiling():
    few, many = (some_rows(3, per_class=n) for n in (1, 16))
    raw = [alike(rows, dealt(rows), False).whole[0] for rows in (few, many)]
    over = [alike(rows, dealt(rows), False).over_ceiling().value for rows in (few, many)]
    assert raw[0] < raw[1]
    assert over == pytest.approx([1, 1], abs=0.05)


def test_profiles_that_do_not_repeat_have_no_ceiling():
    rows = some_rows(4, per_class=1)
    mass = np.random.default_rng(0).uniform(size=rows.mass.shape) * rows.keys[:, None]
    found = alike(replace(rows, mass=mass), dealt(rows), False)
    assert abs(found.agreement) < 0.5
    with pytest.raises(NotTestableError, match="do not agree between halves"):
        replace(found, within={"rare": -found.across, "common": found.across}).over_ceiling()


def test_gini_difference_is_the_plain_one_where_nothing_is_matched():
    rows = some_rows(5, matched=False)
    found = gini_difference(rows.gini, rows, dealt(rows), False)
    plain = rows.gini[:, rows.rare].mean() - rows.gini[:, ~rows.rare].mean()
    assert found.value == pytest.approx(plain)
    assert found.low < plain < found.high


def test_position_is_taken_out_of_the_gini_difference():
    rows = some_rows(6, matched=False)
    band = rows.queries.pos // 16
    gini = np.broadcast_to(0.5 + 0.1 * band[:, None], rows.gini.shape).copy()
    assert gini_difference(gini, rows, dealt(rows), True).value == pytest.approx(0, abs=1e-12)
    assert gini_difference(gini, rows, dealt(rows), False).value > 0.02


@pytest.mark.parametrize("name", PROTOCOLS)
def test_attention_findings_hold_every_estimand_and_its_gates(name):
    rows = some_rows(7)
    found = list(attention_findings(rows, dealt(rows), PROTOCOLS[name]))
    assert tuple((one.claim, one.estimand) for one in found) == ESTIMANDS[:5]
    assert all(one.estimate.low < one.estimate.high for one in found)
    assert {one.reading for one in found} == {name}
    assert found[0].gates["documents"] == 24
    assert found[0].gates["positions"] == 24 * 8
    assert 0 < found[0].gates["agreement"] <= 1


# --- heads ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ablated():
    sample = a_sample(8, rare=clear_group())
    return sample, some_heads(sample)


def test_moved_equals_slow_loops(ablated):
    sample, sums = ablated
    found = moved(sample, sums, LAYERS)
    sd = sample.post.std(axis=0)
    g, split, one = 4, 7, 12
    group = sample.with_controls()[g, split, one]
    block = sample.deal.of(sums.document)
    targets = [(layer, h) for layer in LAYERS for h in range(HEADS)]
    for folds, values in zip(sample.folds, (found.chosen, found.measured), strict=True):
        cells = (sums.stratum == RARE) & (folds[g, split][block] > 0)
        positions = sums.count[cells].sum()
        for i, target in enumerate(targets):
            change = sums.change[sums.targets.index(target)][cells].sum(axis=0) / positions / sd
            assert values[g, split, one, i] == pytest.approx(change[group].mean())
    before = sums.before[cells][:, group].sum()
    after = np.mean([sums.after[i][cells][:, group].sum() for i in range(len(LAYERS))])
    assert found.layer[g, split, one] == pytest.approx(100 * (after / before - 1))
    assert found.measured.shape == (17, 20, 101, len(targets))


def test_the_head_is_chosen_on_documents_that_it_is_not_measured_on(ablated):
    sample, sums = ablated
    found = moved(sample, sums, LAYERS)
    largest, at = found.largest(), found.chosen.argmax(axis=-1)
    assert largest[3, 4, 5] == found.measured[3, 4, 5, at[3, 4, 5]]
    ratio = largest[3, 4, 5] / np.median(found.measured[3, 4, 5])
    assert found.over_median()[3, 4, 5] == pytest.approx(np.log(ratio))
    # Chance alone makes the largest of a handful larger than what it has elsewhere.
    assert (found.chosen.max(axis=-1) - largest).mean() > 0


def test_one_layer_alone_and_none(ablated):
    sample, sums = ablated
    assert moved(sample, sums, [1]).measured.shape[-1] == HEADS
    with pytest.raises(NotTestableError, match="no head of the last two layers reaches"):
        moved(sample, sums, [])


def test_common_cells_are_not_looked_at(ablated):
    sample, sums = ablated
    change = sums.change.copy()
    change[:, sums.stratum == COMMON] = 1e6
    one, two = (moved(sample, x, LAYERS).measured for x in (sums, replace(sums, change=change)))
    np.testing.assert_array_equal(one, two)


def test_a_planted_head_and_layer_are_found(ablated):
    sample, sums = ablated
    change, after = sums.change.copy(), sums.after.copy()
    change[4][:, :SIZE] = sums.count[:, None] * sample.post.std(axis=0)[:SIZE]  # 1 sd a position
    after[:, :, :SIZE] = sums.before[:, :SIZE] / 2
    found = {
        one.estimand: one
        for one in head_findings(sample, replace(sums, change=change, after=after), LAYERS)
    }
    assert found["largest"].estimate.value == pytest.approx(1)
    assert found["against the median head"].estimate.low > 3
    assert found["layer"].estimate.value == pytest.approx(-50)
    assert found["layer"].controls[0] == pytest.approx(-25, abs=3)
    assert found["against controls"].estimate.value == pytest.approx(-25, abs=3)
    assert found["largest"].gates["documents"] == 24
    assert found["largest"].gates["positions"] == sums.count[sums.stratum == RARE].sum()


def test_an_unmeasured_part_is_told_as_the_reason(ablated):
    sample, sums = ablated
    few = sums.document < 20
    some = replace(
        sums,
        document=sums.document[few],
        stratum=sums.stratum[few],
        count=sums.count[few],
        change=sums.change[:, few],
        before=sums.before[few],
        after=sums.after[:, few],
    )
    found = list(head_findings(sample, some, LAYERS))
    assert tuple((one.claim, one.estimand) for one in found) == ESTIMANDS[5:]
    assert {one.estimate for one in found} == {None}
    why = "a part of the documents has no rare position at which heads were ablated"
    assert {one.reason for one in found} <= {why}


def test_heads_that_change_nothing_have_no_ratio(ablated):
    sample, sums = ablated
    found = list(head_findings(sample, replace(sums, change=0 * sums.change), LAYERS))
    assert "the median head changes nothing" in {one.reason for one in found}


def test_the_unit_of_effects_changes_nothing_and_of_activations_neither(ablated):
    sample, sums = ablated
    text = replace(sample, protocol=PROTOCOLS["text"])
    other = replace(text, delta_loss=7 * text.delta_loss, post=3 * text.post)
    scaled = replace(sums, change=3 * sums.change, before=3 * sums.before, after=3 * sums.after)
    one, two = moved(text, sums, LAYERS), moved(other, scaled, LAYERS)
    np.testing.assert_allclose(one.largest(), two.largest())
    np.testing.assert_allclose(one.layer, two.layer)


def test_the_group_alone_and_the_range_of_its_controls():
    values = np.zeros((17, 2, 102))
    values[..., 0], values[..., 1:] = 5.0, np.arange(101.0)
    estimate, spread = of_group(values)
    assert estimate.value == 5
    assert spread == pytest.approx((50, 2.5, 97.5))
