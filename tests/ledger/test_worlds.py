"""Planted worlds hold what they promise, leave the rest as it was, and never touch their ground."""

from dataclasses import fields, replace

import numpy as np
import pytest

from raretok.claims.attention.estimate import gini_difference, moved
from raretok.claims.regimes.estimate import head_of, top_share
from raretok.claims.sample import KINDS, Sample
from raretok.claims.spectra.estimate import squared_cosine, weight_rows
from raretok.errors import NotTestableError
from raretok.ledger import worlds
from raretok.stats.jackknife import deal
from raretok.text.rarity import COMMON, RARE
from tests.synthetic import (
    LAYERS,
    NEURONS,
    SIZE,
    a_sample,
    clear_group,
    some_heads,
    some_rows,
)

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def ground():
    sample = a_sample(0, rare=clear_group())
    return sample, some_heads(sample), some_rows(0)


def activity(measure, n_factors, more):
    return lambda s, h, r, rng: worlds.activity_world(s, more, n_factors, measure, rng=rng)


WORLDS = {
    "curve": lambda s, h, r, rng: worlds.curve_world(s, 2.0, "rare", rng=rng),
    "share": lambda s, h, r, rng: worlds.share_world(s, 0.1, rng=rng),
    "group": lambda s, h, r, rng: worlds.group_world(s, rng=rng),
    "dimensions": activity(worlds.fewer_dimensions, 1, 0.2),
    "modules": activity(worlds.modular_structure, 2, 0.2),
    "weights": lambda s, h, r, rng: worlds.weight_world(s, 1.0, rng=rng),
    "head": lambda s, h, r, rng: worlds.head_world(s, h, LAYERS, 1.0, False, rng=rng),
    "layer": lambda s, h, r, rng: worlds.layer_world(s, h, LAYERS, -50.0, rng=rng),
    "profile": lambda s, h, r, rng: worlds.profile_world(r, 0.5, rng=rng),
    "Gini": lambda s, h, r, rng: worlds.gini_world(r, 0.1, rng=rng),
}


def arrays(thing) -> dict[str, np.ndarray]:
    """Every array of a sample, of heads or rows, or of several of them."""
    if isinstance(thing, tuple):
        return {f"{i}.{k}": v for i, one in enumerate(thing) for k, v in arrays(one).items()}
    if isinstance(thing, np.ndarray):
        return {"": thing}
    found = {f.name: getattr(thing, f.name) for f in fields(thing)}
    found |= vars(found.pop("queries", None)) if "queries" in found else {}
    return {k: v for k, v in found.items() if isinstance(v, np.ndarray)}


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_leaves_its_ground_as_it_was_and_comes_from_its_seed(name, ground):
    before = {k: v.copy() for k, v in arrays(ground).items()}
    one, same, other = (arrays(WORLDS[name](*ground, RNG(seed))) for seed in (0, 0, 1))
    for key, value in arrays(ground).items():
        np.testing.assert_array_equal(value, before[key])
    for key, value in one.items():
        np.testing.assert_array_equal(value, same[key])
    assert any((one[key] != other[key]).any() for key in one)


# --- effects --------------------------------------------------------------------------------------


def class_means(sample: Sample, kind: str) -> np.ndarray:
    rows = sample.stratum == KINDS[kind]
    return np.average(sample.delta_loss[rows], axis=0, weights=sample.weight[rows])


def test_noise_changes_its_sign_by_document_and_nothing_else():
    sample = a_sample(1)
    parts = worlds.flipped(sample, rng=RNG(0))
    for kind, stratum in KINDS.items():
        np.testing.assert_allclose(parts[kind], class_means(sample, kind))
        rows = sample.stratum == stratum
        sign = parts["noise"][rows] / (sample.delta_loss[rows] - parts[kind])
        by_document = [sign[sample.document[rows] == d] for d in np.unique(sample.document)]
        assert all(np.allclose(one, one[0, 0]) for one in by_document)
        assert {round(one[0, 0]) for one in by_document} == {-1, 1}
    world = worlds.with_means(sample, parts | {"noise": 0 * parts["noise"]})
    np.testing.assert_allclose(class_means(world, "common"), parts["common"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.01, 0.02])
