"""The smooth law of rank curves: exact laws lie on it, planted heads stand above it."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import norm

from raretok.claims.regimes.curve import (
    LAST,
    bin_means,
    bin_weights,
    bins,
    depth,
    draw_law,
    head_size,
    lift_scatter,
    log_lift,
    smooth_curve,
)
from raretok.errors import NotTestableError

RNG = np.random.default_rng
N, HEAD = 1024, 10
DEPTH = depth(np.arange(float(N)), N)
LAWS = {
    "power law 0.5": np.exp(0.5 * DEPTH),
    "power law 1": np.exp(DEPTH),
    "exponential": DEPTH,
    "Weibull 0.5": DEPTH**2,
    "Weibull 2": DEPTH**0.5,
    "between": np.exp(2 * DEPTH**0.5),
}


def raised(law, factor, size=HEAD):
    values = LAWS[law].copy()
    values[:size] *= factor
    return values


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_lift_of_an_exact_law_is_what_its_head_was_multiplied_by(law, factor):
    assert log_lift(raised(law, factor), HEAD) == pytest.approx(np.log(factor), abs=0.02)


@pytest.mark.parametrize("law", LAWS)
def test_the_smooth_curve_is_the_law_itself(law):
    fitted = smooth_curve(LAWS[law], HEAD)
    assert fitted.size == int(LAST * N)
    np.testing.assert_allclose(fitted, np.log(LAWS[law][: fitted.size]), atol=0.02)


@pytest.mark.parametrize(("n", "most"), [(256, 0.15), (1024, 0.1), (3072, 0.05)])
def test_a_log_normal_is_nearly_of_the_family(n, most):
    values = np.exp(norm.isf((np.arange(n) + 0.5) / n))
    assert 0 < log_lift(values, max(2, n // 100)) < most


def test_the_unit_changes_no_lift_and_no_size():
    values = raised("power law 0.5", 3.0)
    assert log_lift(7 * values, HEAD) == pytest.approx(log_lift(values, HEAD), abs=1e-6)
    assert head_size(7 * values) == head_size(values)


def test_the_tail_is_not_looked_at():
    values = raised("power law 0.5", 3.0)
    other = values.copy()
    other[int(LAST * N) :] = -1.0
    assert log_lift(other, HEAD) == log_lift(values, HEAD)


@pytest.mark.parametrize("law", ["power law 0.5", "Weibull 0.5"])
@pytest.mark.parametrize("size", [5, 10, 20])
def test_the_size_of_a_planted_head_is_found(law, size):
    assert head_size(raised(law, 3.0, size)) == size
    rng = RNG(size)
    noisy = [
        head_size(np.sort(raised(law, 4.0, size) * np.exp(0.1 * rng.normal(size=N)))[::-1])
        for _ in range(20)
    ]
    assert np.median(noisy) == pytest.approx(size, abs=1)


def test_random_samples_of_a_law_scatter_about_no_lift():
    """Draws of neurons from one law: the lift is 0 in the middle, its scatter as said."""
    rng = RNG(0)
    fitted = smooth_curve(LAWS["power law 0.5"], HEAD)
    values, lifts = LAWS["power law 0.5"].copy(), []
    for _ in range(100):
        values[: fitted.size] = np.exp(draw_law(fitted, N, rng=rng))
        assert (np.diff(values[: fitted.size]) <= 0).all()
        lifts.append(log_lift(values, HEAD))
    assert np.median(lifts) == pytest.approx(0, abs=4 * 1.25 * np.std(lifts) / 10)
    weights = np.ones(bins(HEAD, int(LAST * N)).size - 1)
    scatter = lift_scatter(LAWS["power law 0.5"], HEAD, weights, rng=RNG(1))
    assert scatter == pytest.approx(np.std(lifts), rel=0.3)


FRESH = {
    "power law 0.3": lambda rng: rng.random(N) ** -0.3,
    "power law 0.7": lambda rng: rng.random(N) ** -0.7,
    "log-normal": lambda rng: rng.lognormal(size=N),
    "exponential": lambda rng: rng.exponential(size=N),
    "half-normal": lambda rng: np.abs(rng.normal(size=N)),
}


@pytest.mark.parametrize("law", FRESH)
def test_fresh_samples_of_smooth_laws_have_no_lift_on_average(law):
    rng = RNG(11)
    lifts = [log_lift(np.sort(FRESH[law](rng))[::-1], HEAD) for _ in range(150)]
    assert np.mean(lifts) == pytest.approx(0, abs=2.5 * np.std(lifts) / np.sqrt(150))


def test_draws_from_a_law_are_order_statistics():
    """Of a standard exponential, rank by rank: means are sums of 1 / i (Renyi)."""
    fitted = DEPTH[: int(LAST * N)]  # ln of a power law of exponent 1 is exponential
    drawn = np.mean([draw_law(fitted, N, rng=RNG(seed)) for seed in range(400)], axis=0)
    expected = np.cumsum(1 / np.arange(N, 0, -1))[::-1]
    np.testing.assert_allclose(drawn[5:], expected[5 : drawn.size], atol=0.06)
    assert drawn[0] == pytest.approx(expected[0], abs=0.25)


def test_bins_are_plain_means_and_widen():
    edges = bins(10, 307)
    assert (edges[0], edges[-1]) == (10, 307)
    assert (np.diff(edges) > 0).all()
    values = RNG(2).normal(size=400)
    slow = [values[int(a) : int(b)].mean() for a, b in pairwise(edges)]
    np.testing.assert_allclose(bin_means(values, edges), slow)


def test_bins_weigh_as_precise_as_they_are_and_those_without_logarithm_nothing():
    rng = RNG(3)
    curves = LAWS["power law 0.5"] * np.exp(0.05 * rng.normal(size=(17, N)))
    edges = bins(HEAD, int(LAST * N))
    weights = bin_weights(curves, HEAD)
    logs = np.log([bin_means(one, edges) for one in curves[1:]])
    variance = 15 * logs.var(axis=0)
    free = variance > 0.1 * np.median(variance)
    np.testing.assert_allclose(weights[free], 1 / variance[free])
    assert weights.max() <= 10 / np.median(variance) + 1e-9
    curves[4, int(edges[2]) : int(edges[3])] = -1
    assert (bin_weights(curves, HEAD) == 0).tolist() == [i == 2 for i in range(weights.size)]


@pytest.mark.parametrize(
    ("values", "head", "message"),
    [
        (np.ones(150), 2, "150 neurons are too few for a curve below a head of 2"),
        (np.ones(300), 20, "300 neurons are too few for a curve below a head of 20"),
        (-np.ones(N), HEAD, "not positive below its head"),
        (np.where(np.arange(N) < HEAD, -1.0, 1.0), HEAD, "the head of the rank curve is not"),
    ],
)
def test_a_curve_that_cannot_be_fitted_is_not_testable(values, head, message):
    with pytest.raises(NotTestableError, match=message):
        log_lift(values, head)
