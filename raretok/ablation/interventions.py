"""What replaces an activation that is ablated: its mean, zero, or one seen at another position."""

import numpy as np
from jaxtyping import Int

from raretok.errors import UserError
from raretok.text.rarity import STRATA

MODES = ("mean", "zero", "resample")


def check_name(mode: str) -> None:
    """Raise `UserError` for a mode that is none of MODES."""
    if mode not in MODES:
        raise UserError(f"unknown ablation mode {mode!r}: choose one of {', '.join(MODES)}")


def check_mode(mode: str, stratum: Int[np.ndarray, " position"]) -> None:
    """Raise `UserError` for an unknown mode, and for `resample` with a class of one position."""
    check_name(mode)
    alone = np.flatnonzero(np.bincount(stratum) == 1)
    if mode == "resample" and alone.size:
        raise UserError(
            "resample ablation draws from another position of the same class, but class "
            f"{STRATA[alone[0]]} has 1 position: score more positions"
        )


def donors(
    stratum: Int[np.ndarray, " position"], rng: np.random.Generator
) -> Int[np.ndarray, " position"]:
    """For each position another one of its class, each with equal probability, never itself.

    Under `resample` a position gets the whole vector of activations of its donor. For a neuron
    alone that is the same draw as one of its own; neurons ablated together get activations that do
    occur together, where separate draws would also remove their correlation. Draws are independent,
    so two positions may share a donor. Every class must have two positions.
    """
    donor = np.empty(stratum.size, dtype=np.int64)
    for label in np.unique(stratum):
        members = np.flatnonzero(stratum == label)
        # A step of 1 to n - 1 around the class reaches each of the others and never the start.
        step = rng.integers(1, members.size, size=members.size)
        donor[members] = members[(np.arange(members.size) + step) % members.size]
    return donor