def test_a_curve_world_raises_the_head_of_one_class_by_its_factor(kind, share):
    sample = a_sample(2, noise=0.0)
    plain, raised = (
        class_means(worlds.curve_world(sample, f, kind, share, rng=RNG(3)), kind)
        for f in (1.0, 3.0)
    )
    n = head_of(sample, share)
    np.testing.assert_allclose(raised[:n] / plain[:n], 3)
    np.testing.assert_allclose(raised[n:], plain[n:])
    assert (np.diff(plain) < 1e-12).all()  # every neuron keeps its rank
    (other,) = set(KINDS) - {kind}
    untouched = class_means(worlds.curve_world(sample, 3.0, kind, rng=RNG(3)), other)
    np.testing.assert_allclose(untouched, class_means(sample, other))


def test_a_curve_world_of_factor_one_is_a_sample_of_the_law_it_was_fitted_to():
    sample = a_sample(3, noise=0.0)
    found = [
        class_means(worlds.curve_world(sample, 1.0, "rare", rng=RNG(seed)), "rare")
        for seed in range(60)
    ]
    # Order statistics of a power law: the mean logarithm of the i-th of n is a sum of 1 / j.
    depths = np.cumsum(1 / np.arange(NEURONS, 0, -1))[::-1]
    slope = np.polyfit(depths[4:60], np.log(found).mean(axis=0)[4:60], 1)[0]
    assert slope == pytest.approx(0.7, abs=0.05)
    assert (np.array(found) > 0).all()


@pytest.mark.parametrize("more", [0.0, 0.1, 0.2])
def test_a_share_world_gives_the_rare_head_so_much_more(more):
    sample = a_sample(4, noise=0.0)
    apart = [
        top_share(world, "rare")[0, 0] - top_share(world, "common")[0, 0]
        for world in (worlds.share_world(sample, more, rng=RNG(seed)) for seed in range(30))
    ]
    assert np.mean(apart) == pytest.approx(more, abs=4 * np.std(apart) / np.sqrt(30))


def test_the_group_of_a_world_has_the_effects_of_the_most_influential():
    sample = a_sample(5, rare=clear_group(), noise=0.0)
    for seed in range(30):
        world, group = worlds.group_world(sample, rng=RNG(seed))
        top = class_means(sample, "rare")[:SIZE]
        np.testing.assert_allclose(class_means(world, "rare")[group], top)
        for kind in KINDS:  # all effects are still there, once
            means = np.sort(class_means(world, kind))
            np.testing.assert_allclose(means, np.sort(class_means(sample, kind)))
        assert set(world.groups.ravel()) == set(group)
        assert world.post is sample.post


def test_a_neuron_brings_its_noise_and_its_common_effect_along():
    sample = a_sample(6, rare=clear_group(), common=np.arange(240.0))
    world, group = worlds.group_world(sample, rng=RNG(0))
    rows = sample.stratum == COMMON
    mean = np.average(sample.delta_loss[rows], axis=0, weights=sample.weight[rows])
    noise = np.abs(sample.delta_loss[rows] - mean)
    top = np.argsort(-class_means(sample, "rare"), kind="stable")[:SIZE]
    planted = np.abs(world.delta_loss[rows][:, group] - mean[top])
    np.testing.assert_allclose(planted, noise[:, top], atol=1e-9)


# --- groups ---------------------------------------------------------------------------------------


