r"""Loss change of ablating each neuron of the last MLP alone: the fast path, with a known error.

With the mean change of the logits, $\bar u_i = \sum_v p_v u_{iv}$, taken out of every $u$, the loss
changes by (raretok/ablation/closed_form.py has the symbols)

$$\Delta_i = \ln\Big(1 + \sum_v p_v f(u_{iv} - \bar u_i)\Big) + \bar u_i - u_{i,target}, \qquad
f(x) = e^x - 1 - x .$$

$\bar u_i$ is exact through two products of width d_model, so the first order in the push is exact
too. The sum over f is of second order, and concentrated: the `n_head` tokens with the largest
$p_v |G_v|^2$ enter as they are, `n_tail` more are sampled from the rest with probability in
proportion to it, systematically, and weighted so that the sum is unbiased. (The logarithm bends
that by half the variance, far below the error itself.) Where it pays, the second order of the rest,
$\sum_v p_v u_{iv}^2 / 2$, is summed exactly by a product of width d_vocab, and only what is left of
f is sampled. The spread of the sampled terms gives each pair of position and neuron a standard
error; pairs whose error exceeds `Plan.pair_error` are summed over the whole vocabulary.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from raretok.ablation.closed_form import shift_of_logits
from raretok.ablation.head import CleanPass, FinalHead, check_effect, clean_pass, position_blocks

CHUNK = 64  # tokens: sampling first finds a chunk, then a token in it
# Elements of [position, token, neuron] at a time: on a CPU they stay in the shared cache.
TILE = {"cpu": 2**20, "cuda": 2**26}
FULL_TILE = {"cpu": 2**20, "cuda": 2**26}


@dataclass(frozen=True)
class Plan:
    """How many tokens stand for the vocabulary, and when they are not enough."""

    n_head: int  # tokens summed as they are
    n_tail: int  # tokens sampled from the rest
    second_order: bool  # of the rest: exact, so that less is left to the sample
    pair_error: float  # nats; a pair with a larger standard error is summed in full


@dataclass(frozen=True)
class Directions:
    """What each token's logit moves by, for each neuron: d_vocab x d_mlp numbers of the model."""

    W_out: Float[Tensor, "d_mlp d_model"]
    G: Float[Tensor, "d_model d_vocab"]
    M: Float[Tensor, "d_vocab d_mlp"]
    length_sq: Float[Tensor, " d_vocab"]  # |G_v|^2

    @cached_property
    def short_G(self) -> Float[Tensor, "d_model d_vocab"]:
        return self.G.to(short_type(self.G.device))

    @cached_property
    def short_M_sq(self) -> Float[Tensor, "d_vocab d_mlp"]:
        return self.M.square().to(short_type(self.G.device))


def directions(head: FinalHead) -> Directions:
    """Computed once for a model."""
    return Directions(head.W_out, head.G, head.G.T @ head.W_out.T, head.G.square().sum(dim=0))


def short_type(device: torch.device) -> torch.dtype:
    """Type of the products for the second order: three digits are enough for them.

    A processor without bfloat16 instructions would be slower with it than with float32.
    """
    fast = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


@dataclass(frozen=True)
class Estimate:
    """What the fast path finds at some positions, in nats."""

    delta_loss: Float[Tensor, "pos d_mlp"]
    loss: Float[Tensor, " pos"]
    variance: Float[Tensor, " d_mlp"]  # of delta_loss, summed over the positions
    summed_in_full: int  # pairs


def estimate(
    head: FinalHead,
    tokens: Directions,
    plan: Plan,
    resid: Float[Tensor, "pos d_model"],
    post: Float[Tensor, "pos d_mlp"],
    target: Int[Tensor, " pos"],
    replacement: Float[Tensor, "*pos d_mlp"],
    offset: Float[Tensor, " pos"],
    *,
    effect: str = "total",
) -> Estimate:
    """Loss change of putting `replacement` in place of one neuron's activation, and loss.

    `offset` in [0, 1) is what is random in the sampling, one number a position. The other
    arguments are those of `closed_form.delta_loss`. Raises `UserError` for an unknown effect.
    """
    check_effect(effect)
    change = replacement - post
    delta, loss = torch.empty_like(change), torch.empty_like(change[:, 0])
    variance, in_full = torch.zeros_like(change[0], dtype=torch.float64), 0
    for rows in position_blocks(head, len(resid)):
        clean = clean_pass(head, resid[rows], target[rows], double=False)
        push = push_of(head, clean, change[rows], target[rows], effect)
        picked = pick_tokens(clean, tokens, plan, offset[rows])
        curvature, spread = _curvature(push, clean, tokens, picked, plan)
        poor = spread > plan.pair_error**2
        if poor.any():
            _sum_in_full(push, clean, tokens, poor, out=curvature)
            in_full += int(poor.sum())
        variance += spread.masked_fill_(poor, 0).sum(dim=0, dtype=torch.float64)
        delta[rows] = curvature.log1p_() + push.lead
        loss[rows] = clean.loss
    return Estimate(delta, loss, variance, in_full)


