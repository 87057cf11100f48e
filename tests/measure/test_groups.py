"""Groups ablated together: what ships agrees with single effects, chosen on other documents."""

import numpy as np
import pytest

from raretok.claims.study import Study
from raretok.measure.find import DEEP
from raretok.measure.influence import PERCENT, SETS, prefixes, size_of


@pytest.fixture(scope="module", params=[name for name in DEEP if name.startswith("docs")])
def part(request):
    return Study.shipped(request.param).part("groups")


def test_the_joint_effect_of_one_neuron_is_its_single_effect(part):
    """Two ways through the closed form, and the steps that single effects are kept in."""
    assert size_of(PERCENT[0], 1024) == 1
    weight = part.weight.values[..., None, None]
    joint, single = (part[name].values[..., 0] / weight for name in ("joint", "single"))
    np.testing.assert_allclose(joint, single, atol=3e-3)
    np.testing.assert_allclose(joint.mean(axis=1), single.mean(axis=1), atol=3e-4)


def test_groups_are_nested_and_their_sets_share_no_neuron_with_them(part):
    members = part.members.values
    assert members.shape[1:] == (2, 1 + SETS, size_of(PERCENT[-1], 1024))
    for half in members:
        groups = prefixes(half)
        assert len(groups) == 2 * (1 + SETS) * len(PERCENT)
        assert [len(g) for g in groups[: len(PERCENT)]] == [size_of(p, 1024) for p in PERCENT]
        for of_class in half:
            assert not np.isin(of_class[1:], of_class[0]).any()
            assert all(np.unique(one).size == one.size for one in of_class)
