r"""How a run computes its numbers: the fast path by its plan, or every pair exactly.

The plan says how many tokens to sum, and is chosen from the error that the mean effect of a neuron
may have. The mean over T positions of errors of standard deviation $\sigma$ has
$\sigma / \sqrt T$. So if no pair of position and neuron is off by more than $\tau \sqrt T / 2$ (one
standard error), no mean effect of a neuron is off by more than $\tau$ (two of them; and nearly all
pairs are far below). A pilot measures at a few positions what each number of head and sampled
tokens would leave, and takes those that cost least, with what it takes to mend the pairs that are
off by more.
"""

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import FinalHead, Room, branch_of, clean_loss, clean_pass, short_type
from raretok.ablation.sampled import (
    AGAIN,
    PROBE,
    PROBE_AGAIN,
    Estimate,
    Plan,
    Push,
    estimate,
    excess,
    push_of,
)
from raretok.ablation.tokens import Picked, doubt, rank_tokens
from raretok.errors import UserError

TOLERANCE = 5e-7  # nats, of the mean effect of a neuron
FLOOR = 1e-8  # nats; below, float32 rounding is what is left
SIGMAS = 2.0
SIZES = (8, 16, 32, 64, 128, 256)  # that the numbers of head and sampled tokens are chosen from
PILOT = 32  # positions
# Costs of a token, in picked tokens, measured on two cores: of a pair sampled again, from an M that
# a cache may hold or not; of a pair summed in full, for its terms and for each dimension of the
# model that its direction is made of; and of the product for the second order.
CACHED = 2**24  # elements of M
SCATTERED, UNCACHED = 8.0, 40.0
FULL_SUM, DIMENSION = 3.0, 1 / 64
PRODUCT = {torch.bfloat16: 1 / 128, torch.float32: 1 / 32}


def check_tolerance(tolerance: float) -> None:
    """Raise `UserError` for a tolerance that is neither 0 (exact) nor within reach."""
    if not (tolerance == 0 or FLOOR <= tolerance < 1):
        raise UserError(
            f"a tolerance of {tolerance:g} nats cannot be kept: float32 gives {FLOOR:g} for the "
            "mean effect of a neuron, take that or more, or 0 for the whole vocabulary"
        )


def pair_error(tolerance: float, n_positions: int) -> float:
    """Standard error, in nats, that one pair of position and neuron may have."""
    return tolerance * math.sqrt(n_positions) / SIGMAS


def pilot_positions(n_positions: int) -> Int[Tensor, " pilot"]:
    """Positions that the numbers of tokens are chosen on, spread over the run."""
    return torch.linspace(0, n_positions - 1, min(PILOT, n_positions)).long()


@dataclass(frozen=True)
class Part:
    """Some neurons of the layer, and the plan for them."""

    neurons: slice
    plan: Plan
    head: FinalHead  # of these neurons


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
        some = head.of(cols)
        plan = choose_plan(some, resid, change[:, cols], target, **asked)
        parts.append(Part(cols, plan, some if n_parts == 1 else replace(some)))
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
        # The directions of all tokens, too many for several parts, are made anew for each block.
        some = part.head if len(method.parts) == 1 else replace(part.head)
        rows = (resid, post[:, part.neurons], target, new[:, part.neurons], offset)
        found.append(estimate(some, part.plan, *rows, **more))
    return Estimate(
        torch.cat([one.delta_loss for one in found], dim=1),
        found[0].loss,
        torch.cat([one.variance for one in found]),
        sum(one.sampled_again for one in found),
        sum(one.summed_in_full for one in found),
    )


def choose_plan(
    head: FinalHead,
    resid: Float[Tensor, "pos d_model"],
    change: Float[Tensor, "pos d_mlp"],
    target: Int[Tensor, " pos"],
    *,
    output: Float[Tensor, "pos d_model"] | None = None,
    tolerance: float,
    n_positions: int,
    effect: str = "total",
) -> Plan:
    """The cheapest plan that keeps `tolerance`, in nats, over a run of `n_positions`.

    `change` is what ablation adds to the activations at the pilot positions.
    """
    limit, d_vocab = pair_error(tolerance, n_positions), head.G.shape[1]
    sizes = [n for n in SIZES if 4 * n <= d_vocab] or [1]
    clean = clean_pass(head, resid, target, double=False)
    branch = branch_of(head, clean, output)
    push = push_of(head, clean, change, target, effect, branch)
    ranked = rank_tokens(clean, head.length_sq, sizes[-1], branch=branch)
    picked = ranked.pick(sizes[-1], torch.full_like(clean.loss, 0.5))
    in_full = d_vocab * (FULL_SUM + DIMENSION * len(head.G))
    product = d_vocab * PRODUCT[short_type(head.G.device)]
    again = (AGAIN + PROBE_AGAIN) * (SCATTERED if head.M.numel() <= CACHED else UNCACHED)
    costs = {}
    for second_order in (False, True) if head.plain else (False,):
        one_draw = variance_of_a_draw(head, push, picked, sizes, second_order) / limit**2
        for n_head, of_head in zip(sizes, one_draw, strict=True):
            fixed = n_head + second_order * product
            fixed += in_full * share(of_head > AGAIN)
            for n_tail in sizes:
                n_probe = min(n_tail, PROBE)
                poor = share(of_head * doubt(n_probe) > n_tail)
                costs[n_head, n_tail, second_order] = fixed + n_tail + n_probe + again * poor
    return Plan(*min(costs, key=costs.get), pair_error=limit)


def share(marked: Bool[Tensor, "pos neuron"]) -> float:
    return float(marked.double().mean())


def variance_of_a_draw(
    head: FinalHead, push: Push, picked: Picked, n_heads: list[int], second_order: bool
) -> Float[Tensor, "head pos neuron"]:
    """Variance of one weighted draw from the tail that each number of head tokens leaves, nats^2.

    What is picked stands for the whole vocabulary: head tokens beyond `n_heads`, likeliest first,
    are part of the tail.
    """
    in_tail = torch.arange(picked.token.shape[1]) >= torch.tensor(n_heads)[:, None]
    picked, in_tail = replace(picked, n_head=0), in_tail.to(picked.token.device)
    found = []
    for pos in (slice(t, t + 1) for t in range(len(picked.token))):
        here = picked.at(pos)
        f = excess(head.M[here.token], push.at(pos), here, second_order)[0]
        weight, score = here.weight * in_tail, head.length_sq[here.token]
        total = (weight * score).sum(dim=1, keepdim=True)
        found.append(total * ((weight / score) @ f.square()) - (weight @ f).square())
    return torch.stack(found, dim=1).clamp_min_(0)
