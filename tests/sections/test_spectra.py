"""Weight spectra of groups and layers: identities, silence on nothing, planted effects."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from raretok.errors import UserError
from raretok.ledger.verdicts import paper_claims, verdict
from raretok.sections import spectra as sp
from raretok.sections import spectra_page as page
from raretok.sections import spectra_tables as tables
from raretok.sections.eigenvalues import hill, noise_spectra, standard_rows
from raretok.sections.layer_spectrum import (
    contribution,
    direction_shares,
    layer_spectrum,
    spectra_without,
)
from raretok.stats.groups import Draws, Fold, control_groups
from raretok.text.protocol import PROTOCOLS

RNG = np.random.default_rng
N, D, SIZE, DRAWS = 240, 64, 10, 200


def fold_of(group, rng, n_neurons=N, draws=DRAWS) -> Fold:
    none = np.zeros((n_neurons, 4))
    controls = control_groups(none, group, False, Draws(draws, [group], rng))
    return Fold(group, controls, controls, np.ones(3, dtype=bool))


def weights(rng, planted: float = 0.0, directions: int = 2) -> np.ndarray:
    """A layer with a few directions of its own; its first ten rows share others if planted."""
    W = rng.normal(size=(N, D)) + 0.4 * rng.normal(size=(N, 3)) @ rng.normal(size=(3, D))
    W[:SIZE] += planted * rng.normal(size=(SIZE, directions)) @ rng.normal(size=(directions, D))
    return W


def world(seed: int, protocol: str = "corrected", planted: float = 0.0) -> sp.Spectra:
    rng = RNG(seed)
    rows = sp.weight_rows(weights(rng, planted), weights(rng, planted))
    boost, suppress = np.arange(SIZE), np.arange(SIZE, 2 * SIZE)
    folds = {"boost": [fold_of(boost, rng)] * 2, "suppress": [fold_of(suppress, rng)] * 2}
    return sp.find_spectra(rows, folds, PROTOCOLS[protocol], "gpt2", rng=rng)


@pytest.fixture(scope="module")
def planted():
    return world(1, planted=2.0)


@pytest.fixture(scope="module")
def nothing():
    return world(2)


def test_group_spectra_are_those_of_the_correlation_matrix_and_hold_its_trace():
    W = weights(RNG(0))
    groups = RNG(1).permuted(np.tile(np.arange(N), (5, 1)), axis=1)[:, :SIZE]
    spectra = sp.group_spectra(standard_rows(W), groups)
    for group, found in zip(groups, spectra, strict=True):
        corr = np.corrcoef(W[group])
        np.testing.assert_allclose(found, np.linalg.eigvalsh(corr)[::-1], atol=1e-10)
        off = corr[~np.eye(SIZE, dtype=bool)]
        assert sp.mean_squared_cosine(found[None])[0] == pytest.approx((off**2).mean())
    np.testing.assert_allclose(spectra.sum(axis=1), SIZE)


def test_chunks_change_nothing(monkeypatch):
    rows, groups = standard_rows(weights(RNG(0))), np.arange(60).reshape(6, SIZE)
    whole = sp.group_spectra(rows, groups)
    monkeypatch.setattr(sp, "CHUNK", 2 * SIZE * D)
    np.testing.assert_array_equal(sp.group_spectra(rows, groups), whole)


def test_both_matrices_side_by_side_average_their_correlations():
    rng = RNG(3)
    rows = sp.weight_rows(weights(rng), weights(rng))
    corr = [rows[name] @ rows[name].T / rows[name].shape[1] for name in sp.MATRICES]
    np.testing.assert_allclose(corr[2], (corr[0] + corr[1]) / 2, atol=1e-12)


def test_the_test_is_silent_where_there_is_nothing():
    """The same group in both folds, 120 worlds: at most 5 % + 3 points."""
    noise = noise_spectra(SIZE, D, DRAWS, rng=RNG(4))
    alarms = controls = 0
    for seed in range(120):
        rng = RNG(seed)
        rows = standard_rows(weights(rng))
        folds = [fold_of(np.arange(SIZE), rng), fold_of(np.arange(SIZE), rng)]
        alarms += sp.spectra_test(rows, folds, noise, SIZE // 2).p < 0.05
        group, drawn = sp.pooled(rows, folds)
        statistic = lambda s: np.log(hill(s, SIZE // 2))  # noqa: E731
        controls += sp.measure(statistic, "less", group, drawn, noise).controls.p < 0.05
    assert alarms <= 9
    # Binomial(120, 0.05) exceeds 12 with probability 0.01: folds are pooled, not averaged.
    assert controls <= 12


def test_planted_tails_are_found():
    noise = noise_spectra(SIZE, D, DRAWS, rng=RNG(4))
    found = 0
    for seed in range(30):
        rng = RNG(100 + seed)
        rows = standard_rows(weights(rng, planted=1.0))
        found += sp.spectra_test(rows, [fold_of(np.arange(SIZE), rng)], noise, 5).p < 0.05
    assert found >= 27


def test_the_jackknife_interval_covers_the_index_of_such_groups():
    rows = standard_rows(RNG(5).normal(size=(2_000, 128)))
    groups = np.arange(2_000).reshape(200, SIZE)
    logs = np.log(hill(sp.group_spectra(rows, groups), 5))
    sds = np.array([sp.jackknife_sd(rows, group, 5) for group in groups[:100]])
    covered = np.abs(logs[:100] - logs.mean()) <= 2.26 * sds
    assert covered.mean() >= 0.9
    assert np.mean(sds**2) >= logs.var()  # Efron and Stein: never too small on average


def test_verdicts_follow(planted, nothing):
    (seen,) = sp.evidence(planted, nothing)
    assert verdict(seen) == "reproduced"
    assert seen.value < paper_claims()["S1"].range[1]
    assert seen.interval[0] < seen.value < seen.interval[1]
    assert verdict(sp.evidence(planted, planted)[0]) == "artefact of the method"
    (silent,) = sp.evidence(nothing, nothing)
    assert silent.p > 0.05
    assert verdict(silent) in ("not reproduced", "not testable here")
    assert 0 < silent.smallest < np.exp(np.median(nothing.claimed.measured[sp.INDEX].controls.null))


def test_the_larger_of_two_p_counts(planted):
    one = planted.claimed.measured[sp.INDEX]
    weak = replace(one.noise, p=0.4)
    assert sp.Measured(one.controls, weak).worse.p == 0.4


def test_protocols_choose_matrix_and_tail():
    assert sp.claimed_matrix(PROTOCOLS["code"], "gpt_neox") == "W_in"
    assert sp.claimed_matrix(PROTOCOLS["corrected"], "gpt_neox") == "both"
    assert sp.tail_size(PROTOCOLS["code"], 10) == 1
    assert sp.tail_size(PROTOCOLS["text"], 10) == 5
    assert sp.tail_size(PROTOCOLS["text"], 3) == 1


def test_a_rerun_gives_the_same_numbers(nothing):
    again = world(2)
    assert again.claimed.interval == nothing.claimed.interval
    np.testing.assert_array_equal(again.claimed.noise, nothing.claimed.noise)


def test_leaving_a_group_out_equals_building_the_layer_without_it():
    rows = standard_rows(weights(RNG(6)))
    groups = np.array([[0, 5, 9], [3, 4, 200]])
    for group, found in zip(groups, spectra_without(rows, groups, 20), strict=True):
        rest = np.delete(rows, group, axis=0)
        singular = np.linalg.svd(rest, compute_uv=False)
        np.testing.assert_allclose(found, (singular**2 / D)[:20])


def test_direction_shares_grow_to_one_and_sum_to_the_eigenvalues():
    rows = standard_rows(weights(RNG(7)))
    layer = layer_spectrum(rows, rng=RNG(0))
    shares = direction_shares(rows, layer.directions)
    np.testing.assert_allclose(shares[:, -1], 1)
    np.testing.assert_allclose(np.diff(shares.sum(axis=0)), layer.spectrum[1:], atol=1e-9)
    assert layer.spectrum.size == D - 1  # centring takes one direction
    assert layer.beyond == 3  # the three directions of the layer
    assert layer.interval.low < layer.index < layer.interval.high


def test_a_group_that_makes_the_layers_tail_is_seen_to():
    rng = RNG(8)
    W = rng.normal(size=(N, D))
    W[:SIZE] += 3 * rng.normal(size=D)
    rows = standard_rows(W)
    layer = layer_spectrum(rows, rng=rng)
    part = contribution(rows, layer, [fold_of(np.arange(SIZE), rng)])
    other = contribution(rows, layer, [fold_of(np.arange(20, 20 + SIZE), rng)])
    assert part.lead.p < 0.02
    assert part.left_out.p < 0.02
    assert other.lead.p > 0.05


def test_the_page_has_no_nan_and_says_what_was_found(planted, nothing):
    found = {name: world(9, name) for name in ("code", "text")} | {"corrected": planted}
    trained, twin = (page.layer_spectra(one, rng=RNG(0)) for one in (planted, nothing))
    parts = {name: page.contributions(one, trained) for name, one in found.items()}
    shown = [
        tables.statistics_table(planted),
        tables.protocols_table(found),
        tables.tails_table(planted),
        tables.layers_table(trained, twin, rng=RNG(0)),
        tables.contributions_table(parts),
        tables.cosines_table(found),
        tables.sizes_table(planted, {"20": [fold_of(np.arange(20), RNG(0))]}, rng=RNG(0)),
    ]
    for table in shown:
        assert not table.isna().to_numpy().any()
        assert not table.map(lambda text: "nan" in text).to_numpy().any()
    layers = page.Layers(trained, twin, parts)
    said = page.told(found, {"corrected": nothing}, "corrected", layers, rng=RNG(0))
    assert said["code_distance"] == "NaN"
    assert said["p_noise"] == "0.005"  # 1 of 201
    assert float(said["index"]) < float(said["controls"])


def test_figures_get_finite_arrays(planted, nothing):
    trained, twin = (page.layer_spectra(one, rng=RNG(0)) for one in (planted, nothing))
    part = page.contributions(planted, trained)["W_in"]
    shown = (
        page.eigenvalue_figure(planted, "W_in"),
        page.hill_figure(planted),
        page.layer_figure(trained["W_in"], twin["W_in"]),
        page.share_figure(planted, trained["W_in"], part),
    )
    for arguments in shown:
        for value in arguments.values():
            if not isinstance(value, str | dict):
                assert np.isfinite(np.asarray(value, dtype=float)).all()


def test_unequal_size_alone_lowers_the_released_index():
    one, two = (noise_spectra(n, 400, 150, rng=RNG(n)) for n in (30, 60))
    row = tables.union_row(two, one)
    assert row["sizes"] == "60 (k = 6) against 30 (k = 3)"
    assert int(row["union has the lower index"].split()[0]) > 60
    assert isinstance(pd.DataFrame([row]).iloc[0, 0], str)


def test_constant_weights_are_refused_in_one_line():
    W = weights(RNG(0))
    W[4] = 0.25
    with pytest.raises(UserError, match="neuron 4 are constant") as caught:
        sp.weight_rows(W, W)
    assert "\n" not in str(caught.value)
