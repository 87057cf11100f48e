"""Layers side by side: shares of planted worlds, and the numbers of `regimes` for the last one."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from raretok.claims.layers import estimate, figures
from raretok.claims.regimes.estimate import concentration, lift
from raretok.claims.sample import KINDS, Sample
from raretok.claims.study import Study
from raretok.claims.style import panels
from raretok.errors import NotTestableError, UserError
from raretok.ledger.verdicts import judged
from raretok.measure.parameters import PageParameters
from raretok.stats.jackknife import block_sums
from raretok.text.protocol import PROTOCOLS
from tests.synthetic import NEURONS, a_sample, power_law

COUNTED = {"positions": 288.0, "documents": 24.0, "layers": 4.0}
N_BLOCKS = 16


def block_data(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """A sample's sums over its own blocks, and their weights."""
    n, sums, weights = sample.deal.n_blocks, [], []
    for stratum in KINDS.values():
        rows = sample.stratum == stratum
        block, weight = sample.block[rows], sample.weight[rows]
        sums.append(block_sums(sample.delta_loss[rows], weight, block, n))
        weights.append(np.bincount(block, weight, n))
    return np.stack(sums), np.stack(weights)


def of_blocks(sums, weight) -> Sample:
    rng = np.random.default_rng(0)
    return Sample.of_blocks(sums, weight, PROTOCOLS["corrected"], size=6, rng=rng)


def part_of(strength: float, seed: int = 0) -> xr.Dataset:
    """What a measurement keeps of a layer whose neurons all have so many times the influence."""
    sums, weight = block_data(a_sample(0, rare=power_law(), noise=0.002))
    rng = np.random.default_rng(seed)
    noise = 1e-5 * rng.normal(size=sums.shape) * weight[..., None]
    wide = ("token_class", "block", "neuron")
    return xr.Dataset(
        {
            "total": (wide, strength * sums + noise),
            "unmediated": (wide, 0.5 * strength * sums + noise),
            "weight": (wide[:2], weight),
            "agreement": (
                ("token_class", "subset", "bound", "measure"),
                np.full((2, 2, 3, 3), 0.9),
            ),
            "positions": 288,
            "documents": 24,
        }
    )


def read(strengths: dict[int, float], n_layers: int = 4) -> estimate.Layers:
    def part(name: str) -> xr.Dataset:
        layer = int(name.removeprefix("layer: "))
        if layer not in strengths:
            raise NotTestableError(f"layer {layer} is deeper than the model")
        return part_of(strengths[layer], -layer)

    def blocks(data: xr.Dataset, name: str):
        return of_blocks(data[name].values, data.weight.values)

    depth = SimpleNamespace(n_layers=n_layers)
    return estimate.read(SimpleNamespace(part=part, blocks=blocks, architecture=depth))


@pytest.fixture(scope="module")
def equal() -> estimate.Layers:
    return read(dict.fromkeys(estimate.BACK, 1.0))


def test_equal_layers_have_a_quarter_each_and_one_alone_has_all(equal):
    for layer in estimate.BACK:
        one = estimate.share(equal.whole, layer)
        assert one.value == pytest.approx(0.25, abs=1e-3)
        assert one.low < one.value < one.high < 0.26
    alone = read({-1: 1.0, -2: 0.0, -3: 0.0, -4: 0.0})
    assert estimate.share(alone.whole, -1).value == pytest.approx(1, abs=2e-3)
    assert sum(estimate.share(alone.whole, k).value for k in estimate.BACK) == pytest.approx(1)


def test_the_share_is_that_of_a_slow_loop():
    layers = read({-1: 1.0, -2: 0.4, -3: 0.1, -4: 0.2}).whole
    chosen, measured = layers[-1].folds
    found = []
    for left in range(N_BLOCKS + 1):
        heads = {}
        for layer, sample in layers.items():
            rows = sample.stratum == KINDS["rare"]
            delta, weight, block = (
                a[rows] for a in (sample.delta_loss, sample.weight, sample.block)
            )
            of_splits = []
            for split in range(chosen.shape[1]):
                on, off = (weight * fold[left, split][block] for fold in (chosen, measured))
                top = np.argsort(-(on @ delta), kind="stable")[: round(NEURONS / 100)]
                of_splits.append((off @ delta)[top].sum() / off.sum())
            heads[layer] = np.mean(of_splits)
        found.append(heads[-1] / sum(heads.values()))
    left_out = np.array(found[1:])
    sd = np.sqrt((N_BLOCKS - 1) / N_BLOCKS * ((left_out - left_out.mean()) ** 2).sum())
    one = estimate.share(layers, -1)
    assert one.value == pytest.approx(found[0], rel=1e-9)
    assert (one.high - one.value) / sd == pytest.approx(2.1314, abs=1e-3)  # t of 15


