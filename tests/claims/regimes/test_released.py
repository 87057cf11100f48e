"""The released detector fires on noise; what the page shows beside its estimands."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest

from raretok.claims import style
from raretok.claims.regimes.estimate import rank_curves
from raretok.claims.regimes.figures import binned, rank_curve, released_rate
from raretok.claims.regimes.released import released_plateau
from tests.synthetic import a_sample

LAWS = {
    "half-normal": lambda rng, shape: np.abs(rng.normal(size=shape)),
    "Laplace": lambda rng, shape: rng.exponential(size=shape),
    "log-normal": lambda rng, shape: rng.lognormal(size=shape),
    "power law 0.5": lambda rng, shape: rng.random(shape) ** -0.5,
}


@pytest.mark.parametrize("law", LAWS)
def test_released_detector_fires_on_every_sample_of_noise(law):
    for values in LAWS[law](np.random.default_rng(17), (10, 1100)):
        found = released_plateau(values)
        assert found is not None
        assert found <= 33


def test_bins_of_a_curve_are_plain_means_and_single_ranks_at_the_head():
    values = np.random.default_rng(0).normal(size=100)
    found = binned(values)
    assert found.size == 100
    np.testing.assert_array_equal(found[:2], values[:2])
    starts = [0, *(np.flatnonzero(np.diff(found)) + 1), 100]
    for one, two in pairwise(starts):
        np.testing.assert_allclose(found[one:two], values[one:two].mean())


def test_a_figure_holds_the_curve_and_its_band():
    sample = a_sample(0)
    _, (ax,) = style.panels()
    rank_curve(ax, sample, "rare")
    (rank, shown), values = ax.lines[0].get_data(), binned(rank_curves(sample, "rare")[0])
    np.testing.assert_allclose(shown, values[rank.astype(int) - 1])
    band = ax.collections[0].get_paths()[0].vertices
    for at, value in zip(rank, shown, strict=True):
        ends = band[band[:, 0] == at, 1]
        assert ends.min() <= value <= ends.max()
    plt.close("all")


def test_the_released_detector_reports_plateaus_in_draws_from_one_smooth_law():
    assert 0 <= released_rate(a_sample(1), 5, rng=np.random.default_rng(0)) <= 100