def test_strength_finds_where_an_increasing_measure_gets_to():
    assert worlds.strength(lambda s: s**2, 0.25) == pytest.approx(0.5, abs=2**-12)
    with pytest.raises(NotTestableError, match="an effect of 5 cannot be planted here"):
        worlds.strength(lambda s: s, 5.0)
    assert worlds.strength(lambda s: s, -1.0) == pytest.approx(0, abs=2**-12)


def test_mixing_keeps_the_values_of_every_neuron():
    rng = RNG(7)
    post, shared = rng.lognormal(size=(200, 4)), rng.normal(size=(200, 1)).repeat(4, axis=1)
    for share in (0.0, 0.4, 1.0):
        found = worlds.mixed(post, shared, share)
        np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(post, axis=0))
    np.testing.assert_array_equal(worlds.mixed(post, shared, 0.0), post)
    ranks = np.argsort(np.argsort(worlds.mixed(post, shared, 1.0), axis=0), axis=0)
    np.testing.assert_array_equal(ranks, np.argsort(np.argsort(shared, axis=0), axis=0))


MEASURES = {
    "dimensions": (worlds.fewer_dimensions, 1, 0.2),
    "information": (worlds.pair_information, 1, 0.04),
    "modules": (worlds.modular_structure, 2, 0.2),
}


@pytest.mark.parametrize("name", MEASURES)
def test_an_activity_world_raises_its_measure_by_what_was_asked_and_edits_nothing_else(name):
    measure, n_factors, more = MEASURES[name]
    sample = a_sample(8, rare=clear_group())
    world = worlds.activity_world(sample, more, n_factors, measure, rng=RNG(1))
    _, group = worlds.group_world(sample, rng=RNG(1))
    rows = np.flatnonzero(sample.stratum == RARE)
    before, after = (measure(s.post[np.ix_(rows, group)]) for s in (sample, world))
    assert after - before == pytest.approx(more, rel=0.15)
    rest = np.ones(sample.post.shape, dtype=bool)
    rest[np.ix_(rows, group)] = False
    np.testing.assert_array_equal(world.post[rest], sample.post[rest])
    still = worlds.activity_world(sample, 0.0, n_factors, measure, rng=RNG(1))
    np.testing.assert_array_equal(still.post, sample.post)
    np.testing.assert_array_equal(still.delta_loss, world.delta_loss)


def test_a_weight_world_raises_the_squared_cosine_by_so_many_times_chance():
    sample = a_sample(9, rare=clear_group())
    world = worlds.weight_world(sample, 1.0, rng=RNG(2))
    _, group = worlds.group_world(sample, rng=RNG(2))

    def cosines(one):
        rows = weight_rows(one)[group]
        return squared_cosine((rows @ rows.T / rows.shape[1])[None])[0] * 2 * sample.W_in.shape[1]

    assert cosines(world) - cosines(sample) == pytest.approx(1.0, rel=0.15)
    others = np.setdiff1d(np.arange(NEURONS), group)
    for name in ("W_in", "W_out"):
        one, two = getattr(sample, name), getattr(world, name)
        np.testing.assert_array_equal(one[others], two[others])
        np.testing.assert_allclose(two[group].mean(axis=1), one[group].mean(axis=1), atol=0.6)
    still = worlds.weight_world(sample, 0.0, rng=RNG(2))
    np.testing.assert_array_equal(still.W_in, sample.W_in)
    np.testing.assert_array_equal(still.delta_loss, world.delta_loss)


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [0.5, 1.0, 2.0])
def test_a_head_world_gives_one_head_its_effect_in_standard_deviations(wanted, ground):
    world, sums = worlds.head_world(*ground[:2], LAYERS, wanted, False, rng=RNG(3))
    found = moved(world, sums, LAYERS)
    assert found.largest()[0, :, 0].mean() == pytest.approx(wanted, rel=0.02)
    changed = (sums.change != ground[1].change).any(axis=1)
    assert changed.any(axis=1).sum() == 1
    assert changed.sum() == SIZE


