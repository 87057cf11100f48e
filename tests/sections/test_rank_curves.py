"""The regime statistics: planted worlds, laws known in closed form, and slow loops."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binom

from raretok.sections import calibration, contrast, influence, pieces, plateau, released, spacings
from raretok.sections.calibration import OTHER, SMOOTH
from raretok.stats.documents import document_sums, resample_documents

RNG = np.random.default_rng
N, SAMPLES = 1024, 200


def worst_case(rate, n=SAMPLES):
    """What a true rate exceeds in one of a thousand tables."""
    return binom.ppf(0.999, n, rate) / n


# --- spacings -------------------------------------------------------------------------------------


def test_spacings_of_a_power_law_are_exponential_with_mean_kappa():
    values = RNG(0).random((50, N)) ** -0.7
    found = spacings.normalised_spacings(np.log(-np.sort(-values, axis=1)))
    assert abs(found.mean() - 0.7) < 4 * 0.7 / np.sqrt(found.size)
    assert abs(np.corrcoef(found[:, 4], found[:, 5])[0, 1]) < 0.6


def test_exponential_regression_finds_the_coefficients_and_is_equivariant():
    rng = RNG(1)
    terms = spacings.basis(spacings.depth(N, 300), 1, 0)
    truth = np.array([3.0, -4.0])
    noise = rng.exponential(size=(200, 300))
    found = spacings.exponential_regression(noise * np.exp(terms @ truth), terms)
    # Orthonormal terms make Fisher's information the identity.
    np.testing.assert_allclose(found.mean(axis=0), truth, atol=0.3)
    np.testing.assert_allclose(found.std(axis=0), 1, atol=0.2)
    pivot = found - spacings.exponential_regression(noise, terms)
    np.testing.assert_allclose(pivot, np.broadcast_to(truth, pivot.shape), atol=1e-5)


def test_the_straight_line_holds_weibull_laws():
    """log v = log log(n/i) / shape has local slope (log n/i)^-1 / shape."""
    u = (np.arange(1, 401) + 0.5) / (N + 1)
    log_values = 2 * np.log(-np.log(u))
    slopes = -np.gradient(log_values, np.log(u))
    line = np.polyfit(spacings.depth(N, 400), np.log(slopes), 1)
    np.testing.assert_allclose(line, [-1, np.log(2)], atol=0.01)


def test_curve_and_spacings_are_inverse():
    slopes = RNG(2).exponential(size=(3, 50))
    curve = spacings.curve_from_slopes(slopes)
    np.testing.assert_allclose(spacings.normalised_spacings(curve), slopes)


# --- the head test --------------------------------------------------------------------------------


@pytest.mark.parametrize("law", SMOOTH)
def test_smooth_laws_raise_at_most_five_percent_false_alarms(law):
    row = calibration.calibration_row(law, SMOOTH[law](RNG(3), (SAMPLES, N)))
    assert row.found <= worst_case(0.05 + 0.01)


@pytest.mark.parametrize("law", ["gamma 0.5", "Student t, 3", "Pareto II, 1/3"])
def test_laws_outside_the_family_raise_few(law):
    row = calibration.calibration_row(law, OTHER[law](RNG(4), (SAMPLES, N)))
    assert row.found <= worst_case(0.08)


@pytest.mark.parametrize("law", ["power law 0.3", "power law 0.5", "power law 1.0"])
@pytest.mark.parametrize("plant", ["mean", "minimum", "maximum", "x 3"])
def test_planted_heads_are_found_with_their_size(law, plant):
    rng = RNG(5)
    values = calibration.plant_head(SMOOTH[law](rng, (SAMPLES, N)), plant, rng=rng)
    row = calibration.calibration_row(law, values, plant)
    assert row.found >= 0.9
    assert row.size_within >= 0.9
    assert (row.excess if plant == "x 3" else row.flat) >= 0.9


@pytest.mark.parametrize("n", [256, 3072])
def test_the_test_keeps_its_level_at_other_sizes(n):
    rows = [calibration.calibration_row(law, SMOOTH[law](RNG(6), (60, n))) for law in SMOOTH]
    assert np.mean([row.found for row in rows]) <= worst_case(0.06, 360)


def test_head_test_names_the_kind_size_and_lift():
    values = calibration.plant_head(RNG(7).random((1, N)) ** -0.5, "x 3", rng=RNG(7))[0]
    found = plateau.head_test(RNG(8).permutation(values))
    assert (found.kind, found.size) == ("excess", 10)
    assert found.p == pytest.approx(1 / 4001)
    assert found.lift == pytest.approx(np.log(3), abs=0.4)
    assert found.gap == pytest.approx(3, rel=0.3)
    flat = calibration.plant_head(RNG(7).random((1, N)) ** -0.5, "minimum", rng=RNG(7))[0]
    assert (plateau.head_test(flat).kind, plateau.head_test(flat).slope_ratio) == ("flat", 0)
    assert plateau.head_test(RNG(19).exponential(size=N)).kind == "none"


def test_head_test_ignores_the_unit_the_order_and_what_is_not_positive():
    values = RNG(10).normal(size=2 * N)
    same = -np.sort(-1e-6 * values[values > 0])
    assert plateau.head_test(values).p == plateau.head_test(same).p
    assert plateau.head_test(values).lift == pytest.approx(plateau.head_test(same).lift)
    assert plateau.head_size(values) == plateau.head_test(same).size


def test_head_test_says_when_it_cannot_test():
    with pytest.raises(ValueError, match="not testable: 199 positive"):
        plateau.head_test(np.concatenate([np.ones(199), -np.ones(900)]))
    with pytest.raises(ValueError, match="all values are equal"):
        plateau.head_test(np.ones(N))
    with pytest.raises(ValueError, match="finite"):
        plateau.head_test(np.full(N, np.nan))


# --- pieces ---------------------------------------------------------------------------------------


def three_regimes(rng, head=10, n=N):
    slopes = np.full(n, 0.8)
    slopes[:head], slopes[n // 2 :] = 0.05, 3
    return np.exp(spacings.draw_curves(slopes, 1, rng=rng)[0, :n])


def test_find_breaks_equals_trying_every_pair():
    drawn = RNG(11).exponential(size=(1, 60)) * np.repeat([0.2, 1, 4], 20)
    edges = pieces.candidate_breaks(60)

    def score(*ends):
        parts = np.split(drawn[0], ends)
        if min(part.size for part in parts) < 4:
            return -np.inf
        return sum(-part.size * (np.log(part.mean()) + 1) for part in parts)

    pairs = {(a, b): score(a, b) for a in edges[1:-1] for b in edges[1:-1] if a < b}
    found = pieces.find_breaks(drawn, 60)
    assert tuple(found.three[0]) == max(pairs, key=pairs.get)
    np.testing.assert_allclose(
        found.log_likelihood[0], [score(), max(score(a) for a in edges[1:-1]), max(pairs.values())]
    )


def test_three_planted_regimes_are_found_with_breaks_and_slope():
    found = pieces.regime_test(three_regimes(RNG(12)), n_null=199, rng=RNG(12))
    assert max(found.p_two, found.p_three, found.p_curve) == pytest.approx(1 / 200)
    assert found.decays_faster
    assert found.kappa == pytest.approx(0.8, abs=0.1)
    first, second = found.fits[2].breaks
    assert 7 <= first <= 15
    # Breaks are resolved to 7 %, the step of the grid.
    assert second == pytest.approx(N / 2, rel=0.1)
    assert (
        np.abs(found.fits[2].curve - np.log(np.sort(three_regimes(RNG(12)))[::-1][:922])).max() < 1
    )


def test_curvature_is_not_taken_for_regimes():
    """Three pieces beat two on any bent law; only p_curve is calibrated against the bend."""
    p = np.array(
        [
            [test.p_three, test.p_curve]
            for law in ("half-normal", "Laplace", "log-normal", "power law 0.5")
            for seed in range(5)
            for test in [
                pieces.regime_test(SMOOTH[law](RNG(seed), (1, N))[0], n_null=59, rng=RNG(0))
            ]
        ]
    )
    assert (p[:15, 0] <= 0.05).all()
    assert (p[:, 1] <= 0.05).mean() <= worst_case(0.05, 20)


def test_a_second_piece_is_calibrated_on_power_laws():
    log_values = np.log(-np.sort(-(RNG(13).random((SAMPLES, N)) ** -1.3), axis=1))
    drawn = spacings.normalised_spacings(log_values[:, : int(0.9 * N) + 1])
    gains = np.diff(pieces.find_breaks(drawn, N).log_likelihood)[:, 0]
    p = pieces.monte_carlo_p(gains, pieces.power_law_gains(N))
    assert np.mean(p <= 0.05) <= worst_case(0.05)


# --- influence, curves, classes -------------------------------------------------------------------


def ablation(rng, n=600, n_neurons=400):
    """Positions in 30 documents; the first 40 neurons matter, and twice as much for rare."""
    document = np.sort(rng.integers(30, size=n))
    rare = rng.random(n) < 0.4
    effect = np.zeros(n_neurons)
    effect[:40] = np.linspace(3, 0.5, 40)
    delta_loss = effect * (1 + rare[:, None]) + rng.normal(size=(n, n_neurons))
    return contrast.Classes(delta_loss, np.where(rare, 1.0, 5.0), document, rare)


def test_cross_fitting_removes_the_head_that_selection_makes():
    rng = RNG(14)
    noise, document = rng.normal(size=(400, 300)), np.repeat(np.arange(40), 10)
    sums = document_sums(noise, document, np.ones(400))
    counts = resample_documents(40, 50, rng=rng)
    selected = influence.sorted_band(sums, counts)
    assert selected.value[:10].mean() > 0.08
    crossed = influence.cross_fitted_band(sums, counts, document, rng=rng)
    assert abs(crossed.value[0]) < 0.1
    assert (np.abs(crossed.value) < 0.05).mean() > 0.9
    assert (crossed.low <= crossed.high).all()


def test_cross_fitting_keeps_a_head_that_is_there():
    rng = RNG(15)
    effect = 10.0 / np.arange(1, 101)
    values = effect + 0.1 * rng.normal(size=(400, 100))
    sums = document_sums(values, np.repeat(np.arange(40), 10), np.ones(400))
    halves = np.stack([np.arange(40) % 2 == 0])
    curve = influence.cross_fitted_values(sums, halves, np.ones((1, 40)))[0]
    np.testing.assert_allclose(curve[:20], effect[:20], atol=0.05)


def test_bins_are_plain_means():
    values = np.arange(12.0)[None]
    rank, means = influence.bin_means(values, per_decade=3)
    edges = np.unique(np.round(np.geomspace(1, 13, round(3 * np.log10(13)) + 1))).astype(int) - 1
    for i, (start, stop) in enumerate(pairwise(edges)):
        assert means[0, i] == values[0, start:stop].mean()
        assert rank[i] == np.arange(start + 1, stop + 1).mean()


def test_shares_and_overlap_by_hand():
    assert influence.top_share(np.array([3.0, 1.0, 0.0, -5.0]), fraction=0.25) == 0.75
    first, second = np.array([0, 1, 2, 3]), np.array([0, 2, 3, 1])
    assert influence.top_overlap(first, second, 2) == 0.5
    with pytest.raises(ValueError, match="k must lie"):
        influence.top_overlap(first, second, 5)


def test_contrast_finds_a_difference_and_permuted_labels_do_not():
    classes = ablation(RNG(16))
    settings = dict(signed=True, n_perm=99, n_boot=100)

    def height(values):
        return float(values[:40].mean())

    found = contrast.contrast(classes, height, rng=RNG(16), **settings)
    assert found.p == pytest.approx(0.01)
    assert found.interval.low < found.difference < found.interval.high
    assert found.difference == pytest.approx(1.75, abs=0.1)
    p = []
    for seed in range(20):
        rng = RNG(seed)
        order = contrast.permute_within(classes.document, rng=rng)
        mixed = contrast.Classes(
            classes.delta_loss, classes.weight[order], classes.document, classes.rare[order]
        )
        p.append(contrast.contrast(mixed, height, rng=rng, signed=True, n_perm=39, n_boot=5).p)
    assert np.mean(np.array(p) <= 0.1) <= worst_case(0.1, 20)


# --- the released code ----------------------------------------------------------------------------


def test_released_detector_fires_on_every_sample_of_noise():
    rng = RNG(17)
    for law in ("half-normal", "Laplace", "log-normal", "power law 0.5"):
        for values in SMOOTH[law](rng, (10, 1100)):
            found = released.released_detector(values)
            assert found.plateau is not None
            assert found.plateau <= 33
            assert found.elbow is not None
            assert 400 < found.elbow <= 935
