"""The modularity test on worlds whose answer is known, and its parts against brute force."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from numpy.random import default_rng as RNG

from raretok.errors import UserError
from raretok.ledger.verdicts import verdict
from raretok.sections import modularity
from raretok.sections.graphs import (
    balanced,
    correlation,
    fold_activity,
    rewired,
    shuffled,
)
from raretok.sections.modularity import evidence, find_modularity, modularity_test
from raretok.sections.module_measures import (
    document_moments,
    find_links,
    held_out_Q,
    links_beyond,
    measures,
    resampled_graphs,
)
from raretok.stats.groups import Fold
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import COMMON, RARE

N, SIZE, POSITIONS, DOCUMENTS = 80, 10, 300, 30
GROUP = np.arange(SIZE)
DOCUMENT = np.repeat(np.arange(DOCUMENTS), POSITIONS // DOCUMENTS)


def a_fold(rng, n_controls=40, measured=None):
    pool = np.arange(SIZE, N)
    controls = np.stack([rng.choice(pool, SIZE, replace=False) for _ in range(n_controls)])
    everything = np.ones(POSITIONS, dtype=bool)
    return Fold(GROUP, controls, controls, everything if measured is None else measured)


def world(rng, kind, strength=1.0):
    """Independent neurons with documents of their own; the group gets what `kind` says."""
    post = rng.normal(size=(POSITIONS, N)) + 0.3 * rng.normal(size=(DOCUMENTS, N))[DOCUMENT]
    if kind == "modules":  # two blocks, each with a factor of its own
        post[:, GROUP] += strength * rng.normal(size=(POSITIONS, 2))[:, GROUP // 5]
    if kind == "one factor":
        post[:, GROUP] += strength * rng.normal(size=(POSITIONS, 1))
    if kind == "coordinated controls":  # every neuron but those of the group
        loadings = strength * rng.normal(size=N - SIZE)
        post[:, SIZE:] += loadings * rng.normal(size=(POSITIONS, 1))
    return post


def outcome(kind, seed, **asked):
    rng = RNG(seed)
    return modularity_test(world(rng, kind), [a_fold(rng)], DOCUMENT, rng=rng, **asked)


def test_blocks_are_found_and_the_others_are_not():
    p = {
        kind: np.array([outcome(kind, seed).p for seed in range(12)])
        for kind in ("modules", "one factor", "independent", "coordinated controls")
    }
    assert (p["modules"] < 0.05).mean() >= 0.95
    assert (p["one factor"] < 0.05).mean() <= 0.10
    assert (p["coordinated controls"] < 0.05).mean() <= 0.15


def test_false_alarms_stay_at_the_level():
    alarms = np.array([outcome("independent", seed).p < 0.05 for seed in range(100)])
    assert alarms.mean() <= 0.08


def test_the_largest_Q_takes_missing_coordination_for_modules():
    """Why the corrected protocol holds documents out: the same worlds, both statistics."""
    largest, held_out = (
        np.array([outcome("coordinated controls", s, statistic=name).p for s in range(15)])
        for name in ("largest Q", "held-out Q")
    )
    assert (largest < 0.05).mean() > 0.9
    assert (held_out < 0.05).mean() < 0.2


def test_held_out_Q_has_no_floor_and_finds_modules():
    rng = RNG(0)
    found = {}
    for kind in ("independent", "one factor", "modules"):
        values = [
            measures(find_links(an_activity(world(rng, kind), rng)).among(GROUP[None]))
            for _ in range(12)
        ]
        found[kind] = {name: np.mean([one[name][0] for one in values]) for name in values[0]}
    assert found["independent"]["largest Q"] > 0.06
    assert abs(found["independent"]["held-out Q"]) < 0.03
    assert abs(found["one factor"]["held-out Q"]) < 0.02
    assert found["modules"]["held-out Q"] > 0.2
    assert found["modules"]["silhouette"] > 2 * found["one factor"]["silhouette"]
    assert found["modules"]["second eigenvalue"] > 1.5 * found["one factor"]["second eigenvalue"]
    assert found["one factor"]["mean |r|"] > found["modules"]["mean |r|"]


def an_activity(post, rng, weight=None, n_splits=2, fold=None):
    weight = np.ones(POSITIONS) if weight is None else weight
    rows = np.ones(POSITIONS, dtype=bool)
    fold = a_fold(rng) if fold is None else fold
    return fold_activity(post, fold, rows, DOCUMENT, weight, n_splits=n_splits, rng=rng)


def test_correlation_is_numpys_and_weights_count_positions():
    rng = RNG(1)
    post, times = rng.normal(size=(50, 6)) + 100, rng.integers(1, 5, size=50)
    expected = np.corrcoef(post.repeat(times, axis=0).T) - np.eye(6)
    np.testing.assert_allclose(correlation(post, times.astype(float)), expected, atol=1e-12)


def test_a_constant_neuron_has_no_correlation():
    post = RNG(2).normal(size=(50, 4))
    post[:, 1] = -0.17
    post[:, 2] = 0.0
    r = correlation(post, np.ones(50))
    assert (r[[1, 2]] == 0).all()
    assert np.isfinite(r).all()
    assert abs(r[0, 3]) > 0


def test_constant_groups_are_measured_as_unconnected():
    rng = RNG(3)
    post = world(rng, "independent")
    post[:, GROUP] = 1.5
    test = modularity_test(post, [a_fold(rng)], DOCUMENT, rng=rng)
    assert test.value == 0
    found = measures(find_links(an_activity(post, rng)).among(GROUP[None]))
    assert all(np.isfinite(value).all() for value in found.values())


def test_rewired_graphs_keep_every_strength_and_mix_the_links():
    rng = RNG(4)
    graph = np.abs(correlation(rng.normal(size=(40, 9)) + rng.normal(size=(40, 1)), np.ones(40)))
    graph[8], graph[:, 8] = 0, 0
    draws = rewired(graph, 50, rng=rng)
    np.testing.assert_allclose(draws.sum(axis=2), np.tile(graph.sum(axis=1), (50, 1)), rtol=1e-8)
    np.testing.assert_allclose(draws, draws.transpose(0, 2, 1))
    assert (draws[:, np.arange(9), np.arange(9)] == 0).all()
    assert np.abs(draws - graph).max() > 0.05
    np.testing.assert_allclose(
        balanced(graph[None, :8, :8], graph[:8, :8].sum(axis=1))[0], graph[:8, :8]
    )


def test_shuffling_keeps_each_document_of_each_neuron():
    rng = RNG(5)
    post = rng.normal(size=(POSITIONS, 3))
    draws = shuffled(post, DOCUMENT, 4, rng=rng)
    for one in np.unique(DOCUMENT):
        rows = one == DOCUMENT
        expected = np.tile(np.sort(post[rows], axis=0), (4, 1, 1))
        np.testing.assert_array_equal(np.sort(draws[:, rows], axis=1), expected)
    assert (draws[0] != draws[1]).any()
    assert abs(np.corrcoef(draws[0][:, 0], post[:, 0])[0, 1]) < 0.3


def test_resampled_graphs_are_those_of_documents_repeated():
    rng = RNG(6)
    post, weight = world(rng, "modules") + 50, rng.uniform(0.5, 2, size=POSITIONS)
    activity = an_activity(post, rng, weight)
    groups = np.stack([GROUP, GROUP + 20])
    counts = rng.integers(0, 3, size=(3, DOCUMENTS)).astype(float)
    found = resampled_graphs(activity, groups, counts, 1)
    for draw, count in enumerate(counts):
        expected = find_links(activity.reweighted(count)).among(groups)
        np.testing.assert_allclose(found.r[2 * draw : 2 * draw + 2], expected.r, atol=1e-9)
        for ours, theirs in zip(found.halves[0], expected.halves[0], strict=True):
            np.testing.assert_allclose(ours[2 * draw : 2 * draw + 2], theirs, atol=1e-9)


def test_moments_of_a_constant_neuron_give_no_correlation():
    rng = RNG(7)
    post = world(rng, "independent")
    post[:, 3] = 4.2
    activity = an_activity(post, rng)
    r = document_moments(activity, GROUP[None]).correlation(np.ones((1, DOCUMENTS)))
    assert (r[0, 0, 3] == 0).all()
    assert np.isfinite(r).all()


def test_links_beyond_the_group_by_a_slow_loop():
    rng = RNG(8)
    links = find_links(an_activity(world(rng, "one factor"), rng))
    fold = a_fold(rng)
    r = np.abs(links.r)
    group = fold.controls[0]
    inside = [r[links.column[i], links.column[j]] for i in group for j in group if i != j]
    others = [j for j in fold.controls.ravel() if j not in group]
    outside = [r[links.column[i], links.column[j]] for i in group for j in others]
    found = links_beyond(links, group[None], fold.controls)[0]
    assert found == pytest.approx(np.mean(inside) - np.mean(outside))


def effects_of(post, rng):
    """A run whose rare and common positions alternate; two halves of documents."""
    stratum = np.tile([RARE, COMMON], POSITIONS // 2)
    coords = {
        "stratum": ("position", stratum),
        "weight": ("position", np.ones(POSITIONS)),
        "document": ("position", DOCUMENT),
    }
    return xr.Dataset({"post": (("position", "neuron"), post.astype(np.float32))}, coords)


def found_in(kind, protocol="corrected", seed=0, strength=2.0):
    rng = RNG(seed)
    effects = effects_of(world(rng, kind, strength), rng)
    first = DOCUMENT < DOCUMENTS // 2
    folds = [a_fold(rng, 60, measured) for measured in (first, ~first)]
    return find_modularity(effects, folds, PROTOCOLS[protocol], rng=rng)


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(modularity, "OWN_DRAWS", 50)
    monkeypatch.setattr(modularity, "SPLITS", 1)
    monkeypatch.setattr(modularity, "BOOTSTRAPS", 30)
    monkeypatch.setattr(modularity, "BOOTSTRAP_CONTROLS", 5)
    monkeypatch.setattr(modularity, "BOOTSTRAP_SPLITS", 1)


@pytest.mark.parametrize("protocol", ["text", "corrected"])
def test_modules_contradict_the_paper_under_either_statistic(protocol):
    one = evidence(found_in("modules", protocol), None, rng=RNG(0))
    assert verdict(one) == "not reproduced"
    assert one.interval[0] < one.value < one.interval[1]
    assert one.value > 0.2


def test_one_common_factor_is_coordination_and_no_module():
    found = found_in("one factor")
    one = evidence(found, found, rng=RNG(0))
    assert verdict(one) in ("reproduced", "not testable here")
    assert one.p > 0.05
    assert one.null_world_p == one.p
    assert found.beyond.p < 0.05
    assert found.against_controls("mean |r|", "greater").p < 0.05


def test_the_nulls_agree_that_modules_are_there():
    nulls = found_in("modules").nulls
    assert list(nulls) == ["matched groups", modularity.REWIRED, modularity.SHUFFLED]
    assert all(test.z > 2 for test in nulls.values())


def test_too_few_positions_are_one_clear_line():
    rng = RNG(9)
    rows = np.zeros(POSITIONS, dtype=bool)
    rows[:8] = True
    with pytest.raises(UserError, match="8 positions of 1 documents are too few"):
        modularity_test(world(rng, "modules"), [a_fold(rng)], DOCUMENT, rows=rows, rng=rng)


def test_held_out_needs_a_split():
    rng = RNG(10)
    activity = replace(an_activity(world(rng, "modules"), rng), halves=())
    with pytest.raises(ValueError, match="at least one split"):
        held_out_Q(find_links(activity).among(GROUP[None]))


def test_what_cannot_be_tested_says_so():
    one = modularity.untestable("code", "too few")
    assert verdict(one) == "not testable here"
    assert one.reason == "too few"


def test_a_rerun_gives_the_same_numbers():
    one, two = (found_in("modules", seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.own[modularity.SHUFFLED], two.own[modularity.SHUFFLED])
    assert one.test.p == two.test.p