def test_the_unmediated_effect_is_of_the_neurons_chosen_by_the_total(equal):
    total = estimate.head_influence(equal.total[-1], "rare")
    straight = estimate.head_influence(equal.total[-1], "rare", equal.unmediated[-1])
    np.testing.assert_allclose(straight, total / 2, rtol=0.01)


def test_blocks_of_a_sample_give_the_numbers_of_the_sample():
    """Sums over blocks are all that lift, concentration and influence read."""
    sample = a_sample(3, rare=power_law(), noise=0.005)
    summed = of_blocks(*block_data(sample))
    same = replace(sample.deal, documents=np.arange(N_BLOCKS), block=np.arange(N_BLOCKS))
    summed = replace(summed, deal=same)
    for compute in (lambda one: lift(one, "rare"), concentration):
        one, two = compute(sample), compute(summed)
        assert vars(two) == pytest.approx(vars(one), rel=1e-6)
    for kind in KINDS:
        np.testing.assert_allclose(
            estimate.head_influence(summed, kind), estimate.head_influence(sample, kind), rtol=1e-6
        )


def test_the_exact_last_layer_has_the_numbers_of_the_page_regimes():
    study = Study(PageParameters(model="docs-gpt2"))
    exact = study.sample("corrected")
    row = figures.of_effects(exact)
    of_regimes = {(f.claim, f.estimand): f for f in study.of_reading("regimes", "corrected")}
    assert row["lift (R1)"] == of_regimes["R1", "lift"].estimate
    assert row["concentration (R0)"] == of_regimes["R0", "concentration"].estimate
    assert row["reliability"] == f"{of_regimes['R1', 'lift'].gates['reliability']:.2f}"


def test_findings_are_judged_and_the_lift_is_of_the_layer_before(equal):
    share, before = estimate.findings(equal)
    assert ("G3", share.estimand) == estimate.ESTIMANDS[0]
    assert before.estimate == lift(equal.total[-2], "rare")
    assert share.gates.items() >= COUNTED.items()
    assert [entry.verdict for entry in judged([share, before])] == ["contradicted", "reported"]


def test_a_model_of_three_layers_uses_those_and_names_the_gap():
    layers = read({-1: 1.0, -2: 1.0, -3: 1.0}, n_layers=3)
    assert layers.gaps == {-4: "layer -4 is deeper than the model"}
    share, _ = estimate.findings(layers)
    assert share.estimate.value == pytest.approx(1 / 3, abs=1e-3)
    table = figures.layer_table(layers, None)
    assert table.loc["4th last"].iloc[0].startswith("gap: layer -4 is deeper")
    model = figures.of_model(layers)
    assert (model["layers"], model["4th last"]) == ("3", "")


def test_a_layer_that_was_not_measured_is_no_smaller_sum():
    layers = read({-1: 1.0, -2: 1.0, -4: 1.0})
    share, before = estimate.findings(layers)
    assert share.estimate is None
    assert share.reason == "layer -3 was not measured: measure it first"
    assert before.estimate is not None


@pytest.mark.parametrize(("strengths", "n"), [({-1: 1.0}, 1), ({-2: 1.0}, 4), ({}, 4)])
def test_what_cannot_be_had_is_one_line(strengths, n):
    with pytest.raises(NotTestableError) as error:
        estimate.share(read(strengths, n).whole, -1)
    assert "\n" not in str(error.value)


def test_other_positions_are_refused(equal):
    other = replace(equal.total[-2], weight=2 * equal.total[-2].weight)
    with pytest.raises(UserError, match="at other positions"):
        estimate.complete(equal.total | {-2: other}, 4)


def test_layers_that_do_not_help_have_no_share():
    layers = read(dict.fromkeys(estimate.BACK, -1.0))
    with pytest.raises(NotTestableError, match="do not help rare targets"):
        estimate.share(layers.whole, -1)


def test_every_figure_and_table_is_drawn(equal):
    _, axes = panels(4)
    figures.influence_by_layer(axes[0], read({-1: 1.0, -2: 1.0}, 2), a_sample(1))
    assert "gap" in [text.get_text() for text in axes[0].texts]
    figures.curves(axes[1], equal, a_sample(1), "rare")
    assert len(axes[1].lines) == 5
    figures.agreement(axes[2], equal.agreement, 0)
    table = figures.layer_table(equal, a_sample(1))
    assert list(table.index) == ["last, exact", *figures.ORDER.values()]
    assert table.loc["last, exact", "share of the layers"] == ""
    assert table.loc["last", "agreement, top"] == "0.90 (0.90 to 0.90)"
