"""Blocks of documents, and intervals that hold the truth as often as they say."""

import numpy as np
import pytest
from scipy.stats import t as student

from raretok.claims.compare import difference
from raretok.claims.regimes.estimate import top_share
from raretok.claims.sample import Sample
from raretok.errors import NotTestableError
from raretok.stats.jackknife import SPLITS, Estimate, block_sums, deal, jackknife
from tests.synthetic import a_sample, power_law

RNG = np.random.default_rng


def uneven_documents(rng, n=40, most=12):
    return rng.permutation(np.repeat(7 * np.arange(n) + 3, rng.integers(1, most, n)))


# --- blocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 15, 16, 40, 100])
def test_every_document_is_in_one_block_and_blocks_are_alike(n):
    rng = RNG(n)
    document = uneven_documents(rng, n)
    dealt = deal(document, rng=rng)
    assert dealt.n_blocks == min(16, n)
    np.testing.assert_array_equal(dealt.documents, np.unique(document))
    per_block = np.bincount(dealt.block, minlength=dealt.n_blocks)
    assert per_block.max() - per_block.min() <= 1
    positions = np.bincount(dealt.of(document), minlength=dealt.n_blocks)
    assert positions.max() - positions.min() <= 11  # no more than the largest document
    for one in np.unique(document):
        assert np.unique(dealt.of(document)[document == one]).size == 1


def test_halves_are_halves_and_each_is_followed_by_the_rest():
    halves = deal(np.arange(100), rng=RNG(0)).halves
    assert halves.shape == (SPLITS, 16)
    assert (halves.sum(axis=1) == 8).all()
    np.testing.assert_array_equal(halves[::2], ~halves[1::2])
    assert len(np.unique(halves, axis=0)) > SPLITS // 2


def test_documents_that_come_first_are_spread():
    rng, document = RNG(1), np.arange(80).repeat(3)
    first = rng.permutation(80)[:24]
    dealt = deal(document, first=first, rng=rng)
    among = np.bincount(dealt.of(first), minlength=16)
    assert set(among.tolist()) <= {1, 2}
    assert set(np.bincount(dealt.block).tolist()) == {5}


def test_dealing_anew_deals_otherwise_and_the_same_seed_deals_the_same():
    document = np.arange(60)
    one, two, same = (deal(document, rng=RNG(seed)) for seed in (0, 1, 0))
    assert (one.block != two.block).any()
    np.testing.assert_array_equal(one.block, same.block)
    np.testing.assert_array_equal(one.halves, same.halves)


def test_three_documents_are_too_few():
    with pytest.raises(NotTestableError, match="3 documents are too few for an interval: 4"):
        deal(np.array([5, 5, 6, 9]), rng=RNG(0))


def test_folds_part_chosen_from_measured_only_where_asked():
    dealt = deal(np.arange(40), rng=RNG(2))
    assert dealt.kept[0].all()
    np.testing.assert_array_equal((~dealt.kept[1:]).sum(axis=1), 1)
    chosen, measured = dealt.folds(True)
    assert chosen.shape == measured.shape == (17, SPLITS, 16)
    assert (chosen * measured == 0).all()
    np.testing.assert_array_equal(chosen + measured, dealt.kept[:, None] * np.ones((17, SPLITS, 1)))
    same = dealt.folds(False)
    assert same[0] is same[1]
    np.testing.assert_array_equal(same[0][:, 0], dealt.kept)


def test_block_sums_equal_a_slow_loop():
    rng = RNG(3)
    values, weight = rng.normal(size=(50, 2, 3)), rng.uniform(size=50)
    block = rng.integers(4, size=50)
    slow = np.zeros((5, 2, 3))
    for row in range(50):
        slow[block[row]] += weight[row] * values[row]
    np.testing.assert_allclose(block_sums(values, weight, block, 5), slow, atol=1e-12)


# --- the interval ---------------------------------------------------------------------------------


def test_the_interval_of_a_mean_of_blocks_is_students():
    x = RNG(4).normal(size=16)
    left_out = (x.sum() - x) / 15
    found = jackknife(np.concatenate([[x.mean()], left_out]))
    reach = student.ppf(0.975, 15) * x.std(ddof=1) / 4
    assert (found.value, found.low, found.high) == pytest.approx(
        (x.mean(), x.mean() - reach, x.mean() + reach)
    )