@dataclass(frozen=True)
class Push:
    """The changes of the logits less their mean, u = a z + b M - mean, z being centred."""

    a: Float[Tensor, "pos neuron"]
    b: Float[Tensor, "pos neuron"]
    mean: Float[Tensor, "pos neuron"]
    lead: Float[Tensor, "pos neuron"]  # mean less the change of the target's logit


def push_of(
    head: FinalHead,
    clean: CleanPass,
    change: Float[Tensor, "pos neuron"],
    target: Int[Tensor, " pos"],
    effect: str,
) -> Push:
    a, b = shift_of_logits(head, clean, change, head.W_out, head.W_out_sq, effect)
    mean_G = clean.p @ head.G.T
    # The target's direction relative to the mean one: two large numbers would cancel.
    toward_mean = (mean_G - head.G.T[target]) @ head.W_out.T
    at_target = clean.z.gather(1, target[:, None])
    return Push(a, b, b * (mean_G @ head.W_out.T), b * toward_mean - a * at_target)


@dataclass(frozen=True)
class Picked:
    """Tokens that stand for the vocabulary: head ones first, then sampled ones."""

    token: Int[Tensor, "pos picked"]
    weight: Float[Tensor, "pos picked"]
    z: Float[Tensor, "pos picked"]


def pick_tokens(
    clean: CleanPass, tokens: Directions, plan: Plan, offset: Float[Tensor, " pos"]
) -> Picked:
    """The head, and a systematic sample of the tail: weighted, their sum is unbiased."""
    n_pos, d_vocab = clean.p.shape
    score = clean.p.new_empty(n_pos, d_vocab + -d_vocab % CHUNK)
    torch.mul(clean.p, tokens.length_sq, out=score[:, :d_vocab])
    score[:, d_vocab:] = 0
    top = score.topk(plan.n_head, dim=1).indices
    score.scatter_(1, top, 0.0)
    sampled, total = systematic(score, plan.n_tail, offset)
    tail_weight = total / (plan.n_tail * tokens.length_sq[sampled]).clamp_min(1e-30)
    token = torch.cat([top, sampled], dim=1)
    weight = torch.cat([clean.p.gather(1, top), tail_weight], dim=1)
    return Picked(token, weight, clean.z.gather(1, token))


def systematic(
    score: Float[Tensor, "pos entry"], n: int, offset: Float[Tensor, " pos"]
) -> tuple[Int[Tensor, "pos {n}"], Float[Tensor, "pos 1"]]:
    """`n` entries of each row at equal steps of its cumulated score, and the score in total.

    An entry is drawn n * score / total times on average. Rows are cumulated in two stages, which
    is many times faster than one long running sum.
    """
    chunks = score.unflatten(1, (-1, CHUNK))
    of_chunk = chunks.sum(dim=2).double()
    until = of_chunk.cumsum(dim=1)
    total = until[:, -1:]
    steps = torch.arange(n, device=score.device, dtype=torch.float64)
    point = (steps + offset[:, None]) / n * total
    chunk = torch.searchsorted(until, point, right=True).clamp_max(until.shape[1] - 1)
    before = until.gather(1, chunk) - of_chunk.gather(1, chunk)
    rows = torch.arange(len(score), device=score.device)[:, None]
    inside = chunks[rows, chunk].cumsum(dim=2, dtype=torch.float64)
    place = torch.searchsorted(inside, (point - before)[..., None], right=True).squeeze(2)
    # Rounding may point past the chunk: its last entry with a score is meant.
    last = torch.searchsorted(inside, inside[..., -1:].contiguous()).squeeze(2)
    return chunk * CHUNK + torch.minimum(place, last), total.to(score.dtype)


