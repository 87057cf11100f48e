import numpy as np
import pytest

from raretok.stats.documents import (
    benjamini_hochberg,
    bootstrap_means,
    critical_value,
    document_halves,
    document_sums,
    interval,
    monte_carlo_p,
    null_test,
    percentile_interval,
    permute_within,
    power_of_shift,
    ratio_mean,
    resample_documents,
    smallest_effect,
)

RNG = np.random.default_rng


def positions(rng, n=300, n_documents=40, n_neurons=5):
    document = np.sort(rng.integers(n_documents, size=n))
    return rng.normal(size=(n, n_neurons)), document, rng.uniform(0.5, 4, size=n)


def test_ratio_mean_by_hand_and_refuses_empty_weights():
    values = np.array([[1.0, 10.0], [4.0, 40.0]])
    np.testing.assert_allclose(ratio_mean(values, np.array([3.0, 1.0])), [1.75, 17.5])
    with pytest.raises(ValueError, match="positive sum"):
        ratio_mean(values, np.zeros(2))


def test_bootstrap_means_equal_resampling_documents_one_by_one():
    rng = RNG(0)
    values, document, weight = positions(rng)
    counts = resample_documents(41, 20, rng=rng)
    means = bootstrap_means(document_sums(values, document, weight, 41), counts)
    for row, count in zip(means, counts, strict=True):
        repeated = np.concatenate(
            [np.flatnonzero(document == d).repeat(int(c)) for d, c in enumerate(count)]
        )
        np.testing.assert_allclose(row, ratio_mean(values[repeated], weight[repeated]))


def test_bootstrap_interval_covers_when_documents_share_a_topic():
    """95 % intervals of a mean whose positions are strongly correlated within documents."""
    rng, covered = RNG(1), 0
    document = np.repeat(np.arange(60), 10)
    for _ in range(200):
        values = rng.normal(size=60).repeat(10)[:, None] + 0.1 * rng.normal(size=(600, 1))
        sums = document_sums(values, document, np.ones(600))
        low, high = percentile_interval(bootstrap_means(sums, resample_documents(60, 200, rng=rng)))
        covered += low[0] <= 0 <= high[0]
    # Binomial(200, 0.93) is below 176 with probability 0.006; resampling positions covers 50 %.
    assert covered >= 176


def test_a_resample_without_the_class_is_left_out_of_the_interval():
    sums = document_sums(np.ones((2, 1)), np.array([0, 0]), np.ones(2), n_documents=2)
    means = bootstrap_means(sums, np.array([[2.0, 0.0], [0.0, 2.0]]))
    assert np.isnan(means[1]).all()
    assert percentile_interval(means)[0] == 1
    with pytest.raises(ValueError, match="none of the bootstrap"):
        percentile_interval(means[1:])


def test_halves_part_documents_evenly_and_keep_them_whole():
    rng = RNG(2)
    _, document, _ = positions(rng, n=2000, n_documents=101)
    first = document_halves(document, rng=rng)
    assert not set(document[first]) & set(document[~first])
    assert abs(len(set(document[first])) - len(set(document[~first]))) <= 1
    assert abs(first.mean() - 0.5) < 0.02
    assert not np.array_equal(first, document_halves(document, rng=rng))
    with pytest.raises(ValueError, match="at least 2 documents"):
        document_halves(np.zeros(5, dtype=int), rng=rng)


def test_permutation_stays_within_documents_and_reaches_every_order():
    rng = RNG(3)
    document = np.array([7, 2, 7, 2, 7])
    orders = {tuple(permute_within(document, rng=rng).tolist()) for _ in range(200)}
    assert len(orders) == 12
    assert all(np.array_equal(document[list(order)], document) for order in orders)


def test_monte_carlo_p_counts_ties_and_never_reaches_zero():
    null = np.array([1.0, 2.0, 3.0, 4.0])
    assert monte_carlo_p(4.0, null) == pytest.approx(2 / 5)
    assert monte_carlo_p(9.0, null) == pytest.approx(1 / 5)
    np.testing.assert_allclose(monte_carlo_p(np.array([0.0, 2.5]), null), [1, 3 / 5])


def test_benjamini_hochberg_by_hand():
    np.testing.assert_allclose(benjamini_hochberg(np.array([0.01, 0.04, 0.03])), [0.03, 0.04, 0.04])


def test_interval_of_a_known_law():
    found = interval(RNG(4).normal(size=100_000), level=0.9)
    np.testing.assert_allclose([found.low, found.high], [-1.645, 1.645], atol=0.03)
    assert found.level == 0.9


