"""The plateau group and its controls: who is in them, and how alike they are."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.stats import chisquare

from raretok.errors import UserError
from raretok.stats.groups import (
    TRAITS,
    Draws,
    balance,
    compare,
    control_groups,
    find_folds,
    influences,
    influential,
    near_groups,
    neuron_traits,
)
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import COMMON, MIDDLE, RARE

RNG = np.random.default_rng
N, SIZE, DRAWS = 200, 6, 80


@pytest.fixture(scope="module")
def effects() -> xr.Dataset:
    """Neurons of very different scale and rate; each has its own mean effect in each class."""
    rng = RNG(0)
    stratum = rng.permutation(np.repeat([RARE, COMMON, MIDDLE], [150, 150, 60]))
    scale, shift = rng.lognormal(0, 0.7, N), rng.normal(0, 1, N)
    post = (scale * (rng.normal(size=(stratum.size, N)) + shift)).astype(np.float32)
    mean = {kind: 0.01 * rng.normal(size=N) for kind in (RARE, COMMON, MIDDLE)}
    delta = np.stack([mean[kind] for kind in stratum])
    delta = (delta + 0.002 * rng.normal(size=delta.shape)).astype(np.float32)
    coords = {
        "stratum": ("position", stratum),
        "weight": ("position", rng.uniform(0.5, 2, stratum.size)),
        "document": ("position", rng.integers(30, size=stratum.size)),
    }
    both = {"post": (("position", "neuron"), post), "delta_loss": (("position", "neuron"), delta)}
    return xr.Dataset(both, coords)


@pytest.fixture(scope="module")
def norms():
    return RNG(1).lognormal(0, 0.3, N)


def folds_of(effects, norms, protocol="corrected", *, seed=2, size=SIZE, part="boost"):
    return find_folds(
        effects,
        PROTOCOLS[protocol],
        norms,
        size=size,
        n_controls=DRAWS,
        rng=RNG(seed),
        part=part,
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_groups_have_their_size_no_neuron_twice_and_none_of_the_plateau(effects, norms, protocol):
    for fold in folds_of(effects, norms, protocol):
        assert fold.group.size == SIZE
        for drawn in (fold.controls, fold.equals):
            assert drawn.shape == (DRAWS, SIZE)
            assert all(np.unique(row).size == SIZE for row in drawn)
            assert not np.isin(drawn, fold.group).any()


def test_only_the_corrected_protocol_measures_on_the_other_half(effects, norms):
    first, second = folds_of(effects, norms)
    np.testing.assert_array_equal(first.measured, ~second.measured)
    document = effects.document.values
    assert not set(document[first.measured]) & set(document[second.measured])
    for name in ("code", "text"):
        (only,) = folds_of(effects, norms, name)
        assert only.measured.all()


def test_a_group_does_not_depend_on_the_positions_it_is_measured_on(effects, norms):
    first, second = folds_of(effects, norms)
    spoiled = effects.copy(deep=True)
    spoiled["delta_loss"].values[first.measured] = RNG(9).normal(size=(first.measured.sum(), N))
    again, changed = folds_of(spoiled, norms)
    np.testing.assert_array_equal(again.group, first.group)
    assert set(changed.group) != set(second.group)


def test_the_group_is_what_a_slow_sort_gives(effects):
    everything = np.ones(effects.sizes["position"], dtype=bool)
    rows = effects.stratum.values == RARE
    delta, weight = effects.delta_loss.values[rows].astype(float), effects.weight.values[rows]
    signed = [np.average(delta[:, i], weights=weight) for i in range(N)]
    size = [np.average(np.abs(delta[:, i]), weights=weight) for i in range(N)]
    for name, key in (("text", size), ("corrected", np.abs(signed))):
        for part, sign in (("boost", 1), ("suppress", -1)):
            found = influential(effects, PROTOCOLS[name], everything, RARE, part=part)
            slow = sorted((i for i in range(N) if sign * signed[i] > 0), key=lambda i: -key[i])
            assert found.tolist() == slow


def gaps(traits, folds):
    found = balance(traits, folds)
    return np.abs(found["group"] - found["controls"])


def test_matched_controls_are_nearer_than_random_ones_in_every_trait(effects, norms):
    traits = neuron_traits(effects.post.values, norms)
    assert traits.shape[1] == len(TRAITS)
    # Far from the layer's mean in every trait, but with likes to be matched with.
    extreme = np.argsort(-traits.sum(axis=1))[5 : 5 + SIZE]
    (only,) = folds_of(effects, norms, "text")
    matched, anyone = (
        [
            replace(
                only,
                group=extreme,
                controls=control_groups(traits, extreme, m, Draws(DRAWS, [extreme], RNG(3))),
            )
        ]
        for m in (True, False)
    )
    assert (gaps(traits, matched) < gaps(traits, anyone)).all()
    assert gaps(traits, matched).mean() < 0.4 * gaps(traits, anyone).mean()


def test_traits_are_standardised_and_survive_silent_neurons(effects, norms):
    post = effects.post.values.copy()
    post[:, 0] = 0
    traits = neuron_traits(post, norms)
    assert np.isfinite(traits).all()
    np.testing.assert_allclose(traits.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(traits.std(axis=0), 1, atol=1e-6)


def test_each_control_neuron_is_among_the_nearest_that_are_free(effects, norms):
    traits = neuron_traits(effects.post.values, norms)
    group = np.array([3, 50, 120])
    drawn = control_groups(traits, group, True, Draws(50, [group], RNG(4)))
    for row in drawn:
        for member, neuron in zip(group, row, strict=True):
            apart = np.linalg.norm(traits - traits[member], axis=1)
            apart[group] = np.inf
            # The other members may have taken two of the nearest ten.
            assert (apart < apart[neuron]).sum() < 10 + group.size - 1


def test_equal_groups_matter_as_much_to_common_targets(effects, norms):
    (fold,) = folds_of(effects, norms, "text")
    everything = np.ones(effects.sizes["position"], dtype=bool)
    signed, common = influences(effects, PROTOCOLS["text"], everything, COMMON)
    _, rare = influences(effects, PROTOCOLS["text"], everything, RARE)
    assert (signed[fold.equals] > 0).all()
    apart = np.abs(np.log(common[fold.equals]) - np.log(rare[fold.group])).mean()
    anyone = np.abs(np.log(common[fold.controls]) - np.log(rare[fold.group])).mean()
    assert apart < 0.3 * anyone


def test_random_controls_are_uniform_over_the_other_neurons():
    group = np.array([2, 5, 11])
    drawn = near_groups(np.zeros((3, 30)), group, Draws(3_000, [group], RNG(5)), among=None)
    for column in (*drawn.T, drawn.ravel()):
        counts = np.bincount(column, minlength=30)
        assert (counts[group] == 0).all()
        assert chisquare(np.delete(counts, group)).pvalue > 1e-3


def test_the_seed_decides_everything(effects, norms):
    one, same, other = (folds_of(effects, norms, seed=seed) for seed in (7, 7, 8))
    for a, b in zip(one, same, strict=True):
        np.testing.assert_array_equal(a.controls, b.controls)
        np.testing.assert_array_equal(a.equals, b.equals)
        np.testing.assert_array_equal(a.measured, b.measured)
    assert (one[0].controls != other[0].controls).any()


def test_compare_averages_a_statistic_over_the_folds(effects, norms):
    folds = folds_of(effects, norms)
    found = compare(folds, lambda fold, groups: groups.sum(axis=1) + 1000.0 * fold.measured.sum())
    size = 1000 * effects.sizes["position"] / 2
    assert found.value == np.mean([fold.group.sum() for fold in folds]) + size
    by_hand = np.mean([fold.controls[3].sum() for fold in folds]) + size
    assert found.null[3] == by_hand


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (2, "a group of 2 of 200 neurons is too small: it needs 3, raise group_percent"),
        (150, "only .* neurons have the sign asked for, 150 were wanted"),
    ],
)
def test_impossible_sizes_are_refused_in_one_line(effects, norms, size, message):
    with pytest.raises(UserError, match=message) as caught:
        folds_of(effects, norms, "text", size=size)
    assert "\n" not in str(caught.value)


def test_a_group_of_more_than_half_the_layer_is_refused(effects, norms):
    helping = effects.copy(deep=True)
    helping["delta_loss"].values[:] = np.abs(helping.delta_loss.values)
    with pytest.raises(UserError, match="leaves too few to compare it with"):
        folds_of(helping, norms, "text", size=N // 2 + 1)


def test_folds_that_share_neurons_share_their_controls(effects, norms):
    first, second = folds_of(effects, norms, size=40)
    both = np.intersect1d(first.group, second.group)
    assert 0 < both.size < 40
    for name in ("controls", "equals"):
        of_first, of_second = getattr(first, name), getattr(second, name)
        for neuron in both:
            np.testing.assert_array_equal(
                of_first[:, first.group == neuron], of_second[:, second.group == neuron]
            )
        assert not np.isin(of_first, second.group).any()
        assert not np.isin(of_second, first.group).any()
