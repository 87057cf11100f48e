"""Overlap of rankings: identities, chance, and worlds whose sharing is known."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import hypergeom

from raretok.errors import UserError
from raretok.ledger.verdicts import paper_claims, verdict
from raretok.sections import overlap as ov
from raretok.sections import overlap_page as page
from raretok.sections.contrast import Classes
from raretok.sections.influence import influence, top_overlap
from raretok.sections.rankings import (
    class_pairs,
    document_rows,
    mean_curve,
    position_rows,
    ranked_by,
    ranks,
    renamed,
    resampled,
    shared_curve,
)
from raretok.stats.groups import Draws, Fold, control_groups
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import COMMON, RARE

RNG = np.random.default_rng
N, PER_CLASS, DOCUMENTS, K = 200, 160, 24, 10


def world(seed: int, shared: int = 0, noise: float = 1e-3) -> xr.Dataset:
    """Power laws over neurons in random order; common targets share the first `shared` of it."""
    rng = RNG(seed)
    law = 1e-2 / np.arange(1, N + 1)
    rare = rng.permutation(N)
    rest = rng.permutation(np.setdiff1d(np.arange(N), rare[:K]))
    common = np.concatenate([rare[:shared], rest, rare[shared:K]]) if shared < N else rare
    mean = np.empty((2, N))
    mean[0, rare], mean[1, common] = law, law
    delta = np.repeat(mean, PER_CLASS, axis=0) + noise * rng.normal(size=(2 * PER_CLASS, N))
    coords = {
        "stratum": ("position", np.repeat([RARE, COMMON], PER_CLASS)),
        "weight": ("position", rng.uniform(0.5, 2, 2 * PER_CLASS)),
        "document": ("position", rng.integers(DOCUMENTS, size=2 * PER_CLASS)),
    }
    return xr.Dataset({"delta_loss": (("position", "neuron"), delta)}, coords)


def found_in(effects: xr.Dataset, protocol: str = "corrected", n: int = 150) -> ov.Overlap:
    classes = ov.class_arrays(effects)
    mean = influence(classes.delta_loss[classes.rare], classes.weight[classes.rare], signed=True)
    group = np.argsort(-mean)[:K]
    controls = control_groups(np.zeros((N, 4)), group, False, Draws(n, [group], RNG(0)))
    fold = Fold(group, controls, controls, np.ones(2 * PER_CLASS, dtype=bool))
    return ov.find_overlap(effects, [fold], PROTOCOLS[protocol], n_boot=n, n_perm=n, rng=RNG(1))


@pytest.fixture(scope="module")
def apart():
    return found_in(world(1))


@pytest.fixture(scope="module")
def together():
    return found_in(world(2, shared=K))


def test_the_curve_is_the_top_overlap_at_every_k():
    first, second = RNG(0).normal(size=(2, 3, 40))
    curve = shared_curve(first, second)
    for draw in range(3):
        orders = (np.argsort(-values[draw]) for values in (first, second))
        one, other = orders
        expected = [top_overlap(one, other, k) for k in range(1, 41)]
        np.testing.assert_allclose(curve[draw], expected)
    np.testing.assert_allclose(shared_curve(first, first), 1)
    assert (curve[:, -1] == 1).all()


def test_ranks_by_hand_with_a_tie():
    np.testing.assert_array_equal(ranks(np.array([[1.0, 3.0, 3.0, -2.0]])), [[2, 0, 1, 3]])


def test_renaming_neurons_follows_the_hypergeometric_law():
    first, second = RNG(1).normal(size=(2, 1, 60))
    draws = renamed([(first, second)], 12, 20_000, rng=RNG(2))
    seen = np.bincount((12 * draws).round().astype(int), minlength=13) / draws.size
    np.testing.assert_allclose(seen, hypergeom(60, 12, 12).pmf(np.arange(13)), atol=0.012)


def test_documents_carry_what_their_positions_do():
    rows = position_rows(ov.class_arrays(world(3)))
    cells = document_rows(rows)
    for protocol in PROTOCOLS.values():
        for name in (0, 1):
            own = (one.of_class(one.weight[None])[name] for one in (rows, cells))
            both = [
                ranked_by(one, weight, np.ones(len(one.weight), dtype=bool), protocol)
                for one, weight in zip((rows, cells), own, strict=True)
            ]
            np.testing.assert_allclose(*both, rtol=2e-3, atol=1e-8)
    weights = resampled(cells, 5, rng=RNG(0))
    assert (np.minimum(*weights) == 0).all()


def test_rankings_equal_the_influence_of_the_regimes_page():
    classes = ov.class_arrays(world(4))
    rows = position_rows(classes)
    rare, _ = rows.of_class(rows.weight[None])
    everything = np.ones(len(rows.weight), dtype=bool)
    delta, weight = classes.delta_loss[classes.rare], classes.weight[classes.rare]
    for name, signed in (("corrected", True), ("text", False)):
        expected = influence(delta, weight, signed=signed)
        found = ranked_by(rows, rare, everything, PROTOCOLS[name])[0]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-8)
    code = ranked_by(rows, rare, everything, PROTOCOLS["code"])[0]
    np.testing.assert_array_equal(code < 0, influence(delta, weight, signed=True) <= 0)


def test_halves_are_crossed_so_that_a_topic_of_documents_is_not_shared():
    """Every neuron fires in one document only, for both classes: a topic, and no law."""
    rng = RNG(5)
    document = np.tile(np.arange(20), 10)
    topic = 1.0 * (np.arange(200)[None] % 20 == document[:, None]) * rng.normal(size=200)
    classes = Classes(topic, np.ones(200), document, np.arange(200) // 20 % 2 == 0)
    rows = position_rows(classes)
    half = document < 10
    own = rows.of_class(rows.weight[None])
    crossed = mean_curve(class_pairs(rows, own, [half], PROTOCOLS["corrected"]))
    plain = mean_curve(class_pairs(rows, own, [half], PROTOCOLS["text"]))
    assert plain[0, 9] == 1
    assert crossed[0, 9] < 0.3


def test_sharing_is_found_and_its_absence_too(apart, together):
    assert apart.value < 0.15
    assert apart.labels.p < 0.01
    assert together.value > 0.8
    assert together.chance.p < 0.01
    assert together.interval.low > 0.5
    assert together.ceiling[K - 1] >= together.value - 0.1


def test_labels_that_do_not_matter_raise_no_alarm():
    for seed in range(5):
        same = found_in(world(20 + seed, shared=N, noise=1e-2))
        assert same.labels.p > 0.01
        assert same.permuted[0][K - 1] <= same.value <= same.permuted[1][K - 1] + 0.1


def test_verdicts_follow(apart, together):
    seen = ov.evidence(together, apart)
    assert verdict(seen) == "not reproduced"
    assert seen.power > 0.8
    if apart.chance.p >= 0.05:
        assert verdict(ov.evidence(apart, apart)) == "reproduced"
    assert paper_claims()["O1"].kind == "absent"


def test_rankings_that_cannot_be_repeated_have_no_power():
    noisy = found_in(world(6, noise=1.0))
    one = ov.evidence(noisy, noisy)
    assert min(noisy.within.values()) < 0.3
    assert one.power < 0.8
    assert one.p >= 0.05
    assert verdict(one) == "not testable here"


def test_unrelated_rankings_raise_no_alarm():
    """60 worlds in which the classes share nothing but chance; crossed pairs, as corrected."""
    alarms, protocol = 0, PROTOCOLS["corrected"]
    for seed in range(60):
        rng = RNG(seed)
        mean = np.stack([rng.permutation(1e-2 / np.arange(1, N + 1)) for _ in range(2)])
        delta = np.repeat(mean, 40, axis=0) + 1e-3 * rng.normal(size=(80, N))
        rare = np.arange(80) < 40
        rows = position_rows(Classes(delta, np.ones(80), rng.integers(12, size=80), rare))
        halves = [rows.document % 2 == 0, rows.document < 6]
        pairs = class_pairs(rows, rows.of_class(rows.weight[None]), halves, protocol)
        alarms += ov.chance_test(pairs, K, 200, rng=rng).p < 0.05
    assert alarms <= 0.08 * 60


def test_the_group_of_a_shared_world_carries_the_common_influence(apart, together):
    assert together.carried.value > 0.3
    assert together.carried.p < 0.02
    assert apart.carried.value < 0.1
    assert together.top[0].common_rank <= K
    low, high = together.top[0].common_interval.low, together.top[0].common_interval.high
    assert low < together.top[0].common < high


def test_a_rerun_gives_the_same_numbers(apart):
    again = found_in(world(1))
    assert again.interval == apart.interval
    assert again.chance.p == apart.chance.p


def test_tables_figures_and_sentences_are_complete(apart, together):
    table = page.overlap_table({"corrected": together}, {"corrected": apart})
    assert not table.isna().to_numpy().any()
    assert not page.top_table(apart).isna().to_numpy().any()
    assert page.told(together)["o_more"] == "more than"
    assert page.scatter_figure(together)["both"].sum() >= 8
    drawn = page.tops_figure(apart)
    for name in ("share", "ceiling", "chance"):
        assert np.isfinite(drawn[name]).all()
        assert drawn[name].size == N


def test_a_top_of_all_neurons_is_refused():
    every = np.arange(N)
    fold = Fold(every, every[None], every[None], np.ones(2 * PER_CLASS, dtype=bool))
    with pytest.raises(UserError, match="lower k"):
        ov.find_overlap(world(1), [fold], PROTOCOLS["text"], n_boot=10, n_perm=10, rng=RNG(0))
