"""Sentences of the page `coordination`, with the numbers in them."""

import numpy as np
import xarray as xr

from raretok.ledger.verdicts import p_text
from raretok.sections.coordination import (
    Coordination,
    Untestable,
    dimension_test,
    excess_test,
    tried,
)
from raretok.sections.coordination_page import (
    Found,
    information_change,
    measured_again,
    square_means,
)
from raretok.sections.matching import CALIPERS, match_distance, with_match
from raretok.stats.documents import ALPHA
from raretok.stats.groups import TRAITS, Compared, influences
from raretok.text.rarity import COMMON, RARE


def told(found: Found, untrained: Found, effects: xr.Dataset) -> dict[str, str]:
    """Numbers and findings of the page's sentences, as they are shown."""
    if isinstance(found, Untestable):
        why = f"not testable here: {found.reason}"
        names = (
            "matching",
            "dimension",
            "common",
            "untrained",
            "squares",
            "shared",
            "change",
            "equal",
        )
        return dict.fromkeys((*names, "weights", "match"), why)
    return {
        "matching": matching_sentence(found),
        "match": match_sentence(found, effects),
        "dimension": dimension_sentence(found.rare.dimension, "rare"),
        "common": dimension_sentence(found.common.dimension, "common"),
        "untrained": f"not testable here: {untrained.reason}"
        if isinstance(untrained, Untestable)
        else dimension_sentence(untrained.rare.dimension, "rare"),
        "equal": equal_sentence(found, effects),
        "squares": squares_sentence(found, effects),
        "shared": shared_sentence(found),
        "change": change_sentence(found),
        "weights": weights_sentence(found),
    }


def equals(p: float | None) -> str:
    """A p-value inside a sentence."""
    if p is None:
        return "not to be had: the null does not vary"
    return p_text(p) if p < 0.001 else f"= {p_text(p)}"


def matching_sentence(found: Coordination) -> str:
    group, controls = found.balance["group"], found.balance["controls"]
    worst = int(np.abs(group - controls).argmax())
    far = [match_distance(found.traits, fold) for fold in found.folds]
    return (
        f"the largest gap that is left is in {TRAITS[worst]}: {group[worst]:.1f} sd for the group "
        f"and {controls[worst]:.1f} for its controls; in the mean over the folds "
        f"{np.mean([(one > 1).sum() for one in far]):.1f} of {found.group_size} neurons lie more "
        f"than 1 sd from their controls, the farthest {max(one.max() for one in far):.1f}"
    )


def match_sentence(found: Coordination, effects: xr.Dataset) -> str:
    seen = []
    for caliper in CALIPERS:
        folds = with_match(found.traits, found.folds, caliper)
        if folds is None:
            seen.append(f"within {caliper:g} sd too few members are left")
            continue
        test = tried(dimension_test, measured_again(found, folds, effects, "rare"))
        seen.append(f"within {caliper:g} sd it is {test.value:.2f} (p {equals(test.p)})")
    return ", ".join(seen)


def dimension_sentence(one: Compared, kind: str) -> str:
    test = tried(dimension_test, one)
    fewer = "lower" if test.p is not None and test.p < ALPHA else "not reliably lower"
    found = f"{test.value:.2f} times that of its controls on {kind} targets"
    return f"{found}, {fewer} (p {equals(test.p)})"


def equal_sentence(found: Coordination, effects: xr.Dataset) -> str:
    """How near the second controls come in influence, and the test against them."""
    everything = np.ones(effects.sizes["position"], dtype=bool)
    rare, common = (
        influences(effects, found.protocol, everything, stratum)[1] for stratum in (RARE, COMMON)
    )
    group = np.mean([rare[fold.group].mean() for fold in found.folds])
    controls = np.mean([common[fold.equals].mean() for fold in found.folds])
    ratio = found.rare.ratio
    test = tried(dimension_test, Compared(ratio.value, ratio.equals, ratio.equals))
    return (
        f"their mean influence on common targets is {controls:.2g} nats, that of the group on "
        f"rare ones {group:.2g}; its participation ratio is {test.value:.2f} times theirs "
        f"(p {equals(test.p)})"
    )


def squares_sentence(found: Coordination, effects: xr.Dataset) -> str:
    inside, across, controls = square_means(found, effects, "rare")
    return (
        f"the mean square correlation is {inside:.3f} inside the group, {across:.3f} between its "
        f"neurons and those of the control groups, and {controls:.3f} inside a control group"
    )


def shared_sentence(found: Coordination) -> str:
    test = tried(excess_test, found.rare.shared)
    return (
        f"{found.rare.shared.value:.3f} nats a pair on rare targets, "
        f"{found.rare.shared.null.mean():.3f} in its controls (p {equals(test.p)})"
    )


def change_sentence(found: Coordination) -> str:
    change = information_change(found)
    return (
        f"{change.value:+.3f} nats from common to rare targets, {change.null.mean():+.3f} in its "
        f"controls (p {equals(change.p)})"
    )


def weights_sentence(found: Coordination) -> str:
    parts = [
        f"{one.size.value:.3f} for {name}, {one.size.null.mean():.3f} in its controls "
        f"(p {equals(tried(excess_test, one.size).p)})"
        for name, one in found.weights.items()
    ]
    return "; ".join(parts)
