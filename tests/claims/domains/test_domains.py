"""Planted worlds of domains: the same neurons, other ones, and too much noise to tell."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr

from raretok.claims.domains import figures
from raretok.claims.domains.estimate import (
    ESTIMANDS,
    FEWEST,
    TEXTS,
    Places,
    Side,
    between,
    findings,
    shared,
    splits,
    unseen,
    with_order,
)
from raretok.claims.sample import Sample
from raretok.claims.style import panels
from raretok.errors import NotTestableError
from raretok.stats.jackknife import deal, jackknife
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import COMMON, RARE

NAMES = ("arrays", "graphs", "law", "poems")
NEURONS, PER_DOCUMENT = 120, 24


def effects(same: bool, seed: int = 0):
    """What each domain's neurons do: one order for all, or an order for each."""
    one, *others = np.random.default_rng(seed).normal(size=(len(NAMES), NEURONS))
    return [one] * len(NAMES) if same else [one, *others]


def a_world(by_domain, noise=2.0, documents=(10, 12, 16, 3), seed=0):
    """A sample of these domains, of which the last has too few documents, and the part of them."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(len(NAMES)), documents)
    document = np.repeat(np.arange(of.size), 2 * PER_DOCUMENT)
    stratum = np.tile([RARE, COMMON], document.size // 2)
    delta_loss = np.array(by_domain)[of[document]]
    delta_loss = delta_loss + noise * rng.normal(size=delta_loss.shape)
    weight = np.where(stratum == RARE, 1.0, 3.0)
    no_weights = np.zeros((NEURONS, 0))
    sample = Sample(
        PROTOCOLS["corrected"],
        delta_loss,
        np.zeros_like(delta_loss),
        weight,
        document,
        stratum,
        *(no_weights, no_weights),
        deal(document, rng=rng),
        6,
    )
    return sample, a_domains_part(sample, of[document])


def a_domains_part(sample, domain, blocks=16) -> xr.Dataset:
    """Sums over blocks of the rare targets of each domain, as they are measured."""
    rare = sample.stratum == RARE
    sums = np.zeros((len(NAMES), 2, blocks, NEURONS))
    weight = np.zeros(sums.shape[:3])
    for i in range(len(NAMES)):
        mine = rare & (domain == i)
        block = np.unique(sample.document[mine], return_inverse=True)[1] % blocks
        np.add.at(sums[i, 0], block, sample.delta_loss[mine])
        np.add.at(weight[i, 0], block, 1.0)
    counts = [rare & (domain == i) for i in range(len(NAMES))]
    return xr.Dataset(
        {
            "sums": (("part", "token_class", "block", "neuron"), sums),
            "weight": (("part", "token_class", "block"), weight),
            "rare_share": ("part", np.full(len(NAMES), 0.25)),
            "positions": ("part", [one.sum() for one in counts]),
            "documents": ("part", [np.unique(sample.document[one]).size for one in counts]),
        },
        attrs={"parts": list(NAMES)},
    )


def a_part(by_part, noise=0.3, blocks=16, seed=0) -> xr.Dataset:
    """A part `influence`: sums over blocks of two classes."""
    rng = np.random.default_rng(seed)
    means = np.array(by_part)[:, None, None]
    weight = rng.uniform(5, 9, (len(by_part), 2, blocks))
    sums = weight[..., None] * (means + noise * rng.normal(size=(*weight.shape, NEURONS)))
    n = len(by_part)
    return xr.Dataset(
        {
            "sums": (("part", "token_class", "block", "neuron"), sums),
            "weight": (("part", "token_class", "block"), weight),
            "rare_share": ("part", np.full(n, 0.02)),
            "positions": ("part", np.full(n, 400)),
            "documents": ("part", np.full(n, 30)),
        },
        attrs={"parts": ["mathematics", "the others"][:n]},
    )


def places_of(same: bool, noise=2.0, two_models=None) -> Places:
    sample, domains = a_world(effects(same), noise)
    orders = effects(same, seed=0)
    texts = {"licences": a_part([orders[0]])}

    def text(name: str) -> xr.Dataset:
        if name not in texts:
            raise NotTestableError(f"{name} was not measured")
        return texts[name]

    def no_models():
        raise NotTestableError("trained on everything")

    study = {"shown": lambda _: sample, "part": lambda _: domains, "on": text}
    return Places(SimpleNamespace(two_models=two_models or no_models, **study))


def test_one_order_in_every_domain_is_found_through_the_noise():
    sides = with_order(places_of(same=True, noise=9.0).domains)
    assert [side.name for side in sides] == list(NAMES[:3])
    assert max(side.reliability[0] for side in sides) < 0.75  # what the ceiling corrects for
    found = between(sides)
    assert found.value == pytest.approx(1, abs=0.08)
    assert found.low < found.value < found.high


def test_domains_with_orders_of_their_own_share_none():
    found = between(with_order(places_of(same=False).domains))
    assert abs(found.value) < 0.2
    assert found.high < 0.5


def test_noise_alone_is_a_gap_with_its_reason():
    places = places_of(same=True, noise=1e6)
    with pytest.raises(NotTestableError, match="domains have an order of the neurons that repeats"):
        between(with_order(places.domains)[:2])
    unrepeated = [side for side in places.domains[:3] if side.reliability.min() <= 0]
    assert unrepeated
    with pytest.raises(NotTestableError, match=f"{unrepeated[0].name}: the order of the neurons"):
        shared(unrepeated[0], unrepeated[0])


def test_a_pair_is_what_loops_over_documents_give():
    one, two = places_of(same=True).domains[:2]
    kept = np.arange(FEWEST) != 3  # the fourth estimate left out is without block 3
    for left_out, blocks in ((0, np.ones(FEWEST, dtype=bool)), (4, kept)):
        across, within = [], []
        for half in splits()[0][0].astype(bool):
            means = [
                side.sums[half_of & blocks].sum(axis=0) / side.weight[half_of & blocks].sum()
                for side in (one, two)
                for half_of in (half, ~half)
            ]
            across.append(spearmanr(means[0], means[3]).statistic)
            within.append([spearmanr(*means[i : i + 2]).statistic for i in (0, 2)])
        by_hand = np.mean(across) / np.sqrt(np.prod(np.mean(within, axis=0)))
        assert shared(one, two)[left_out] == pytest.approx(by_hand)


def test_sums_of_the_corpus_are_of_its_rare_targets_alone():
    sample, _ = a_world(effects(same=False))
    side = Side.of_sample("the corpus", sample)
    rare = sample.stratum == RARE
    np.testing.assert_allclose(side.sums.sum(axis=0), sample.delta_loss[rare].sum(axis=0))
    assert side.weight.sum() == side.positions == rare.sum()
    assert (side.documents, side.base_rate) == (41, 0.25)


def test_a_domain_with_too_few_documents_is_named():
    places = places_of(same=True)
    gap = "poems: 72 rare positions in 3 documents, 200 in 8 are needed"
    assert places.domains[3].gap == gap
    with pytest.raises(NotTestableError, match=gap):
        _ = places.domains[3].ranks
    assert figures.sides_table(places).loc["poems", "reliability"] == "too few"


def test_a_domain_never_seen_is_a_difference_of_two_models():
    one, other = effects(same=False)[:2]
    never, seen = a_part([one, other]), a_part([one, one], seed=1)
    places = places_of(same=True, two_models=lambda: (never, seen))
    found = {one.estimand: one for one in findings(places)}["unseen domain"]
    assert found.estimate.value == pytest.approx(-1, abs=0.2)
    assert found.gates == {"positions": 400, "documents": 30}
    sides = [[Side.of_part("", data, j) for j in (0, 1)] for data in (never, seen)]
    apart = [jackknife(shared(*some)) for some in sides]
    assert found.estimate.value == pytest.approx(apart[0].value - apart[1].value)
    reach = np.hypot(*(one.high - one.value for one in apart))
    assert unseen(*sides).high == pytest.approx(found.estimate.value + reach)


def test_a_text_that_was_not_measured_is_a_gap_and_the_rest_goes_on():
    found = list(findings(places_of(same=True)))
    assert tuple((one.claim, one.estimand) for one in found) == ESTIMANDS
    values = {one.estimand: one for one in found}
    assert values["between domains"].gates == {"positions": 240, "documents": 10}
    assert values["licences"].estimate.value == pytest.approx(1, abs=0.06)
    assert values["addresses"].reason == "addresses was not measured"
    assert values["unseen domain"].estimate is None


def test_a_group_serves_where_it_is_the_same_and_not_elsewhere():
    for same in (True, False):
        sides = with_order(places_of(same).domains)
        reached, common = figures.transfer(sides, 6), figures.overlap(sides, 6)
        np.testing.assert_allclose(np.diag(reached), 1)
        off = ~np.eye(len(sides), dtype=bool)
        if same:
            assert reached[off].min() > 0.85
            assert common[off].mean() == pytest.approx(np.diag(common).mean(), abs=0.1)
        else:
            assert reached[off].max() < 0.5
            assert common[off].max() < 0.35


def test_the_matrices_of_a_page_with_gaps_are_drawn():
    places = places_of(same=True)
    sides = figures.compared(places)
    assert [side.name for side in sides] == [*NAMES[:3], TEXTS[0]]
    _, axes = panels()
    order = figures.order_matrix(sides)
    assert np.isnan(np.diag(order)).all()
    assert order[0, 1] == pytest.approx(shared(*sides[:2])[0])
    figures.heat(axes[0], sides, order, title="order")
    assert len(axes[0].texts) == 2 * len(list(combinations(sides, 2)))


def test_neurons_in_common_are_counted_over_the_groups_of_the_domains():
    same, other = (figures.in_common(places_of(one), 6) for one in (True, False))
    assert same["n_domains"] == other["n_domains"] == "3"
    assert int(same["in_all"]) > int(other["in_all"]) == 0
    assert int(same["in_any"]) < int(other["in_any"]) <= 18
    assert int(other["in_one"]) > int(same["in_one"])
    within, across = (float(other[name].split()[0]) for name in ("within", "across"))
    assert within > across
