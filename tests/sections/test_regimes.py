"""The page `regimes` as a whole, on worlds whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from raretok.ledger.verdicts import verdict
from raretok.sections import regimes
from raretok.sections.regimes_page import head_sentence, heads_table, pieces_table, told
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import COMMON, RARE

SETTINGS = regimes.Settings(n_bootstrap=40, n_null=60)
N, PER_CLASS = 1_024, 240


def world(seed: int, *, rare_head: float = 1.0, common_head: float = 1.0) -> xr.Dataset:
    """A run whose neurons follow a power law; the top 1 % of a class may be multiplied."""
    rng = np.random.default_rng(seed)
    law = {kind: np.sort(rng.random(N) ** -0.5)[::-1] * 1e-3 for kind in (RARE, COMMON)}
    law[RARE][:10] *= rare_head
    law[COMMON][:10] *= common_head
    stratum = np.repeat([RARE, COMMON], PER_CLASS)
    mean = np.stack([rng.permutation(law[kind]) for kind in (RARE, COMMON)])
    noise = 1e-4 * rng.normal(size=(2 * PER_CLASS, N))
    delta = (np.repeat(mean, PER_CLASS, axis=0) + noise).astype(np.float32)
    coords = {
        "stratum": ("position", stratum),
        "weight": ("position", np.ones(2 * PER_CLASS)),
        "document": ("position", rng.integers(24, size=2 * PER_CLASS)),
    }
    return xr.Dataset({"delta_loss": (("position", "neuron"), delta)}, coords)


def found_in(seed: int, protocol: str = "corrected", **heads) -> regimes.Regimes:
    rng = np.random.default_rng(seed)
    return regimes.find_regimes(world(seed, **heads), PROTOCOLS[protocol], SETTINGS, rng=rng)


def verdicts(found: regimes.Regimes, untrained: regimes.Regimes) -> dict[str, str]:
    rng = np.random.default_rng(0)
    return {
        one.claim: verdict(one) for one in regimes.evidence(found, untrained, n_draws=60, rng=rng)
    }


@pytest.fixture(scope="module")
def smooth():
    return found_in(1)


@pytest.fixture(scope="module")
def planted():
    return found_in(2, rare_head=3.0)


def test_a_planted_plateau_is_found_in_rare_targets_only(planted, smooth):
    assert planted.rare.head.kind == "excess"
    assert 7 <= planted.rare.head.size <= 15
    assert planted.rare.size.low <= 100 * 10 / N <= planted.rare.size.high
    assert planted.common.head.kind == "none"
    said = verdicts(planted, smooth)
    assert said["R2"] == "reproduced"
    assert said["R3"] == "reproduced"


def test_a_smooth_world_has_none(smooth):
    assert smooth.rare.head.kind == "none"
    assert verdicts(smooth, smooth) == {
        "R1": "not reproduced",
        "R2": "not reproduced",
        "R3": "reproduced",
    }


def test_what_the_untrained_network_shows_too_is_an_artefact(planted):
    assert verdicts(planted, planted)["R2"] == "artefact of the method"


def test_a_plateau_of_common_targets_contradicts_the_paper(smooth):
    assert verdicts(found_in(3, common_head=3.0), smooth)["R3"] == "not reproduced"


def regimes_world(head: str) -> np.ndarray:
    """A whole R1: 1 % in the head, a power law, a rapid decay."""
    rank = np.arange(1, 721)
    log_v = -0.5 * np.log(rank) - 4 * np.log(np.maximum(rank / 300, 1))
    noise = np.random.default_rng(3).exponential(size=720)
    slopes = np.append(-np.diff(log_v) * rank[:-1], 4.5)
    log_v = np.cumsum((slopes * noise / rank)[::-1])[::-1]
    if head == "tripled":
        log_v[:7] += np.log(3)
    else:
        log_v[:7] = log_v[:7].mean()
    return np.exp(log_v)


@pytest.mark.parametrize("head", ["tripled", "flat"])
def test_three_planted_regimes_are_seen_with_either_kind_of_head(head, smooth):
    values = regimes_world(head)
    rng = np.random.default_rng(0)
    planted = replace(
        smooth.rare, head=regimes.head_test(values), pieces=regimes.regime_test(values, rng=rng)
    )
    assert regimes.three_regimes_p(planted) < 0.05


def test_power_is_high_for_a_tripled_head_on_a_half_power_law(smooth):
    assert regimes.head_power(smooth.common, 60, rng=np.random.default_rng(0)) > 0.9


def test_rankings_of_mean_sizes_keep_helping_neurons_only():
    data = world(4)
    data["delta_loss"][:, :100] *= -1
    code = regimes.find_regimes(data, PROTOCOLS["code"], SETTINGS, rng=np.random.default_rng(0))
    assert code.rare.values.size == N - 100
    assert (code.rare.values > 0).all()


def test_a_rerun_gives_the_same_numbers():
    one, two = found_in(5), found_in(5)
    np.testing.assert_array_equal(one.rare.curve.low, two.rare.curve.low)
    assert one.share.p == two.share.p
    assert one.rare.pieces.p_curve == two.rare.pieces.p_curve


def test_tables_and_sentences_say_what_was_found(planted, smooth):
    heads = heads_table({"planted": planted})
    assert heads.loc[("planted", "rare"), "head"] == "excess"
    assert heads.loc[("planted", "common"), "head"] == "none"
    assert list(pieces_table(planted).columns) == ["rare targets", "common targets"]
    assert "is set apart (excess head" in head_sentence("rare", planted.rare)
    assert head_sentence("common", smooth.common).startswith("no group at the head")
    assert told(planted, smooth, 60)["n_rare"] == str(PER_CLASS)