def _curvature(
    push: Push, clean: CleanPass, tokens: Directions, picked: Picked, plan: Plan
) -> tuple[Float[Tensor, "pos neuron"], Float[Tensor, "pos neuron"]]:
    r"""Estimated $\sum_v p_v f(u_v)$ and its variance, for every position and neuron."""
    total, variance = torch.empty_like(push.a), torch.zeros_like(push.a)
    tail_squares = second_order_of_tail(push, clean, tokens, picked, plan)
    tail_weight = picked.weight.clone()
    tail_weight[:, : plan.n_head] = 0
    n_pos, n_neurons = push.a.shape
    n_picked = picked.token.shape[1]
    size = max(1, TILE[push.a.device.type] // (n_picked * n_neurons))
    for rows in (slice(start, start + size) for start in range(0, n_pos, size)):
        f = excess(push, tokens, picked, rows, plan)
        sums = torch.stack([picked.weight[rows], tail_weight[rows]], dim=1) @ f
        total[rows] = sums[:, 0]
        if plan.n_tail > 1:
            squares = tail_weight[rows, None].square() @ f.square_()
            variance[rows] = variance_of_sum(squares.squeeze(1), sums[:, 1], plan.n_tail)
    return total.add_(tail_squares, alpha=0.5) if plan.second_order else total, variance


def second_order_of_tail(
    push: Push, clean: CleanPass, tokens: Directions, picked: Picked, plan: Plan
) -> Float[Tensor, "pos neuron"] | None:
    r"""$\sum_v p_v u_v^2$ without the head tokens, by moments of z and M; None if unplanned."""
    if not plan.second_order:
        return None
    p = clean.p.scatter(1, picked.token[:, : plan.n_head], 0.0)
    pz = p * clean.z
    z, z_sq = pz.sum(dim=1, keepdim=True), torch.einsum("pv,pv->p", pz, clean.z)[:, None]
    short = p.to(tokens.short_G.dtype)
    M = (short @ tokens.short_G.T).to(p.dtype) @ tokens.W_out.T
    zM = (pz.to(short.dtype) @ tokens.short_G.T).to(p.dtype) @ tokens.W_out.T
    M_sq = (short @ tokens.short_M_sq).to(p.dtype)
    a, b, mean, mass = push.a, push.b, push.mean, p.sum(dim=1, keepdim=True)
    return (
        a * (a * z_sq + 2 * b * zM - 2 * mean * z) + b * (b * M_sq - 2 * mean * M) + mean**2 * mass
    )


def excess(
    push: Push, tokens: Directions, picked: Picked, rows: slice, plan: Plan
) -> Float[Tensor, "pos picked neuron"]:
    """f(u) of the picked tokens; of the sampled ones less its second order where that is known."""
    shape = (*picked.token[rows].shape, push.a.shape[1])
    # In place, pass by pass: the tile stays in the cache, and no product of width two is as fast.
    u = tokens.M.index_select(0, picked.token[rows].flatten()).view(shape)
    u.mul_(push.b[rows, None]).addcmul_(picked.z[rows, :, None], push.a[rows, None])
    u.sub_(push.mean[rows, None])
    f = u.expm1().sub_(u)
    if plan.second_order:
        tail = u[:, plan.n_head :]
        f[:, plan.n_head :].addcmul_(tail, tail, value=-0.5)
    return f


def variance_of_sum(
    squares: Float[Tensor, "pos neuron"], total: Float[Tensor, "pos neuron"], n: int
) -> Float[Tensor, "pos neuron"]:
    """Variance of a sum of n sampled terms, from their squares' sum, as if drawn independently.

    Equal steps through the scores scatter less than that, so it errs on the large side.
    """
    return squares.addcmul_(total, total, value=-1 / n).clamp_min_(0).mul_(n / (n - 1))


def _sum_in_full(
    push: Push,
    clean: CleanPass,
    tokens: Directions,
    chosen: Bool[Tensor, "pos neuron"],
    *,
    out: Float[Tensor, "pos neuron"],
) -> None:
    r"""Write $\sum_v p_v f(u_v)$ over the whole vocabulary into `out`, for the chosen pairs."""
    size = max(1, FULL_TILE[out.device.type] // clean.p.shape[1])
    for neuron in chosen.any(dim=0).nonzero().flatten().tolist():
        M = tokens.M[:, neuron].contiguous()
        for pos in chosen[:, neuron].nonzero().flatten().split(size):
            u = clean.z[pos] * push.a[pos, neuron, None] - push.mean[pos, neuron, None]
            u.addcmul_(push.b[pos, neuron, None], M)
            out[pos, neuron] = torch.einsum("pv,pv->p", u.expm1().sub_(u), clean.p[pos])
