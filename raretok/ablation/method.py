"""How a run computes its numbers: the fast path by its plan, or every pair exactly."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import FinalHead, Room, clean_loss
from raretok.ablation.precision import choose_plan
from raretok.ablation.sampled import Directions, Estimate, Plan, estimate


@dataclass(frozen=True)
class Part:
    """Some neurons of the layer, and the plan for them."""

    neurons: slice
    plan: Plan
    tokens: Directions  # of these neurons; of one part of many made anew for each block


@dataclass(frozen=True)
class Method:
    """What turns activations into loss changes."""

    head: FinalHead
    effect: str
    parts: tuple[Part, ...]  # of the fast path; none for the exact one
    room: Room = field(default_factory=Room)

    @property
    def described(self) -> dict[str, int]:
        """The plan, as a run records it: the most that any part needs."""
        plans = [part.plan for part in self.parts]
        return {
            "n_head": max((plan.n_head for plan in plans), default=len(self.head.logit_bias)),
            "n_tail": max((plan.n_tail for plan in plans), default=0),
            "n_probe": max((plan.n_probe for plan in plans), default=0),
            "second_order": int(any(plan.second_order for plan in plans)),
        }


def make_method(
    head: FinalHead,
    resid: Float[Tensor, "pilot d_model"],
    post: Float[Tensor, "pilot d_mlp"],
    target: Int[Tensor, " pilot"],
    new: Float[Tensor, "*pilot d_mlp"],
    *,
    tolerance: float,
    n_positions: int,
    effect: str = "total",
    n_parts: int = 1,
) -> Method:
    """The method that keeps `tolerance` (nats, of a neuron's mean); 0 is the exact one.

    The pilot positions of a run of `n_positions` are given as `apply_method` takes them. In
    `n_parts` the neurons take turns, and need that much less memory.
    """
    if tolerance == 0:
        return Method(head, effect, ())
    edges = np.linspace(0, len(head.W_out), n_parts + 1).astype(int).tolist()
    change, parts = new - post, []
    asked = {"tolerance": tolerance, "n_positions": n_positions, "effect": effect}
    asked["output"] = head.mlp_output(post)
    for start, stop in pairwise(edges):
        cols = slice(start, stop)
        tokens = Directions(head.of(cols))
        plan = choose_plan(tokens, resid, change[:, cols], target, **asked)
        parts.append(Part(cols, plan, tokens if n_parts == 1 else Directions(tokens.head)))
    return Method(head, effect, tuple(parts))


def apply_method(
    method: Method,
    resid: Float[Tensor, "pos d_model"],
    post: Float[Tensor, "pos d_mlp"],
    target: Int[Tensor, " pos"],
    new: Float[Tensor, "*pos d_mlp"],
    offset: Float[Tensor, " pos"],
) -> Estimate:
    """Loss change of each neuron whose activation becomes `new`, and loss, in nats.

    `offset` in [0, 1) is the chance in the sampling, one number a position.
    """
    effect, new = method.effect, new.expand_as(post)
    if not method.parts:
        delta = delta_loss(method.head, resid, post, target, new, effect=effect)
        nothing = torch.zeros_like(post[0], dtype=torch.float64)
        return Estimate(delta, clean_loss(method.head, resid, target), nothing, 0, delta.numel())
    found = []
    more = {"output": method.head.mlp_output(post), "effect": effect, "room": method.room}
    for part in method.parts:
        tokens = part.tokens if len(method.parts) == 1 else Directions(part.tokens.head)
        rows = (resid, post[:, part.neurons], target, new[:, part.neurons], offset)
        found.append(estimate(tokens, part.plan, *rows, **more))
    return Estimate(
        torch.cat([one.delta_loss for one in found], dim=1),
        found[0].loss,
        torch.cat([one.variance for one in found]),
        sum(one.sampled_again for one in found),
        sum(one.summed_in_full for one in found),
    )
