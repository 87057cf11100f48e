"""Groups that go together, in sums made by hand."""

import numpy as np
import pytest
import xarray as xr

from raretok.claims.groups import estimate, figures
from raretok.claims.groups.estimate import KINDS, Groups
from raretok.claims.study import Study
from raretok.claims.style import panels, table, there, told
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate

PERCENT = (0.1, 0.3, 1.0, 3.0, 10.0)
BLOCKS, SETS, RANKS = 16, 8, 24


def data(factor: float = 1.0, rare: float = 0.3, common: float = 0.02, seed: int = 0) -> xr.Dataset:
    """Effects that grow with the size; joint is `factor` times the sum of the single ones."""
    rng = np.random.default_rng(seed)
    weight = rng.uniform(50, 150, (2, BLOCKS))
    size = np.array(PERCENT) ** 0.5
    mean = np.array([rare, common])[:, None, None, None, None] * size
    scatter = 1 + 0.1 * rng.normal(size=(2, BLOCKS, 2, 1 + SETS, len(PERCENT)))
    single = weight[..., None, None, None] * mean * scatter
    single[:, :, :, 1:] *= 0.1
    wide = ("token_class", "block", "chosen_for", "set", "percent")
    members = np.zeros((2, 2, 1 + SETS, RANKS), dtype=np.int16)
    return xr.Dataset(
        {
            "joint": (wide, factor * single),
            "single": (wide, single),
            "weight": (wide[:2], weight),
            "members": (("half", "chosen_for", "set", "rank"), members),
        },
        {"percent": list(PERCENT)},
    )


@pytest.fixture(scope="module")
def groups() -> Groups:
    return Groups.of(data(1.5))


def test_neurons_that_only_add_up_have_a_ratio_of_exactly_1():
    groups = Groups.of(data(1.0))
    for kind in KINDS:
        for percent in PERCENT:
            assert estimate.synergy(groups, kind, "rare", percent) == Estimate(1.0, 1.0, 1.0)


def test_every_estimate_is_that_of_a_slow_jackknife(groups):
    raw = data(1.5)
    joint, weight = raw.joint.values, raw.weight.values

    def mean(kept: list[int], kind: int) -> float:
        return sum(joint[kind, b, 1, 0, 2] for b in kept) / sum(weight[kind, b] for b in kept)

    for compute, value in (
        (lambda: estimate.effect(groups, "common", "common", 1.0), lambda kept: mean(kept, 1)),
        (
            lambda: estimate.selectivity(groups, "common", 1.0).through(np.log),
            lambda kept: np.log(mean(kept, 0) / mean(kept, 1)),
        ),
    ):
        every = list(range(BLOCKS))
        left = np.array([value([b for b in every if b != out]) for out in every])
        sd = np.sqrt((BLOCKS - 1) / BLOCKS * ((left - left.mean()) ** 2).sum())
        one = compute()
        assert one.value == pytest.approx(value(every))
        assert one.high - one.value == pytest.approx(2.13145 * sd, rel=1e-5)  # t of 15
        assert one.value - one.low == pytest.approx(one.high - one.value)


def test_planted_effects_come_back(groups):
    assert estimate.effect(groups, "rare", "rare", 1.0).value == pytest.approx(0.45, rel=0.1)
    assert estimate.synergy(groups, "rare", "rare", 3.0).value == pytest.approx(1.5)
    assert estimate.selectivity(groups, "rare", 1.0).value == pytest.approx(15, rel=0.15)
    low, high = estimate.of_sets(groups, "rare", "rare", 1.0)
    assert low <= 0.045 <= high
    sets = estimate.selectivity_of_sets(groups, "rare", 1.0)
    assert sets.low < 15 < sets.high


def test_weights_do_not_matter_but_for_their_ratios(groups):
    raw = data(1.5)
    for name in ("joint", "single", "weight"):
        raw[name] = 3 * raw[name]
    one, two = (estimate.effect(g, "rare", "rare", 1.0) for g in (groups, Groups.of(raw)))
    assert vars(one) == pytest.approx(vars(two))


def test_sizes_are_those_that_were_measured(groups):
    assert groups.n_neurons == 240
    assert groups.sizes == [1, 1, 2, 7, 24]
    assert groups.means.sizes["set"] == 1 + SETS


def test_a_ratio_of_effects_that_help_the_loss_is_a_gap():
    groups = Groups.of(data(rare=-0.1))
    with pytest.raises(NotTestableError, match=r"^rare over common effect: a ratio needs effects"):
        estimate.selectivity(groups, "rare", 1.0)
    shown = figures.group_table(groups).loc[("rare", "1")]
    assert shown["rare over common"] == shown["joint over single, rare"] == "undefined"


def test_a_size_that_was_not_measured_is_one_line(groups):
    with pytest.raises(NotTestableError, match=r"^groups of 2 % were not measured"):
        estimate.effect(groups, "rare", "rare", 2.0)


def test_a_class_without_weight_is_one_line():
    raw = data()
    raw["weight"][1] = 0
    with pytest.raises(NotTestableError, match="no position of a class"):
        Groups.of(raw)


def test_figures_and_tables_are_drawn_and_a_gap_is_named(groups):
    bare = Study.shipped("docs-gpt2-seed1")
    gap = told(lambda: Groups.of(bare.part("groups")))
    assert gap.startswith("not testable here: groups of docs-gpt2-seed1")
    assert "\n" not in gap
    assert table({"one": groups, "two": gap}, "model", figures.of_model).loc["two"].iloc[0] == gap
    with pytest.raises(NotTestableError, match="docs-gpt2-seed1"):
        there(gap)
    assert len(figures.group_table(groups)) == 2 * len(PERCENT)
    _, axes = panels(2)
    figures.together(axes[0], there(groups), "rare")
    figures.over_single(axes[1], groups, "common", {"other": groups})
    assert all(ax.lines for ax in axes)
