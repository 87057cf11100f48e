"""Mutual information of pairs of neurons, against closed laws and other code."""

import numpy as np
import pytest
from scipy.special import digamma

from raretok.claims.coordination import information

RNG = np.random.default_rng


def ksg(x, y):
    return information.ksg_terms(x, y).mean()


def gaussian_pair(rng, rho, n):
    x = rng.normal(size=n)
    return x, rho * x + np.sqrt(1 - rho**2) * rng.normal(size=n)


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.5, 0.9])
def test_ksg_finds_the_information_of_gaussian_pairs(rho):
    rng = RNG(8)
    found = [ksg(*gaussian_pair(rng, rho, 400)) for _ in range(40)]
    truth = -0.5 * np.log(1 - rho**2)
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / np.sqrt(40) + 0.015)


def test_ksg_equals_a_slow_count():
    rng = RNG(9)
    x, y = gaussian_pair(rng, 0.6, 70)
    terms = []
    for i in range(70):
        dx, dy = (np.delete(np.abs(v - v[i]), i) for v in (x, y))
        distance = np.sort(np.maximum(dx, dy))[2]
        near = digamma((dx < distance).sum() + 1) + digamma((dy < distance).sum() + 1)
        terms.append(digamma(3) + digamma(70) - near)
    np.testing.assert_allclose(information.ksg_terms(x, y, 3), terms)


@pytest.mark.parametrize("rho", [0.4, 0.8])
def test_ksg_equals_scikit_learn(rho):
    import sklearn.feature_selection as selection

    for seed in range(5):
        x, y = gaussian_pair(RNG(seed), rho, 300)
        z = information.prepared(np.column_stack([x, y]), rng=RNG(seed))
        theirs = selection.mutual_info_regression(x[:, None], y, n_neighbors=3, random_state=0)
        assert ksg(z[:, 0], z[:, 1]) == pytest.approx(theirs[0], abs=2e-3)


def test_ksg_is_symmetric_and_sees_what_correlation_does_not():
    rng = RNG(10)
    x = rng.normal(size=500)
    y = x**2 + 0.1 * rng.normal(size=500)
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.25
    assert ksg(x, y) > 0.8
    assert ksg(x, y) == pytest.approx(ksg(y, x))


def test_unrelated_neurons_share_nothing():
    rng = RNG(11)
    pairs = [gaussian_pair(rng, 0.0, 200) for _ in range(60)]
    assert abs(np.mean([ksg(*pair) for pair in pairs])) < 0.012


def test_ties_are_parted_and_constants_share_nothing():
    rng = RNG(12)
    post = np.maximum(rng.normal(size=(400, 3)), 0.5).astype(np.float32)  # a floor, with many ties
    post[:, 2] = 1.0
    z = information.prepared(post, rng=rng)
    assert all(np.unique(column).size == 400 for column in z.T)
    assert abs(ksg(z[:, 0], z[:, 2])) < 0.1
    with pytest.raises(ValueError, match="at least 4 positions"):
        ksg(z[:3, 0], z[:3, 1])