def test_a_null_test_by_hand():
    null = np.arange(1.0, 100.0)  # 99 draws: 1 .. 99
    test = null_test(97.0, null, "greater")
    assert test.p == pytest.approx(4 / 100)  # 97, 98, 99 reach it
    assert test.z == pytest.approx(47 / null.std())
    assert null_test(97.0, null, "less").p == pytest.approx(98 / 100)
    assert null_test(97.0, null, "two-sided").p == pytest.approx(8 / 100)
    assert null_test(50.0, null, "two-sided").p == 1
    # p < 0.05 asks for at most 3 draws (4 / 100), so for more than 96; 19 draws may be missed.
    assert critical_value(null, 0.05) == 96
    assert test.smallest == 96 - 19
    assert test.power(77.0) == pytest.approx(80 / 99)
    assert test.power(76.0) == pytest.approx(79 / 99)
    assert test.power(-77.0) == test.power(77.0)


@pytest.mark.parametrize("n_draws", [12, 45, 200])
def test_power_is_the_share_of_shifted_draws_whose_p_is_below_the_level(n_draws):
    """Against the p-values themselves, one shifted draw at a time, with ties."""
    null = np.round(RNG(5).gamma(2.0, size=n_draws), 1)
    for shift in (0.0, 0.7, 3.0, 9.0):

        def seen(level: float, up: bool, shift=shift) -> float:
            side, moved = ("greater", null + shift) if up else ("less", null - shift)
            return np.mean([null_test(x, null, side).p < level for x in moved])

        assert power_of_shift(null, shift, "greater") == seen(0.05, True)
        assert power_of_shift(null, shift, "less") == seen(0.05, False)
        worse = min(seen(0.025, True), seen(0.025, False))
        assert power_of_shift(null, shift, "two-sided") == worse


@pytest.mark.parametrize("side", ["greater", "less", "two-sided"])
def test_the_smallest_effect_is_seen_in_80_percent_of_fresh_runs(side):
    """Monte Carlo: new statistics, scattered as the null is, with the effect put on them."""
    rng = RNG(6)
    null = rng.gumbel(size=4000)  # skewed: the two directions differ
    smallest = null_test(0.0, null, side).smallest
    fresh, seen = rng.gumbel(size=4000), []
    for sign in {"greater": [1], "less": [-1], "two-sided": [1, -1]}[side]:
        p = monte_carlo_p(sign * fresh + smallest, sign * null)
        seen.append(np.mean(p < (0.025 if side == "two-sided" else 0.05)))
    assert min(seen) == pytest.approx(0.8, abs=0.03)
    assert power_of_shift(null, smallest, side) == pytest.approx(0.8, abs=0.001)
    assert power_of_shift(null, 0.98 * smallest, side) < 0.8


def test_the_null_test_does_not_depend_on_unit_or_sign():
    null, value = RNG(7).normal(size=500), 1.9
    one, scaled = null_test(value, null, "greater"), null_test(10 * value, 10 * null, "greater")
    assert (one.p, one.z) == pytest.approx((scaled.p, scaled.z))
    assert scaled.smallest == pytest.approx(10 * one.smallest)
    mirrored = null_test(-value, -null, "less")
    assert (one.p, one.z, one.smallest) == pytest.approx(
        (mirrored.p, -mirrored.z, mirrored.smallest)
    )


def test_the_null_test_keeps_its_level():
    rng = RNG(8)
    hits = [null_test(x, rng.normal(size=199), "two-sided").p < 0.05 for x in rng.normal(size=2000)]
    assert np.mean(hits) == pytest.approx(0.05, abs=0.015)


def test_too_few_draws_see_nothing_whatever_the_effect():
    null = np.arange(19.0)
    assert null_test(1e9, null, "greater").p == 0.05
    assert power_of_shift(null, 1e9, "greater") == 0
    assert np.isinf(smallest_effect(null, "greater"))
    assert power_of_shift(np.arange(20.0), 1e9, "greater") == 1


@pytest.mark.parametrize(
    ("value", "null", "message"),
    [
        (np.nan, np.arange(9.0), "no finite value"),
        (1.0, np.full(9, np.nan), "no finite value"),
        (1.0, np.empty(0), "no finite value"),
        (1.0, np.zeros(9), "all draws of the null are the same, 0"),
        (1.0, np.full(9, 0.1), "all draws of the null are the same, 0.1"),
    ],
)
def test_a_null_that_cannot_be_used_is_refused(value, null, message):
    with pytest.raises(ValueError, match=f"not testable: .*{message}"):
        null_test(value, null, "greater")


def test_draws_that_are_not_finite_are_left_out():
    null = np.array([1.0, np.nan, 2.0, np.inf, 3.0])
    assert null_test(2.5, null, "greater").p == pytest.approx(2 / 4)
