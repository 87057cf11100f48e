r"""How many tokens to sum: chosen from the error that the mean effect of a neuron may have.

The mean over T positions of errors of standard deviation $\sigma$ has $\sigma / \sqrt T$. So if no
pair of position and neuron is off by more than $\tau \sqrt T / 2$ (one standard error), no mean
effect of a neuron is off by more than $\tau$ (two of them; and nearly all pairs are far below). A
pilot measures at a few positions what each number of head and sampled tokens would leave, and takes
those that cost least, full sums included.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.head import FinalHead, clean_pass
from raretok.ablation.sampled import (
    Directions,
    Picked,
    Plan,
    Push,
    excess,
    pick_tokens,
    push_of,
    short_type,
)
from raretok.errors import UserError

TOLERANCE = 5e-7  # nats, of the mean effect of a neuron
FLOOR = 1e-8  # nats; below, float32 rounding is what is left
SIGMAS = 2.0
SIZES = (8, 16, 32, 64, 128, 256)  # that the numbers of head and sampled tokens are chosen from
PILOT = 32  # positions
# Cost of a token, in picked tokens: in a full sum (strided reads, one pair at a time), and in the
# product that gives the second order (measured on two cores).
FULL_SUM, UNCACHED = 8.0, 16.0
CACHED = 2**24  # elements of M that a cache may hold
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


def choose_plan(
    head: FinalHead,
    tokens: Directions,
    resid: Float[Tensor, "pos d_model"],
    change: Float[Tensor, "pos d_mlp"],
    target: Int[Tensor, " pos"],
    *,
    tolerance: float,
    n_positions: int,
    effect: str = "total",
) -> Plan:
    """The cheapest plan that keeps `tolerance`, in nats, over a run of `n_positions`.

    `change` is what ablation adds to the activations at the pilot positions.
    """
    d_vocab, limit = len(tokens.M), pair_error(tolerance, n_positions)
    sizes = [n for n in SIZES if 4 * n <= d_vocab] or [1]
    clean = clean_pass(head, resid, target, double=False)
    push = push_of(head, clean, change, target, effect)
    widest = Plan(sizes[-1], sizes[-1], False, math.inf)
    picked = pick_tokens(clean, tokens, widest, torch.full_like(clean.loss, 0.5))
    costs = {}
    for second_order in (False, True):
        one_draw = variance_of_a_draw(push, tokens, picked, sizes, second_order)
        for n_head, of_head in zip(sizes, one_draw, strict=True):
            for n_tail in sizes:
                poor = float((of_head > n_tail * limit**2).double().mean())
                costs[n_head, n_tail, second_order] = (
                    n_head
                    + n_tail
                    + d_vocab * (full_sum_cost(tokens) * poor + second_order * product_cost(head))
                )
    return Plan(*min(costs, key=costs.get), pair_error=limit)


def full_sum_cost(tokens: Directions) -> float:
    """Cost of a token of a full sum, in picked tokens: a cache miss each where M is large."""
    return FULL_SUM if tokens.M.numel() <= CACHED else UNCACHED


def product_cost(head: FinalHead) -> float:
    """Cost of the second order of a token, in picked tokens."""
    return PRODUCT[short_type(head.G.device)]


def variance_of_a_draw(
    push: Push, tokens: Directions, picked: Picked, n_heads: list[int], second_order: bool
) -> Float[Tensor, "head pos neuron"]:
    """Variance of one weighted draw from the tail that each number of head tokens leaves, nats^2.

    What is picked stands for the whole vocabulary: head tokens beyond `n_heads`, likeliest first,
    are part of the tail.
    """
    device = picked.token.device
    in_tail = torch.arange(picked.token.shape[1]) >= torch.tensor(n_heads)[:, None]
    all_tail = Plan(0, picked.token.shape[1], second_order, math.inf)
    found = []
    for pos in range(len(picked.token)):
        f = excess(push, tokens, picked, slice(pos, pos + 1), all_tail)[0]
        weight = picked.weight[pos] * in_tail.to(device)
        score = tokens.length_sq[picked.token[pos]]
        total = (weight * score).sum(dim=1, keepdim=True)
        found.append(total * ((weight / score) @ f.square()) - (weight @ f).square())
    return torch.stack(found, dim=1).clamp_min_(0)
