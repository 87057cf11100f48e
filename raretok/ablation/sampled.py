r"""Loss change of ablating each neuron of the last MLP alone: the fast path, with a known error.

With the mean change of the logits, $\bar u_i = \sum_v p_v u_{iv}$, taken out of every $u$, the loss
changes by (raretok/ablation/closed_form.py has the symbols)

$$\Delta_i = \ln\Big(1 + \sum_v p_v f(u_{iv} - \bar u_i)\Big) + \bar u_i - u_{i,target}, \qquad
f(x) = e^x - 1 - x .$$

$\bar u_i$ is exact through two products of width d_model, so the first order in the push is exact
too. The sum over f is of second order, and taken over the tokens of raretok/ablation/tokens.py.
(The logarithm bends that by half the variance, far below the error itself.) Where it pays, the
second order of the tail, $\sum_v p_v u_{iv}^2 / 2$, is summed exactly by a product of width
d_vocab, and only what is left of f is sampled. The spread of the sampled terms gives each pair of
position and neuron a standard error. Pairs whose error may exceed `Plan.pair_error` are estimated
anew from AGAIN sampled tokens, and if that is not enough, summed over the whole vocabulary. Both
is decided by the probes of raretok/ablation/tokens.py, which keeps the estimate unbiased.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from raretok.ablation.closed_form import Coefficients, shift_of_logits
from raretok.ablation.head import (
    Branch,
    CleanPass,
    FinalHead,
    Room,
    branch_of,
    capped,
    clean_pass,
    dot,
    position_blocks,
)
from raretok.ablation.tokens import (
    Picked,
    Ranked,
    digits,
    doubt,
    rank_tokens,
    weighted_sum,
)

# Elements of [position, token, neuron] at a time: on a CPU they stay in the shared cache.
TILE = {"cpu": 2**20, "cuda": 2**26}
PROBE = 16  # tokens that tell whether the sampled ones are enough; no more than these
AGAIN, PROBE_AGAIN = 192, 64  # tokens for a pair of which fewer say too little
SEED = 0  # of the sampling
OVERFLOW = 80.0  # nats; float32 holds exp(88)


@dataclass(frozen=True)
class Plan:
    """How many tokens stand for the vocabulary, and when they are not enough."""

    n_head: int  # tokens summed as they are
    n_tail: int  # tokens sampled from the rest
    second_order: bool  # of the rest: exact, so that less is left to the sample
    pair_error: float  # nats; a pair with a larger standard error takes more tokens

    @property
    def n_probe(self) -> int:
        return min(self.n_tail, PROBE)


def sampling_offsets(n_positions: int) -> Float[Tensor, " position"]:
    """What is random in the sampling of tokens: the same for a position whatever its block."""
    return torch.from_numpy(np.random.default_rng(SEED).random(n_positions))


@dataclass(frozen=True)
class Estimate:
    """What the fast path finds at some positions, in nats."""

    delta_loss: Float[Tensor, "pos d_mlp"]
    loss: Float[Tensor, " pos"]
    variance: Float[Tensor, " d_mlp"]  # of delta_loss, summed over the positions
    sampled_again: int  # pairs
    summed_in_full: int  # pairs


def estimate(
    head: FinalHead,
    plan: Plan,
    resid: Float[Tensor, "pos d_model"],
    post: Float[Tensor, "pos d_mlp"],
    target: Int[Tensor, " pos"],
    replacement: Float[Tensor, "*pos d_mlp"],
    offset: Float[Tensor, " pos"],
    *,
    output: Float[Tensor, "pos d_model"] | None = None,
    effect: str = "total",
    room: Room | None = None,
) -> Estimate:
    """Loss change of putting `replacement` in place of one neuron's activation, and loss.

    `offset` in [0, 1) is what is random in the sampling, one number a position; `room` is memory
    that calls may share; `output` is `head.mlp_output`. The other arguments are those of
    `closed_form.delta_loss`. Raises `UserError` for an unknown effect.
    """
    change = replacement - post
    delta, loss = torch.empty_like(change), torch.empty_like(change[:, 0])
    variance, again, in_full = torch.zeros_like(change[0], dtype=torch.float64), 0, 0
    room = room or Room()
    for rows in position_blocks(head, len(resid)):
        # The bfloat16 products of the second order have no digits to spare for the mean of z.
        options = {"double": False, "centre": plan.second_order, "room": room}
        clean = clean_pass(head, resid[rows], target[rows], **options)
        branch = branch_of(head, clean, None if output is None else output[rows])
        push = push_of(head, clean, change[rows], target[rows], effect, branch)
        ranked = rank_tokens(clean, head.length_sq, plan.n_head, branch=branch, room=room)
        bend = curvature(head, push, ranked, plan, offset[rows])
        again += bend.sampled_again
        if bend.poor.any():
            _sum_in_full(head, push, clean, branch, bend.poor, out=bend.total)
            in_full += int(bend.poor.sum())
        variance += bend.variance.masked_fill_(bend.poor, 0).sum(dim=0, dtype=torch.float64)
        delta[rows] = bend.total.log1p_() + push.lead
        loss[rows] = clean.loss
    return Estimate(delta, loss, variance, again, in_full)


@dataclass(frozen=True)
class Push(Coefficients):
    """The changes of the logits less their mean, u = a z + b M - mean.

    Behind a sandwich norm u has a third term, e times the branch's z. Under a soft cap the mean is
    that of the first order.
    """

    mean: Float[Tensor, "pos neuron"]
    lead: Float[Tensor, "pos neuron"]  # mean less the change of the target's logit
    softcap: float | None


def push_of(
    head: FinalHead,
    clean: CleanPass,
    change: Float[Tensor, "pos neuron"],
    target: Int[Tensor, " pos"],
    effect: str,
    branch: Branch | None = None,
) -> Push:
    by = shift_of_logits(head, clean, branch, change, effect)
    there, G_target = target[:, None], head.G.T[target]
    bent = None if clean.bent is None else clean.bent.gather(1, there)
    slope = 1 if bent is None else 1 - bent.square()
    mean_G, z_target = clean.pull @ head.G.T, slope * clean.z.gather(1, there)
    # The target's direction relative to the mean one: two large numbers would cancel.
    lead = by.b * ((mean_G - slope * G_target) @ head.W_out.T) - by.a * z_target
    mean = by.b * (mean_G @ head.W_out.T)
    if branch:
        lead -= by.e * slope * branch.z.gather(1, there)
    if bent is None and not clean.centred:
        # The mean of z is that of G along the normed residual: no pass over the vocabulary.
        along = by.a * dot(clean.resid * clean.var.rsqrt(), mean_G)[:, None]
        mean, lead = mean + along, lead + along
    if bent is not None:
        u = by.a * clean.z.gather(1, there) + by.b * (G_target @ head.W_out.T)
        along = by.a * dot(clean.pull, clean.z)[:, None]
        if branch:
            u += by.e * branch.z.gather(1, there)
            along += by.e * dot(clean.pull, branch.z)[:, None]
        mean, lead = mean + along, lead + along + slope * u - capped(u, bent, head.softcap)
    return Push(by.a, by.b, by.e, mean, lead, head.softcap)


@dataclass(frozen=True)
class Bend:
    r"""Estimates of $\sum_v p_v f(u_v)$."""

    total: Float[Tensor, "pos neuron"]
    variance: Float[Tensor, "pos neuron"]
    probed: Float[Tensor, "pos neuron"]  # the same variance, by the probe
    poor: Bool[Tensor, "pos neuron"]  # pairs of which the sampled tokens say too little
    sampled_again: int = 0


def curvature(
    head: FinalHead,
    push: Push,
    ranked: Ranked,
    plan: Plan,
    offset: Float[Tensor, " pos"],
) -> Bend:
    """Estimate the sums from few tokens, or for single pairs from more."""
    few = ranked.pick(plan.n_tail, offset, plan.n_probe, digits(offset, 1))
    found = from_picked(push, head.M, few, plan)
    limit, poor, again = plan.pair_error**2, found.poor, 0
    if poor.any() and len(head.M) > AGAIN:
        more = ranked.pick(AGAIN, digits(offset, 2), PROBE_AGAIN, digits(offset, 3))
        _pairs_from_picked(push, head.M, more, plan, poor, out=found)
        again = int(poor.sum())
        poor = poor & ~(found.probed <= limit)
    if plan.second_order:
        found.total.add_(second_order_of_tail(head, push, ranked), alpha=0.5)
    # What overflows is no number.
    return replace(found, poor=poor | ~found.total.isfinite(), sampled_again=again)


def from_picked(push: Push, M: Float[Tensor, "d_vocab neuron"], picked: Picked, plan: Plan) -> Bend:
    """The sums over picked tokens and their variances; a known second order left out."""
    total, variance, probed = (torch.empty_like(push.a) for _ in range(3))
    (n_pos, n_picked), n_neurons = picked.token.shape, M.shape[1]
    size = max(1, TILE[M.device.type] // (n_picked * n_neurons))
    for rows in (slice(start, start + size) for start in range(0, n_pos, size)):
        here, moved = picked.at(rows), push.at(rows)
        u = M.index_select(0, here.token.flatten()).view(*here.token.shape, n_neurons)
        f = excess(u, moved, here, plan.second_order)
        total[rows], variance[rows], probed[rows] = weighted_sum(f, here)
    poor = ~(doubt(picked.n_probe) * probed <= plan.pair_error**2)
    return Bend(total, variance, probed, poor)


def _pairs_from_picked(
    push: Push,
    M: Float[Tensor, "d_vocab neuron"],
    picked: Picked,
    plan: Plan,
    chosen: Bool[Tensor, "pos neuron"],
    *,
    out: Bend,
) -> None:
    """The same of single pairs: written into `out`."""
    pos, neuron = chosen.nonzero(as_tuple=True)
    size = max(1, TILE[M.device.type] // picked.token.shape[1])
    for t, i in zip(pos.split(size), neuron.split(size), strict=True):
        here = picked.at(t)
        u = M[here.token, i[:, None]][..., None]
        f = excess(u, push.at((t, i, None)), here, plan.second_order)
        found = weighted_sum(f, here)
        for into, values in zip((out.total, out.variance, out.probed), found, strict=True):
            into[t, i] = values.squeeze(1)


def excess(
    u: Float[Tensor, "row picked neuron"], push: Push, picked: Picked, second_order: bool
) -> Float[Tensor, "row picked neuron"]:
    """f of the changes of the logits, given `u` = M, which is overwritten.

    Of sampled tokens less the second order, where `second_order` says that it is known.
    """
    # In place, pass by pass: the tile stays in the cache, and no product of width two is as fast.
    u.mul_(push.b[:, None]).addcmul_(picked.z[..., None], push.a[:, None])
    if push.e is not None:
        u.addcmul_(picked.branch_z[..., None], push.e[:, None])
    if push.softcap is not None:
        return excess_of_capped(u, push.mean[:, None], picked.bent[..., None], push.softcap)
    u.sub_(push.mean[:, None])
    f = u.expm1().sub_(u)
    if second_order:
        tail = u[:, picked.n_head :]
        f[:, picked.n_head :].addcmul_(tail, tail, value=-0.5)
    return f


def excess_of_capped(
    u: Float[Tensor, "*some"],
    mean: Float[Tensor, "*of"],
    bent: Float[Tensor, "*there"],
    softcap: float,
) -> Float[Tensor, "*some"]:
    """The exponential of what a soft cap leaves of u, less its first order in u."""
    linear = (1 - bent.square()) * u - mean
    left = capped(u, bent, softcap) - mean
    return left.expm1() - left + (left - linear)


def second_order_of_tail(
    head: FinalHead, push: Push, ranked: Ranked
) -> Float[Tensor, "pos neuron"]:
    r"""$\sum_v p_v u_v^2$ without the head tokens, by moments of z and M."""
    clean, W_out = ranked.clean, head.W_out
    p = clean.p.scatter(1, ranked.head, 0.0)
    pz = p * clean.z
    z, z_sq = pz.sum(dim=1, keepdim=True), dot(pz, clean.z)[:, None]
    short = p.to(head.short_G.dtype)
    M = (short @ head.short_G.T).to(p.dtype) @ W_out.T
    zM = (pz.to(short.dtype) @ head.short_G.T).to(p.dtype) @ W_out.T
    M_sq = (short @ head.short_M_sq).to(p.dtype)
    a, b, mean, mass = push.a, push.b, push.mean, p.sum(dim=1, keepdim=True)
    return (
        a * (a * z_sq + 2 * b * zM - 2 * mean * z) + b * (b * M_sq - 2 * mean * M) + mean**2 * mass
    )


def _sum_in_full(
    head: FinalHead,
    push: Push,
    clean: CleanPass,
    branch: Branch | None,
    chosen: Bool[Tensor, "pos neuron"],
    *,
    out: Float[Tensor, "pos neuron"],
) -> None:
    r"""Write $\sum_v p_v f(u_v)$ over the whole vocabulary into `out`, for the chosen pairs."""
    neuron, pos = chosen.T.nonzero(as_tuple=True)  # those of a neuron together
    size = max(1, TILE[out.device.type] // clean.p.shape[1])
    for i, t in zip(neuron.split(size), pos.split(size), strict=True):
        distinct, row = i.unique(return_inverse=True)
        # Made anew: reading columns of M would miss the cache at every token.
        u = (head.W_out[distinct] @ head.G)[row]
        u.mul_(push.b[t, i, None]).addcmul_(clean.z[t], push.a[t, i, None])
        if branch:
            u.addcmul_(branch.z[t], push.e[t, i, None])
        if u.max() > OVERFLOW:
            u = u.double()
        mean = push.mean[t, i, None]
        if clean.bent is None:
            f = u.sub_(mean).expm1().sub_(u)
        else:
            f = excess_of_capped(u, mean, clean.bent[t], push.softcap)
        out[t, i] = dot(f, clean.p[t].to(f)).to(out)
