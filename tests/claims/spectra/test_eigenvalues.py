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
    assert eig.hill(spectra, 3)[0] == pytest.approx(1 / (2 * np.log(2)))
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


def test_rows_are_centred_and_scaled_whatever_their_unit_and_offset():
    weights = RNG(2).normal(size=(6, 40))
    rows = eig.standard_rows(weights)
    np.testing.assert_allclose(rows @ rows.T / 40, np.corrcoef(weights), atol=1e-12)
    np.testing.assert_allclose(eig.standard_rows(3 * weights + 7), rows, atol=1e-9)
    with pytest.raises(UserError, match="neuron 2 are constant"):
        eig.standard_rows(np.array([[0.0, 1.0], [1.0, 3.0], [4.0, 4.0]]))


@pytest.mark.parametrize(("n", "d"), [(60, 600), (200, 800)])
def test_spectra_of_unrelated_rows_end_where_marchenko_and_pastur_say(n, d):
    rows = [eig.standard_rows(RNG(seed).standard_normal((n, d))) for seed in range(20)]
    spectra = eig.descending(np.stack([one @ one.T / d for one in rows]))
    high = eig.noise_edge(n, d)
    np.testing.assert_allclose(spectra.sum(axis=1), n)
    # The end is rounded off by about d^(-2/3).
    assert spectra[:, 0].mean() == pytest.approx(high, rel=0.05)
    assert (spectra > high).sum(axis=1).mean() < 0.5


def test_a_shared_direction_lies_beyond_the_edge_and_lowers_the_index():
    rng = RNG(8)
    noise = rng.standard_normal((10, 256))
    shared = eig.standard_rows(np.sqrt(0.3) * rng.standard_normal(256) + np.sqrt(0.7) * noise)
    spectra = eig.descending(np.stack([x @ x.T / 256 for x in (eig.standard_rows(noise), shared)]))
    assert spectra[0, 0] < 1.1 * eig.noise_edge(10, 256)
    assert spectra[1, 0] > 2
    assert eig.hill(spectra, 1)[1] < 0.3 * eig.hill(spectra, 1)[0]