@pytest.mark.parametrize("wanted", [3.0, 6.0])
def test_a_head_world_by_the_median_gives_one_head_so_many_of_it(wanted, ground):
    world, sums = worlds.head_world(*ground[:2], LAYERS, wanted, True, rng=RNG(4))
    ratio = np.exp(moved(world, sums, LAYERS).over_median()[0, :, 0]).mean()
    assert ratio == pytest.approx(wanted, rel=0.1)


def test_a_head_world_of_size_zero_has_the_heads_that_were_measured(ground):
    world, sums = worlds.head_world(*ground[:2], LAYERS, 0.0, False, rng=RNG(5))
    assert sums is ground[1]
    assert world.post is ground[0].post


@pytest.mark.parametrize("percent", [0.0, -47.5, -95.0])
def test_a_layer_world_takes_so_many_percent_away(percent, ground):
    world, sums = worlds.layer_world(*ground[:2], LAYERS, percent, rng=RNG(6))
    _, group = worlds.group_world(ground[0], rng=RNG(6))
    rare = sums.stratum == RARE
    before = sums.before[rare][:, group].sum()
    for layer in sums.after:
        left = layer[rare][:, group].sum()
        assert 100 * (left / before - 1) == pytest.approx(percent)
    found = moved(world, sums, LAYERS).layer[0].mean(axis=0)
    assert found[0] == pytest.approx(percent, abs=2)
    assert found[1:].mean() == pytest.approx(-25, abs=3)


# --- queries --------------------------------------------------------------------------------------


def test_labels_are_exchanged_within_documents():
    rows = some_rows(1)
    world = worlds.exchanged_queries(rows, rng=RNG(7))
    for one in np.unique(rows.queries.document):
        of = rows.queries.document == one
        assert world.rare[of].sum() == rows.rare[of].sum()
    assert (world.rare != rows.rare).mean() > 0.3
    assert world.mass is rows.mass


def test_exchanged_labels_leave_no_difference():
    rows = some_rows(2)
    rows = replace(rows, gini=rows.gini + 0.3 * rows.rare[:, None])
    dealt = deal(rows.queries.document, rng=RNG(0))
    world = worlds.exchanged_queries(rows, rng=RNG(8))
    assert gini_difference(rows.gini, rows, dealt, False).low > 0.2
    found = gini_difference(world.gini, world, dealt, False)
    assert found.low < 0 < found.high


def test_a_profile_world_turns_a_share_of_the_attention_of_rare_queries_round():
    rows = some_rows(3)
    none, half, whole = (worlds.profile_world(rows, s, rng=RNG(9)) for s in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal(none.mass, rows.mass)
    rare = whole.rare
    keys = rows.keys.astype(float)
    for layer, before in zip(whole.mass, rows.mass, strict=True):
        for query in np.flatnonzero(rare)[:5]:
            held = keys[query] > 0
            per_key = np.where(held, before[query] / np.where(held, keys[query], 1), 0)
            turned = per_key[:, ::-1] * keys[query]
            turned *= (before[query].sum(axis=-1) / turned.sum(axis=-1))[:, None]
            np.testing.assert_allclose(layer[query], turned)
    np.testing.assert_allclose(half.mass, (none.mass + whole.mass) / 2)
    np.testing.assert_array_equal(whole.mass[:, ~rare], rows.mass[:, ~rare])
    np.testing.assert_allclose(half.mass.sum(axis=-1), 1)


@pytest.mark.parametrize("more", [0.0, 0.08])
def test_a_gini_world_raises_the_coefficients_of_rare_queries(more):
    rows = some_rows(4)
    world = worlds.gini_world(rows, more, rng=RNG(10))
    for name in ("gini", "gini_rest"):
        added = getattr(world, name) - getattr(rows, name)
        np.testing.assert_allclose(added[:, world.rare], more, atol=1e-12)
        np.testing.assert_allclose(added[:, ~world.rare], 0, atol=1e-12)
