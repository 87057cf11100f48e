"""Statistics of spectra, against values by hand, exact laws and random matrices."""

import numpy as np
import pytest

from raretok.claims.spectra import eigenvalues as eig
from raretok.errors import UserError

RNG = np.random.default_rng


def test_hill_by_hand_and_its_convention():
    spectra = np.array([[8.0, 4.0, 2.0, 1.0]])
    # k = 2: ln(8/2) and ln(4/2), a mean of 1.5 ln 2.
    assert eig.hill(spectra, 2)[0] == pytest.approx(1 / (1.5 * np.log(2)))
    np.testing.assert_allclose(eig.hill_curve(spectra)[0], 1 / (np.array([1, 1.5, 2]) * np.log(2)))
    np.testing.assert_allclose(eig.hill(7 * spectra, 2), eig.hill(spectra, 2))


def test_hill_is_the_survival_exponent_of_exact_pareto_samples():
    alpha, k = 2.5, 4_000
    sample = np.sort((1 - RNG(0).random((1, 200_000))) ** (-1 / alpha), axis=1)[:, ::-1]
    found = eig.hill(sample, k)[0]
    assert abs(found - alpha) < 4 * alpha / np.sqrt(k)  # relative standard error 1 / sqrt(k)
    # The maximum-likelihood *density* exponent of the same tail (powerlaw's alpha) is one more.
    density = 1 + k / np.log(sample[0, :k] / sample[0, k]).sum()
    assert density == pytest.approx(1 + found)


def test_relative_error_of_hill_is_one_over_root_k_for_independent_values():
    sample = np.sort(RNG(1).pareto(2.0, (4_000, 400)) + 1, axis=1)[:, ::-1]
    for k in (5, 20):
        reciprocal = 1 / eig.hill(sample, k)
        assert reciprocal.std() / reciprocal.mean() == pytest.approx(1 / np.sqrt(k), rel=0.06)


@pytest.mark.parametrize("k", [0, 4, 9])
def test_a_tail_that_cannot_be_had_is_refused(k):
    with pytest.raises(UserError, match=r"k must lie in 1\.\.3"):
        eig.hill(np.ones((1, 4)), k)


def test_spread_by_hand():
    equal, one = np.full((1, 5), 2.0), np.array([[5.0, 0.0, 0.0, 0.0, 0.0]])
    assert eig.stable_rank(equal)[0] == pytest.approx(5)
    assert eig.spectral_entropy(equal)[0] == pytest.approx(np.log(5))
    assert eig.stable_rank(one)[0] == 1
    assert eig.spectral_entropy(one)[0] == 0


def test_rows_are_centred_and_scaled_whatever_their_unit_and_offset():
    weights = RNG(2).normal(size=(6, 40))
    rows = eig.standard_rows(weights)
    np.testing.assert_allclose(rows @ rows.T / 40, np.corrcoef(weights), atol=1e-12)
    np.testing.assert_allclose(eig.standard_rows(3 * weights + 7), rows, atol=1e-9)
    with pytest.raises(UserError, match="neuron 2 are constant"):
        eig.standard_rows(np.array([[0.0, 1.0], [1.0, 3.0], [4.0, 4.0]]))


@pytest.mark.parametrize(("n", "d"), [(10, 256), (100, 400), (256, 256), (1024, 256)])
def test_noise_density_integrates_to_one_and_to_the_trace(n, d):
    low, high = eig.noise_edges(n, d)
    angle = np.linspace(0, np.pi / 2, 20_001)[1:]
    x = low + (high - low) * np.sin(angle) ** 2
    density = eig.noise_density(x, n, d)
    assert np.trapezoid(density, x) == pytest.approx(1, abs=2e-3)
    # Mean of all eigenvalues is 1; the zeros take none of it.
    assert np.trapezoid(x * density, x) == pytest.approx(max(1.0, n / d), abs=2e-3)
    cumulative = eig.noise_cumulative(x[::1000], n, d)
    by_hand = [np.trapezoid(density[: i + 1], x[: i + 1]) for i in range(0, x.size, 1000)]
    np.testing.assert_allclose(cumulative, by_hand, atol=2e-3)


@pytest.mark.parametrize(("n", "d"), [(60, 600), (300, 150)])
def test_random_gaussian_matrices_follow_the_law(n, d):
    spectra = eig.noise_spectra(n, d, 20, rng=RNG(3))
    low, high = eig.noise_edges(n, d)
    assert spectra.shape == (20, min(n, d - 1))
    np.testing.assert_allclose(spectra[:, 0].mean(), high, rtol=0.06)
    np.testing.assert_allclose(
        spectra[:, -1].mean(), low, rtol=0.2
    )  # ends are rounded off by about d^(-2/3)
    assert eig.noise_distance(spectra, n, d).max() < 0.06
    assert eig.beyond_edge(spectra, n, d).mean() < 0.5


def test_distance_equals_a_library_and_sees_another_law():
    from scipy.stats import kstest

    spectra = eig.noise_spectra(40, 400, 3, rng=RNG(4))
    for row, found in zip(spectra, eig.noise_distance(spectra, 40, 400), strict=True):
        expected = kstest(row, lambda x: eig.noise_cumulative(x, 40, 400)).statistic
        assert found == pytest.approx(expected)
    # The wrong aspect ratio is far off.
    assert eig.noise_distance(spectra, 40, 40).min() > 0.3


def test_one_shared_direction_lowers_the_index_of_otherwise_gaussian_rows():
    shared = eig.shared_direction_spectra(10, 256, 3.0, 200, rng=RNG(8))
    noise = eig.noise_spectra(10, 256, 200, rng=RNG(9))
    assert shared[:, 0].mean() == pytest.approx(3.0, rel=0.1)
    assert np.median(eig.hill(shared, 1)) < 0.2 * np.median(eig.hill(noise, 1))
