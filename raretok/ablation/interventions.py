"""What replaces an activation that is ablated: its mean, zero, or one seen at another position."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.errors import UserError
from raretok.text.rarity import STRATA

MODES = ("mean", "zero", "resample")


def check_name(mode: str) -> None:
    """Raise `UserError` for a mode that is none of MODES."""
    if mode not in MODES:
        raise UserError(f"unknown ablation mode {mode!r}: choose one of {', '.join(MODES)}")


def check_mode(
    mode: str, stratum: Int[np.ndarray, " position"], rng: np.random.Generator | None
) -> None:
    """Raise `UserError` where `replacement` could not serve; it needs no activation to know."""
    check_name(mode)
    if mode != "resample":
        return
    if rng is None:
        raise UserError("resample ablation draws at random, got no rng: give a numpy Generator")
    alone = np.flatnonzero(np.bincount(stratum) == 1)
    if alone.size:
        raise UserError(
            "resample ablation draws from another position of the same class, but class "
            f"{STRATA[alone[0]]} has 1 position: score more positions"
        )


def replacement(
    mode: str,
    post: Float[Tensor, "position d_mlp"],
    mean_post: Float[Tensor, " d_mlp"],
    stratum: Int[np.ndarray, " position"],
    rng: np.random.Generator | None = None,
) -> Float[Tensor, "*position d_mlp"]:
    """Activations put in place of `post`: one a neuron, or under `resample` one a position too.

    `resample` takes the whole vector of one other position of the same class. For a neuron alone
    that is the same draw as one of its own; neurons ablated together get activations that do occur
    together, where separate draws would also remove their correlation. `rng` serves it alone.
    Raises `UserError` for an unknown mode, and for `resample` without `rng` or with a class of one.
    """
    check_mode(mode, stratum, rng)
    if mode == "mean":
        return mean_post
    if mode == "zero":
        return torch.zeros_like(mean_post)
    return post[torch.from_numpy(donors(stratum, rng)).to(post.device)]


def donors(
    stratum: Int[np.ndarray, " position"], rng: np.random.Generator
) -> Int[np.ndarray, " position"]:
    """For each position another one of its class, each with equal probability, never itself.

    Draws are independent, so two positions may share a donor. Every class must have two positions.
    """
    donor = np.empty(stratum.size, dtype=np.int64)
    for label in np.unique(stratum):
        members = np.flatnonzero(stratum == label)
        # A step of 1 to n - 1 around the class reaches each of the others and never the start.
        step = rng.integers(1, members.size, size=members.size)
        donor[members] = members[(np.arange(members.size) + step) % members.size]
    return donor
