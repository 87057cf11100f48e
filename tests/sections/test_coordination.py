"""Dimension, information and similarity of groups of neurons, on data whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.special import digamma

from raretok.errors import UserError
from raretok.ledger.verdicts import verdict
from raretok.sections import coordination, dimension, information, matching, similarity
from raretok.sections.coordination_page import dimension_table, information_table, weights_table
from raretok.sections.coordination_words import told
from raretok.sections.joint_activity import class_rows
from raretok.stats.groups import Fold, find_folds
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import COMMON, RARE

RNG = np.random.default_rng
SPECTRA = [dimension.participation_ratio, dimension.variance_count]


def rotation(rng, n):
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


# Dimension -----------------------------------------------------------------------------------


def test_correlations_equal_numpy_and_leave_constants_out():
    post = RNG(0).normal(size=(60, 5)).astype(np.float32)
    post[:, 1] += 2 * post[:, 0]
    np.testing.assert_allclose(dimension.correlations(post), np.corrcoef(post.T), atol=1e-6)
    post[:, 3] = 0.1
    matrix = dimension.correlations(post)
    assert (matrix[3] == 0).all()
    assert (matrix[:, 3] == 0).all()
    np.testing.assert_allclose(np.diag(matrix)[[0, 1, 2, 4]], 1)


@pytest.mark.parametrize("r", [0.0, 0.3, 0.9])
def test_participation_ratio_of_equal_correlations_by_hand(r):
    n = 8
    matrix = np.full((1, n, n), r)
    matrix[0][np.diag_indices(n)] = 1
    by_hand = n / (1 + (n - 1) * r**2)
    assert dimension.participation_ratio(matrix)[0] == pytest.approx(by_hand)
    spectrum = np.linalg.eigvalsh(matrix[0])
    assert spectrum.sum() ** 2 / (spectrum**2).sum() == pytest.approx(by_hand)


def test_variance_count_by_hand():
    def count(spectrum):
        # Any correlation matrix with this spectrum would do; a diagonal one is at hand.
        return dimension.variance_count(np.diag(spectrum)[None])[0]

    assert count(np.ones(20)) == 19  # 19 of 20 are exactly 95 %
    assert count(np.ones(10)) == 10
    assert count([9.5, 0.3, 0.2]) == 1
    assert count([9.4, 0.3, 0.3]) == 2


def test_variance_count_is_what_pca_of_z_scored_columns_gives():
    import sklearn.decomposition as sklearn

    rng = RNG(1)
    post = rng.normal(size=(90, 12)) @ rng.normal(size=(12, 12))
    z = (post - post.mean(axis=0)) / post.std(axis=0)
    share = np.cumsum(sklearn.PCA().fit(z).explained_variance_ratio_)
    matrix = dimension.correlations(post)
    assert dimension.variance_count(matrix[None])[0] == np.argmax(share >= 0.95) + 1


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_dimension_ignores_order_sign_scale_and_shift(spectrum):
    rng = RNG(2)
    post = rng.normal(size=(80, 6)) @ rng.normal(size=(6, 6))
    changed = (post * rng.choice([-1.0, 1.0], 6) * rng.uniform(0.1, 9, 6) + 3)[
        :, rng.permutation(6)
    ]
    one, other = (spectrum(dimension.correlations(x)[None])[0] for x in (post, changed))
    assert one == pytest.approx(other)


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_a_group_that_never_varies_has_no_dimension(spectrum):
    assert np.isnan(spectrum(np.zeros((1, 4, 4)))[0])


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_groups_are_measured_as_one_by_one(spectrum):
    rng = RNG(3)
    post = rng.normal(size=(70, 30)) @ rng.normal(size=(30, 30))
    groups = np.stack([rng.permutation(30)[:7] for _ in range(130)])
    batched = dimension.of_groups(dimension.correlations(post), groups, spectrum)
    slow = [spectrum(dimension.correlations(post[:, group])[None])[0] for group in groups]
    np.testing.assert_allclose(batched, slow)


# Share of components that hold 95 % for unrelated neurons, measured with other code.
KNOWN = {
    30: (0.76, 0.87, 0.90, 0.93, 0.97),
    50: (0.61, 0.79, 0.87, 0.91, 0.94),
    100: (0.39, 0.61, 0.78, 0.87, 0.93),
}


@pytest.mark.parametrize("n", KNOWN)
def test_the_count_of_unrelated_neurons_depends_on_positions_and_size(n):
    for n_positions, known in zip((50, 100, 200, 400, 2000), KNOWN[n], strict=True):
        draws = dimension.independent(n_positions, n, dimension.variance_count, 6, rng=RNG(4))
        assert draws.mean() / n == pytest.approx(known, abs=0.012)


def test_participation_ratio_of_unrelated_neurons_has_its_known_bias():
    """E r^2 = 1 / (T - 1) for unrelated Gaussian neurons."""
    n, n_positions = 20, 60
    draws = dimension.independent(n_positions, n, dimension.participation_ratio, 300, rng=RNG(5))
    assert draws.mean() == pytest.approx(n / (1 + (n - 1) / (n_positions - 1)), rel=0.01)


def test_shuffling_destroys_coordination():
    rng = RNG(6)
    post = rng.normal(size=(300, 1)) + 0.3 * rng.normal(size=(300, 8))
    alone = dimension.shuffled(post, dimension.participation_ratio, 40, rng=rng)
    assert dimension.participation_ratio(dimension.correlations(post)[None])[0] < 1.5
    assert alone.min() > 7


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_resampled_documents_equal_repeating_their_rows(spectrum):
    rng = RNG(7)
    post = (rng.normal(size=(120, 9)) @ rng.normal(size=(9, 9)) + 4).astype(np.float32)
    document = rng.integers(10, size=120)
    groups = np.stack([rng.permutation(9)[:4] for _ in range(3)])
    counts = rng.multinomial(10, np.full(10, 0.1), 5).astype(float)
    fast = dimension.resampled(post, document, groups, counts, spectrum)
    for b, count in enumerate(counts):
        rows = np.repeat(np.arange(120), count[document].astype(int))
        for g, group in enumerate(groups):
            slow = spectrum(dimension.correlations(post[rows][:, group])[None])[0]
            assert fast[g, b] == pytest.approx(slow, rel=1e-5)


# Information ---------------------------------------------------------------------------------


def gaussian_pair(rng, rho, n):
    x = rng.normal(size=n)
    return x, rho * x + np.sqrt(1 - rho**2) * rng.normal(size=n)


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.5, 0.9])
def test_ksg_finds_the_information_of_gaussian_pairs(rho):
    rng = RNG(8)
    found = [information.ksg(*gaussian_pair(rng, rho, 400)) for _ in range(40)]
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
        assert information.ksg(z[:, 0], z[:, 1]) == pytest.approx(theirs[0], abs=2e-3)


def test_ksg_is_symmetric_and_sees_what_correlation_does_not():
    rng = RNG(10)
    x = rng.normal(size=500)
    y = x**2 + 0.1 * rng.normal(size=500)
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.25
    assert information.ksg(x, y) > 0.8
    assert information.ksg(x, y) == pytest.approx(information.ksg(y, x))


def test_nearest_neighbours_are_unbiased_where_bins_are_not():
    rng = RNG(11)
    pairs = [gaussian_pair(rng, 0.0, 200) for _ in range(60)]
    assert abs(np.mean([information.ksg(*pair) for pair in pairs])) < 0.012
    expected = (information.BINS - 1) ** 2 / (2 * 200)
    binned = np.mean([information.binned(*pair) for pair in pairs])
    assert binned == pytest.approx(expected, rel=0.25)


def test_ties_are_parted_and_constants_share_nothing():
    rng = RNG(12)
    post = np.maximum(rng.normal(size=(400, 3)), 0.5).astype(np.float32)  # a floor, with many ties
    post[:, 2] = 1.0
    z = information.prepared(post, rng=rng)
    assert all(np.unique(column).size == 400 for column in z.T)
    assert abs(information.ksg(z[:, 0], z[:, 2])) < 0.1
    with pytest.raises(ValueError, match="at least 4 positions"):
        information.ksg(z[:3, 0], z[:3, 1])


def test_group_information_is_the_mean_over_its_pairs():
    rng = RNG(13)
    post = rng.normal(size=(150, 12)) @ rng.normal(size=(12, 12))
    groups = np.array([[5, 1, 9], [1, 5, 2], [11, 0, 3]])
    members = information.member_pairs(3, rng=rng)
    found = information.group_information(post, groups, members, rng=RNG(0)).mean(axis=1)
    z = information.prepared(post, rng=RNG(1))
    for value, group in zip(found, groups, strict=True):
        pairs = [(group[a], group[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
        slow = np.mean([information.ksg(z[:, a], z[:, b]) for a, b in pairs])
        assert value == pytest.approx(slow, abs=1e-3)  # the jitter differs


def test_large_groups_are_measured_on_some_of_their_pairs():
    members = information.member_pairs(30, rng=RNG(14))
    assert len(np.unique(members, axis=0)) == information.PAIRS
    assert (members[:, 0] < members[:, 1]).all()


def test_linear_information_by_hand():
    matrix = np.array([[[1.0, 0.6, 0.0], [0.6, 1.0, 0.8], [0.0, 0.8, 1.0]]])
    by_hand = -0.5 * (np.log(1 - 0.36) + np.log(1 - 0.64)) / 3
    assert information.linear_information(matrix)[0] == pytest.approx(by_hand)


# Weights -------------------------------------------------------------------------------------


def test_cosines_by_hand_and_rotated():
    weights = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, -2.0], [0.0, 0.0]])
    matrix = similarity.cosines(weights)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(matrix[:3, :3], [[1, half, 0], [half, 1, -half], [0, -half, 1]])
    assert (matrix[3] == 0).all()
    turned = similarity.cosines(5 * weights @ rotation(RNG(15), 2))
    np.testing.assert_allclose(turned, matrix, atol=1e-12)
    assert similarity.within(matrix, np.array([[0, 1, 2]]))[0] == pytest.approx(0)
    across = similarity.between(matrix, np.array([0, 1]), np.array([[2, 3]]))
    assert across[0] == pytest.approx(-half / 4)


# The test and the page -----------------------------------------------------------------------

N, SIZE, DRAWS = 120, 6, 150


def random_folds(rng, n_positions, n_groups=DRAWS) -> list[Fold]:
    """A random group and random controls, measured on two halves."""
    first = rng.random(n_positions) < 0.5
    folds = []
    for measured in (first, ~first):
        order = np.stack([rng.permutation(N) for _ in range(n_groups)])
        group = order[0, :SIZE]
        rest = np.stack([row[~np.isin(row, group)][:SIZE] for row in order])
        folds.append(Fold(group, rest, rest, measured))
    return folds


def activations(rng, n=160):
    """Neurons with a shared cause, each by its own share of it."""
    share = rng.uniform(0, 0.6, N)
    return share * rng.normal(size=(n, 1)) + np.sqrt(1 - share**2) * rng.normal(size=(n, N))


def test_random_groups_raise_few_false_alarms():
    rng, kept = RNG(16), np.ones(160, dtype=bool)
    seen = [
        coordination.coordination_test(activations(rng), random_folds(rng, 160), kept).p < 0.05
        for _ in range(150)
    ]
    # 5 % and 3 points; Binomial(150, 0.05) is above 12 with probability 0.04.
    assert np.mean(seen) <= 0.08


def test_a_planted_subspace_is_found():
    rng, kept = RNG(17), np.ones(160, dtype=bool)
    folds = random_folds(rng, 160)
    folds[1] = replace(folds[1], group=folds[0].group, controls=folds[0].controls)
    post = activations(rng)
    post[:, folds[0].group] += 0.8 * rng.normal(size=(160, 2)) @ rng.normal(size=(2, SIZE))
    test = coordination.coordination_test(post, folds, kept)
    assert test.p < 0.02
    assert test.value < 0.9


def test_scaling_neurons_is_not_coordination():
    rng, kept = RNG(18), np.ones(160, dtype=bool)
    folds, post = random_folds(rng, 160), activations(rng)
    before = coordination.coordination_test(post, folds, kept)
    post[:, folds[0].group] *= 50
    assert coordination.coordination_test(post, folds, kept).value == pytest.approx(before.value)


def test_a_group_that_never_varies_is_refused():
    rng, kept = RNG(19), np.ones(160, dtype=bool)
    folds, post = random_folds(rng, 160), activations(rng)
    for fold in folds:
        post[:, fold.group] = 1.0
    with pytest.raises(UserError, match="every neuron of the group is constant"):
        coordination.coordination_test(post, folds, kept)


def world(seed: int, *, planted: bool, n: int = 260) -> tuple[xr.Dataset, coordination.Weights]:
    """Six neurons matter to rare targets; planted, they also act together."""
    rng = RNG(seed)
    stratum = rng.permutation(np.repeat([RARE, COMMON], n // 2))
    post = activations(rng, n)
    delta = 0.001 * rng.normal(size=(n, N))
    delta[np.ix_(stratum == RARE, np.arange(SIZE))] += 0.02 * np.arange(SIZE, 0, -1)
    weights = coordination.Weights(rng.normal(size=(N, 20)), rng.normal(size=(N, 20)))
    if planted:
        post[:, :SIZE] += 2 * rng.normal(size=(n, 1))
    coords = {
        "stratum": ("position", stratum),
        "weight": ("position", np.ones(n)),
        "document": ("position", rng.integers(20, size=n)),
    }
    axes = ("position", "neuron")
    arrays = {
        "post": (axes, post.astype(np.float32)),
        "delta_loss": (axes, delta.astype(np.float32)),
    }
    return xr.Dataset(arrays, coords), weights


def found_in(seed: int, *, planted: bool, protocol: str = "corrected") -> coordination.Coordination:
    effects, weights = world(seed, planted=planted)
    norms = np.linalg.norm(weights.W_out, axis=1)
    reading = PROTOCOLS[protocol]
    folds = find_folds(effects, reading, norms, size=SIZE, n_controls=DRAWS, rng=RNG(seed))
    return coordination.find_coordination(
        effects, folds, reading, weights, n_bootstrap=60, rng=RNG(seed)
    )


@pytest.fixture(scope="module")
def planted():
    return found_in(20, planted=True)


@pytest.fixture(scope="module")
def plain():
    return found_in(21, planted=False)


def test_a_planted_world_is_reproduced_and_a_plain_one_is_not(planted, plain):
    for one in coordination.evidence(planted, plain):
        assert verdict(one) == "reproduced", one
        assert one.interval[0] < one.value < one.interval[1]
    assert all(one.p >= 0.05 for one in coordination.evidence(plain, plain))
    artefacts = coordination.evidence(planted, planted)
    assert {verdict(one) for one in artefacts} == {"artefact of the method"}


def test_the_code_protocol_counts_components_of_random_groups():
    code = found_in(22, planted=True, protocol="code")
    assert code.rare.dimension is code.rare.count
    assert len(code.folds) == 1
    one, other = coordination.evidence(code, code)
    assert other.null == "100 random groups of the same size"
    # Six weakly related neurons always need six components: nothing to tell a group apart by.
    assert verdict(one) == "not testable here"
    assert one.reason == "all draws of the null are the same, 1"


def test_both_classes_are_measured_on_equal_numbers_of_positions():
    effects, _ = world(23, planted=False)
    uneven = effects.isel(position=np.flatnonzero(effects.stratum.values == COMMON)[30:])
    uneven = xr.concat([effects.isel(position=effects.stratum.values == RARE), uneven], "position")
    uneven["weight"].values[:] = RNG(0).uniform(1, 5, uneven.sizes["position"])
    everything = np.ones(uneven.sizes["position"], dtype=bool)
    fold = random_folds(RNG(24), everything.size)[0]
    rows = class_rows(uneven, replace(fold, measured=everything), rng=RNG(1))
    assert rows["rare"].size == rows["common"].size == 100
    assert (uneven.stratum.values[rows["rare"]] == RARE).all()
    assert np.unique(rows["rare"]).size == 100


def test_too_few_positions_are_not_testable():
    effects, _ = world(25, planted=False, n=80)
    everything = np.ones(80, dtype=bool)
    fold = replace(random_folds(RNG(26), 80)[0], measured=everything)
    with pytest.raises(UserError, match="40 rare positions are too few for a group of 6") as caught:
        class_rows(effects, fold, rng=RNG(0))
    nothing = coordination.Untestable(PROTOCOLS["text"], str(caught.value))
    for one in coordination.evidence(nothing, nothing):
        assert verdict(one) == "not testable here"
        assert "too few" in one.reason
    assert "not testable" in dimension_table({"text": nothing}).to_string()
    assert "not testable" in information_table({"text": nothing}).to_string()
    assert weights_table({"text": nothing}).empty
    assert told(nothing, nothing, effects)["dimension"].startswith("not testable here: 40 rare")


def test_a_null_without_scatter_is_not_testable(plain):
    same = replace(plain.rare.dimension, null=np.full(DRAWS, 6.0))
    still = replace(plain, rare=replace(plain.rare, dimension=same, ratio=same))
    one, other = coordination.evidence(still, plain)
    assert verdict(one) == "not testable here"
    assert one.reason.startswith("all draws of the null are the same")
    assert other.p is not None
    assert dimension_table({"corrected": still}).loc[("corrected", "rare"), "p"] == ""


def test_members_without_a_match_can_be_left_out(plain):
    far = matching.match_distance(plain.traits, plain.folds[0])
    assert far.shape == (SIZE,)
    fold = plain.folds[0]
    by_hand = np.mean(
        [
            np.linalg.norm(plain.traits[row[2]] - plain.traits[fold.group[2]])
            for row in fold.controls
        ]
    )
    assert far[2] == pytest.approx(by_hand)
    everyone = matching.with_match(plain.traits, plain.folds, np.inf)
    assert [one.group.size for one in everyone] == [SIZE, SIZE]
    assert matching.with_match(plain.traits, plain.folds, 0.0) is None
    caliper = np.sort(far)[3] + 1e-9
    kept = matching.with_match(plain.traits, [fold], caliper)[0]
    np.testing.assert_array_equal(kept.controls, fold.controls[:, far <= caliper])


def test_a_rerun_gives_the_same_numbers(plain):
    again = found_in(21, planted=False)
    assert coordination.evidence(again, again) == coordination.evidence(plain, plain)


def test_tables_and_sentences_say_what_was_found(planted, plain):
    table = dimension_table({"corrected": planted})
    assert table.loc[("corrected", "rare"), "p"] == "0.007"
    effects, _ = world(20, planted=True)
    said = told(planted, plain, effects)
    assert "lower (p = 0.007)" in said["dimension"]
    assert "not reliably lower" in said["untrained"]
