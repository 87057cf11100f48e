"""Joint against summed effects: by hand, and on worlds that back each other up or saturate."""

import numpy as np
import pytest
import xarray as xr

from raretok.measure.parts import cell_sums, cells_of
from raretok.sections.together import joint_groups, together
from raretok.stats.documents import resample_documents
from raretok.stats.groups import Fold
from raretok.text.rarity import COMMON, RARE

N, NEURONS, CONTROLS = 60, 20, 60
WEIGHT = np.linspace(1, 2, N)
STRATUM = np.where(np.arange(N) >= 6, RARE, COMMON)


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    delta = rng.normal(0.01, 0.001, (N, NEURONS))
    document = np.arange(N) // 6
    controls = np.stack([rng.choice(np.arange(3, NEURONS), 3, replace=False) for _ in range(80)])
    fold = Fold(np.arange(3), controls, controls, document % 2 == 0)
    return delta, document, fold


def measured(world, joint):
    """What `together` makes of the sums of a joint effect, as a measurement keeps them."""
    delta, document, fold = world
    labels = {"document": document, "stratum": STRATUM, "weight": WEIGHT}
    effects = xr.Dataset(
        {"delta_loss": (("position", "neuron"), delta)},
        {name: ("position", values) for name, values in labels.items()},
    )
    groups = joint_groups([fold], CONTROLS)
    effect = WEIGHT[:, None] * joint(delta, groups)
    cells = cells_of(document, STRATUM)
    present, sums = cell_sums(cells, effect)
    kept = xr.Dataset(
        {
            "delta_loss": (("cell", "group"), sums),
            "weight": ("cell", cell_sums(cells, WEIGHT)[1]),
            "groups": (("group", "member"), groups),
            "cell_document": ("cell", present[:, 0]),
            "cell_code": ("cell", present[:, 1]),
        }
    )
    counts = resample_documents(10, 200, rng=np.random.default_rng(1))
    return together([fold], effects, kept, "code", RARE, counts=counts)


def additive(delta, groups):
    return delta[:, groups].sum(axis=2)


def test_effects_that_add_up_show_no_excess(world):
    found = measured(world, additive)
    assert found.joint == pytest.approx(found.summed, rel=1e-6)
    assert found.joint_null == pytest.approx(found.summed_null, rel=1e-6)
    assert abs(found.test.value) < 1e-7


def test_the_means_are_those_of_the_measured_rows(world):
    delta, _, fold = world
    found, rows = measured(world, additive), (STRATUM == RARE) & fold.measured
    by_hand = np.average(delta[rows][:, :3].sum(axis=1), weights=WEIGHT[rows])
    assert found.joint == pytest.approx(by_hand, rel=1e-5)
    assert found.interval.low < found.joint < found.interval.high
    assert found.joint_null.shape == (CONTROLS,)


def test_a_group_that_backs_itself_up_is_found(world):
    def backed_up(delta, groups):
        return additive(delta, groups) * np.where((groups == np.arange(3)).all(axis=1), 2, 1)

    found = measured(world, backed_up)
    assert found.joint == pytest.approx(2 * found.summed, rel=1e-6)
    assert found.test.p < 0.05


def test_groups_are_of_each_fold_its_own_and_its_first_controls(world):
    fold = world[2]
    groups = joint_groups([fold, fold], 2)
    np.testing.assert_array_equal(groups[:3], [fold.group, *fold.controls[:2]])
    np.testing.assert_array_equal(groups[3:], groups[:3])
