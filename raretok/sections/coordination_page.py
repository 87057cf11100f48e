"""Tables of the page `coordination`."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from raretok.ledger.verdicts import p_text
from raretok.measure.parameters import PageParameters
from raretok.sections import information
from raretok.sections.coordination import (
    Coordination,
    Untestable,
    Untested,
    coordination_test,
    dimension_test,
    excess_test,
    tried,
)
from raretok.sections.dimension import correlations, participation_ratio
from raretok.sections.joint_activity import KINDS, compare_spectra
from raretok.sections.matching import CALIPERS, with_match
from raretok.sections.plateau import head_test
from raretok.sections.similarity import between, within
from raretok.stats.documents import NullTest, null_test
from raretok.stats.groups import Compared, Fold, influences
from raretok.text.protocol import Protocol
from raretok.text.rarity import RARE

Found = Coordination | Untestable
NOT_HERE = "not testable here"  # in tables, which cut long cells; the reason is told in words
PERCENTS = (1, 2, 5)  # of the layer


def dimension_table(found: Mapping[str, Found]) -> pd.DataFrame:
    """Both dimensions of the group and its controls, run by run and class by class."""
    rows = []
    for name, both in found.items():
        if isinstance(both, Untestable):
            rows.append({"run": name, "targets": "", "positions": NOT_HERE})
            continue
        for kind, one in both:
            n, equals = both.group_size, one.ratio.equals
            against = Compared(one.ratio.value, equals, equals)
            ratio, count = tried(dimension_test, one.ratio), tried(dimension_test, one.count)
            rows.append(
                {
                    "run": name,
                    "targets": kind,
                    "positions": str(one.n_positions),
                    "participation ratio": f"{one.ratio.value:.2f}",
                    "controls": f"{np.nanmean(one.ratio.null):.2f}",
                    "over controls": f"{ratio.value:.2f}",
                    "p": p_text(ratio.p),
                    "equally influential": f"{np.nanmean(equals):.2f}",
                    "p, those": p_text(tried(dimension_test, against).p),
                    "95 % count / neurons": f"{one.count.value / n:.2f}",
                    "controls ": f"{np.nanmean(one.count.null) / n:.2f}",
                    "p ": p_text(count.p),
                }
            )
    return pd.DataFrame(rows).fillna("").set_index(["run", "targets"])


def match_table(found: Found, effects: xr.Dataset) -> pd.DataFrame:
    """The test again with only those members that have a match within a caliper."""
    if isinstance(found, Untestable):
        return pd.DataFrame([{"": NOT_HERE}])
    rows = {}
    for caliper in (np.inf, *CALIPERS):
        folds = with_match(found.traits, found.folds, caliper)
        name = "all" if np.isinf(caliper) else f"within {caliper:g} sd"
        if folds is None:
            rows[name] = {"neurons, by half": "too few"}
            continue
        rows[name] = {"neurons, by half": ", ".join(str(fold.group.size) for fold in folds)}
        for kind in KINDS:
            test = tried(dimension_test, measured_again(found, folds, effects, kind))
            rows[name] |= test_texts(test, kind)
    return pd.DataFrame(rows).T.fillna("").rename_axis("members kept")


def measured_again(
    found: Coordination, folds: list[Fold], effects: xr.Dataset, kind: str
) -> Compared:
    """Participation ratio of changed folds on the same positions."""
    post = effects.post.values
    matrices = [correlations(post[kept[kind]]) for kept in found.rows]
    return compare_spectra(folds, matrices, participation_ratio)


def test_texts(test: NullTest | Untested, kind: str) -> dict[str, str]:
    return {
        f"{kind}: over controls": f"{test.value:.2f}",
        f"{kind}: p": p_text(test.p),
        f"{kind}: smallest effect seen": ""
        if test.smallest is None
        else f"{100 * test.smallest:.0f} %",
    }


def singled_out(effects: xr.Dataset, protocol: Protocol) -> str:
    """Size of the group that the head test of the rank curve finds most set apart; "no" if none."""
    size = head_size_of(effects, protocol)
    return "no" if size is None else str(size)


def head_size_of(effects: xr.Dataset, protocol: Protocol) -> int | None:
    everything = np.ones(effects.sizes["position"], dtype=bool)
    _, ranking = influences(effects, protocol, everything, RARE)
    try:
        return head_test(ranking).size
    except ValueError:  # too few neurons with a positive effect
        return None


def group_sizes(effects: xr.Dataset, protocol: Protocol) -> list[int]:
    """1, 2 and 5 % of the layer, and the size that the head test singles out."""
    sizes = {round(percent / 100 * effects.sizes["neuron"]) for percent in PERCENTS}
    singled = head_size_of(effects, protocol)
    return sorted(sizes | ({singled} if singled else set()))


def settings(parameters: PageParameters, group_size: int) -> dict[str, str]:
    """What was set, for the page's sentences."""
    return {
        "lead": parameters.protocol,
        "size": str(group_size),
        "percent": f"{parameters.group_percent:g}",
        "n_controls": f"{parameters.n_controls:,}",
        "k": str(information.NEIGHBOURS),
        "pairs": str(information.PAIRS),
        "positions": str(information.POSITIONS),
        "mi_controls": str(min(information.CONTROLS, parameters.n_controls)),
    }


