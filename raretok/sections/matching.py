"""Which neurons of a group have a like among the neurons they are compared with."""

import numpy as np
from jaxtyping import Float

from raretok.stats.groups import SMALLEST, Fold

CALIPERS = (2.0, 1.5, 1.0)  # sd over the layer; a member farther from its controls has no match


def match_distance(
    traits: Float[np.ndarray, "neuron trait"], fold: Fold
) -> Float[np.ndarray, " member"]:
    """Mean distance of each member from the control neurons drawn for it, sd over the layer."""
    apart = traits[fold.controls] - traits[fold.group]
    return np.linalg.norm(apart, axis=2).mean(axis=0)


def with_match(
    traits: Float[np.ndarray, "neuron trait"], folds: list[Fold], caliper: float
) -> list[Fold] | None:
    """The folds without the members (and their controls) that are farther than the caliper.

    Control neurons stand in the order of the members they were drawn for. None where a fold keeps
    too few members for a group.
    """
    kept = [match_distance(traits, fold) <= caliper for fold in folds]
    if min(near.sum() for near in kept) < SMALLEST:
        return None
    return [
        Fold(fold.group[near], fold.controls[:, near], fold.equals[:, near], fold.measured)
        for fold, near in zip(folds, kept, strict=True)
    ]