def test_scatter_widens_the_interval_and_an_increasing_function_maps_it():
    still = jackknife(np.full(17, 2.0), scatter=0.5, n_scatter=10**6)
    assert (still.low, still.high) == pytest.approx((2 - 1.96 * 0.5, 2 + 1.96 * 0.5), rel=1e-3)
    few = jackknife(np.full(17, 2.0), scatter=0.5, n_scatter=8)
    assert few.high == pytest.approx(2 + student.ppf(0.975, 7) * 0.5 * np.sqrt(9 / 8))
    assert still.through(np.exp) == Estimate(*np.exp([still.value, still.low, still.high]))
    values = RNG(5).normal(size=17)
    assert jackknife(values, 1.0).high > jackknife(values).high


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_some_documents_are_needed_for_has_no_interval(bad):
    values = np.ones(17)
    values[5] = bad
    with pytest.raises(NotTestableError, match="without some of the documents"):
        jackknife(values)


# --- coverage -------------------------------------------------------------------------------------


def holds(found: Estimate, truth: float) -> bool:
    return found.low <= truth <= found.high


def by_documents(rng, n_documents=40):
    """Documents of very different sizes whose positions share a topic; sums over blocks."""
    size = rng.geometric(0.15, n_documents)
    document = np.repeat(np.arange(n_documents), size)
    y = rng.normal(size=n_documents)[document] + rng.normal(size=document.size)
    dealt = deal(document, rng=rng)
    block = dealt.of(document)
    return dealt.kept.astype(float), np.bincount(block, y, 16), np.bincount(block, minlength=16)


def test_coverage_of_a_mean_over_documents():
    rng, covered = RNG(6), 0
    for _ in range(2_000):
        kept, total, count = by_documents(rng)
        covered += holds(jackknife((kept @ total) / (kept @ count)), 0.0)
    assert 0.90 <= covered / 2_000 <= 0.98  # by positions alone it would be about 60 %


def test_coverage_of_a_ratio():
    rng, covered = RNG(7), 0
    for _ in range(2_000):
        topic = rng.normal(size=40)
        above, below = (np.exp(0.5 * topic + 0.5 * rng.normal(size=40)) for _ in range(2))
        dealt = deal(np.arange(40), rng=rng)
        kept = dealt.kept.astype(float)
        sums = (kept @ np.bincount(dealt.block, x, 16) for x in (above, below))
        covered += holds(jackknife(np.log(np.divide(*sums))).through(np.exp), 1.0)
    assert 0.90 <= covered / 2_000 <= 0.98


def test_coverage_where_neurons_are_a_draw_too():
    """A group of nothing special: noise of documents and of the choice of its neurons."""
    rng, covered = RNG(8), {"with": 0, "without": 0}
    for _ in range(2_000):
        of_neurons = 0.5 * rng.normal(size=21)
        of_documents = rng.normal(size=(16, 1)) + rng.normal(size=(16, 21))
        kept = np.vstack([np.ones(16), 1 - np.eye(16)])
        values = of_neurons + (kept @ of_documents) / kept.sum(axis=1, keepdims=True)
        covered["with"] += holds(difference(values[:, None]), 0.0)
        each = values[:, 0] - values[:, 1:].mean(axis=1)
        covered["without"] += holds(jackknife(each), 0.0)
    assert 0.90 <= covered["with"] / 2_000 <= 0.995
    assert covered["without"] / 2_000 < 0.8


def chosen_influence(sample: Sample) -> Estimate:
    """Mean influence of the chosen group, measured on the documents it was not chosen on."""
    measured = np.take_along_axis(sample.influence("rare", True), sample.groups, axis=-1)
    return jackknife(measured.mean(axis=(1, 2)))


def share_of_the_top(sample: Sample) -> Estimate:
    return jackknife(top_share(sample, "rare").mean(axis=1))


@pytest.mark.parametrize(
    ("estimate", "noise"), [(chosen_influence, 0.02), (share_of_the_top, 0.01)]
)
def test_coverage_of_what_is_chosen_on_one_half_and_measured_on_the_other(estimate, noise):
    """The truth is what the same design gives on average, over 400 fresh samples."""
    found = []
    for seed in range(400):
        sizes = {"n_documents": 40, "per_class": 3, "size": 4}
        sample = a_sample(seed, rare=power_law(60), noise=noise, post=np.zeros((240, 60)), **sizes)
        found.append(estimate(sample))
    truth = np.mean([one.value for one in found])
    assert np.mean([holds(one, truth) for one in found]) >= 0.90