def sizes_table(
    effects: xr.Dataset, find: Callable[..., list[Fold]], sizes: list[int], group_size: int
) -> pd.DataFrame:
    """The test for other group sizes, and for the neurons whose ablation lowers the loss."""
    rows, n = [], effects.sizes["neuron"]
    for part in ("boost", "suppress"):
        for size in sorted({*sizes, group_size}) if part == "boost" else [group_size]:
            row = {"part": part, "neurons": size, "% of the layer": f"{100 * size / n:.1f}"}
            try:
                folds = find(part=part, size=None if size == group_size else size)
                for kind, stratum in KINDS.items():
                    kept = effects.stratum.values == stratum
                    row |= test_texts(coordination_test(effects.post.values, folds, kept), kind)
            except ValueError:
                row["rare: over controls"] = NOT_HERE
            rows.append(row)
    return pd.DataFrame(rows).fillna("").set_index(["part", "neurons"])


def squares_table(found: Found, effects: xr.Dataset) -> pd.DataFrame:
    """Mean square correlation inside the group, from it to its controls, and inside those."""
    if isinstance(found, Untestable):
        return pd.DataFrame([{"": NOT_HERE}])
    rows = {}
    for kind in KINDS:
        inside, across, controls = square_means(found, effects, kind)
        rows[f"{kind} targets"] = {
            "inside the group": f"{inside:.3f}",
            "from the group to its controls": f"{across:.3f}",
            "inside a control group": f"{controls:.3f}",
        }
    return pd.DataFrame(rows).T


def square_means(
    found: Coordination, effects: xr.Dataset, kind: str
) -> Float[np.ndarray, " three"]:
    """Mean square correlation inside the group, across to its controls, inside those."""
    means = []
    for fold, kept in zip(found.folds, found.rows, strict=True):
        square = correlations(effects.post.values[kept[kind]]) ** 2
        inside = within(square, fold.group[None])[0]
        across = between(square, fold.group, fold.controls).mean()
        means.append([inside, across, within(square, fold.controls).mean()])
    return np.mean(means, axis=0)


def information_table(found: Mapping[str, Found]) -> pd.DataFrame:
    """Information of the group and its controls, in each class and between the classes."""
    rows = {}
    for name, both in found.items():
        if isinstance(both, Untestable):
            rows[name] = {"positions": NOT_HERE}
            continue
        rows[name] = {"positions": str(both.rare.n_neighbour)}
        for kind, one in both:
            rows[name] |= {
                f"{kind}: group": f"{one.shared.value:.3f}",
                f"{kind}: controls": f"{one.shared.null.mean():.3f}",
                f"{kind}: p": p_text(tried(excess_test, one.shared).p),
            }
        change = information_change(both)
        rows[name] |= {
            "rare less common: group": f"{change.value:.3f}",
            "controls": f"{change.null.mean():.3f}",
            "p": p_text(change.p),
            "rare, if linear: group": f"{both.rare.linear.value:.3f}",
            "controls ": f"{np.nanmean(both.rare.linear.null):.3f}",
            "p ": p_text(tried(excess_test, both.rare.linear).p),
        }
    return pd.DataFrame(rows).T.fillna("").rename_axis("run")


def information_change(found: Coordination) -> NullTest:
    """Information on rare targets less that on common ones, group against controls."""
    rare, common = found.rare.shared, found.common.shared
    return null_test(rare.value - common.value, rare.null - common.null, "two-sided")


def weights_table(found: Mapping[str, Found]) -> pd.DataFrame:
    """Cosines of weight vectors inside the group, across to its controls, inside those."""
    rows = []
    for name, both in found.items():
        if isinstance(both, Untestable):
            continue
        for weights, one in both.weights.items():
            rows.append(
                {
                    "run": name,
                    "weights": weights,
                    "size: in the group": f"{one.size.value:.3f}",
                    "group to controls": f"{one.apart:.3f}",
                    "in a control group": f"{one.size.null.mean():.3f}",
                    "p": p_text(tried(excess_test, one.size).p),
                    "signed: in the group": f"{one.signed.value:.3f}",
                    "in a control group ": f"{one.signed.null.mean():.3f}",
                    "p, two-sided": p_text(tried(excess_test, one.signed, "two-sided").p),
                }
            )
    return pd.DataFrame(rows).set_index(["run", "weights"]) if rows else pd.DataFrame()
