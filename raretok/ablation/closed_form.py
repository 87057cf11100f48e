r"""Loss change of ablating each neuron of the last MLP alone: whole vocabulary, no forward pass.

Adding $c_i w_i$ to the residual $r$ before the final norm turns the norm's scale $s$ into $s_i$ and
changes the logits by $u_{iv} = (s/s_i - 1)\, z_v + (c_i/s_i)\, M_{iv}$, where $z = (r/s)\, G$,
$M = W_{out} G$ and $G = \mathrm{diag}(gain)\, W_U$. The loss changes by

$$\Delta_i = \ln\Big(1 + \sum_v p_v\, \mathrm{expm1}(u_{iv})\Big) - u_{i,target} .$$

Nothing cancels, so small effects keep their precision. Most $u$ are small, and the sum is then the
series $\sum_k \sum_v p_v u_{iv}^k / k!$, all of it matrix products: moments of $z$ under $p$ times
powers of $M$. Its remainder is bounded for each pair of position and neuron, and pairs whose bound
exceeds `tolerance` are summed in full. So is every pair behind a sandwich norm, where u has a third
term, and under a soft cap (raretok/ablation/head.py).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from raretok.ablation.head import (
    Branch,
    ByPosition,
    CleanPass,
    FinalHead,
    branch_of,
    capped,
    check_effect,
    clean_pass,
    dot,
    doubled,
    position_blocks,
    rescale,
)

# Terms of the series: even, so that the last one is positive and bounds the rest. On the shipped
# size of model 4 leave 7 % of the pairs to be summed in full, 2 leave 86 %, 6 leave 1 % and cost
# twice the products.
ORDER = 4
TOLERANCE = 1e-9  # nats; rounding of float32 is about 1e-6 a position
LARGE = 0.1  # nats; float32 is off by up to 1.2e-6 below it and 2e-6 above
NEURONS = 256  # handled together
TILE = {"cpu": 2**18, "cuda": 2**26}  # elements of u at a time: 1 MiB stays in the cache


def delta_loss(
    head: FinalHead,
    resid: Float[Tensor, "pos d_model"],
    post: Float[Tensor, "pos d_mlp"],
    target: Int[Tensor, " pos"],
    replacement: Float[Tensor, "*pos d_mlp"],
    *,
    neurons: Int[Tensor, " neuron"] | None = None,
    tolerance: float = TOLERANCE,
    effect: str = "total",
) -> Float[Tensor, "pos neuron"]:
    """Loss change, in nats, of putting `replacement` in place of one neuron's activation.

    `resid` is the residual before the final norm, `replacement` one value a neuron or one a
    position and neuron. Exact but for rounding and at most `tolerance` nats; 0 sums every pair in
    full. Computed in the dtype of the inputs. `effect="direct"` keeps the scale of the final norm
    at its unablated value. Raises `UserError` for an unknown effect.
    """
    if neurons is None:
        neurons = torch.arange(post.shape[1], device=post.device)
    change = (replacement.double() - post.double())[:, neurons]
    delta = torch.empty_like(change, dtype=post.dtype)
    output, head = head.mlp_output(post), head.of(neurons)
    tolerance = tolerance if head.plain else 0.0
    for rows in position_blocks(head, len(resid)):
        here = resid[rows], None if output is None else output[rows], change[rows].to(post.dtype)
        delta[rows] = _delta_block(head, *here, target[rows], tolerance, effect)
    if post.dtype != torch.float64:
        _refine(head, resid, output, change, target, delta, effect)
    return delta


def _refine(
    head: FinalHead,
    resid: Float[Tensor, "pos d_model"],
    output: Float[Tensor, "pos d_model"] | None,
    change: Float[Tensor, "pos neuron"],
    target: Int[Tensor, " pos"],
    delta: Float[Tensor, "pos neuron"],
    effect: str,
) -> None:
    """Overwrite the few large entries of `delta` with their float64 values.

    A neuron that moves all logits by 20 nats leaves its effect in the differences of numbers whose
    float32 steps are 2e-6.
    """
    large = delta.abs() > LARGE
    if not large.any():
        return
    head = doubled(head)
    for pos in large.any(dim=1).nonzero().flatten().tolist():
        chosen, row = large[pos].nonzero().flatten(), slice(pos, pos + 1)
        here = resid[row].double(), None if output is None else output[row].double()
        exact = _delta_block(head.of(chosen), *here, change[row, chosen], target[row], 0.0, effect)
        delta[pos, chosen] = exact[0].to(delta.dtype)


@dataclass(frozen=True)
class Coefficients(ByPosition):
    """What happens to z (a), how much of M is added (b) and of the branch's z (e)."""

    a: Float[Tensor, "pos neuron"]
    b: Float[Tensor, "pos neuron"]
    e: Float[Tensor, "pos neuron"] | None  # of a sandwich norm alone


@dataclass(frozen=True)
class _Shift:
    """The changes of the logits, u = a z + b M, at some positions and for some neurons."""

    by: Coefficients
    clean: CleanPass
    branch: Branch | None
    M: Float[Tensor, "neuron d_vocab"]
    softcap: float | None

    def at(self, token: Int[Tensor, " pos"]) -> Float[Tensor, "pos neuron"]:
        there = token[:, None]
        u = self.by.a * self.clean.z.gather(1, there) + self.by.b * self.M.T[token]
        if self.branch:
            u = u + self.by.e * self.branch.z.gather(1, there)
        bent = self.clean.bent
        return capped(u, bent if bent is None else bent.gather(1, there), self.softcap)

    def everywhere(self, pos: int, neurons: Int[Tensor, " some"]) -> Float[Tensor, "some d_vocab"]:
        """Those of all tokens, at one position."""
        a, b = self.by.a[pos, neurons, None], self.by.b[pos, neurons, None]
        u = self.M[neurons].mul_(b).addcmul_(a, self.clean.z[pos])
        if self.branch:
            u.addcmul_(self.by.e[pos, neurons, None], self.branch.z[pos])
        return capped(u, None if self.softcap is None else self.clean.bent[pos], self.softcap)


def _delta_block(
    head: FinalHead,
    resid: Float[Tensor, "pos d_model"],
    output: Float[Tensor, "pos d_model"] | None,
    change: Float[Tensor, "pos neuron"],
    target: Int[Tensor, " pos"],
    tolerance: float,
    effect: str,
) -> Float[Tensor, "pos neuron"]:
    """`delta_loss` of a block of positions, neurons block by block."""
    clean = clean_pass(head, resid, target)
    branch = branch_of(head, clean, output)
    by = shift_of_logits(head, clean, branch, change, effect)
    moments = _moments(head, clean) if tolerance > 0 else None
    delta = torch.empty_like(change)
    for start in range(0, len(head.W_out), NEURONS):
        cols = slice(start, start + NEURONS)
        W_out, some = head.W_out[cols], by.at((slice(None), cols))
        shift = _Shift(some, clean, branch, W_out @ head.G, head.softcap)
        log_mean, bound = torch.zeros_like(shift.by.a), torch.full_like(shift.by.a, math.inf)
        if moments:
            log_mean, bound = _series(shift, moments, W_out)
        at_target = shift.at(target)
        delta[:, cols] = log_mean - at_target
        _sum_in_full(shift, clean.p, at_target, ~(bound <= tolerance), out=delta[:, cols])
    return delta


def shift_of_logits(
    head: FinalHead,
    clean: CleanPass,
    branch: Branch | None,
    change: Float[Tensor, "pos neuron"],
    effect: str,
) -> Coefficients:
    """s/s_i - 1 and c_i/s_i; behind a sandwich norm c_i/(t_i s_i) and (1/t_i - 1/t)/s_i."""
    check_effect(effect)
    e, d_model = None, len(head.G)
    if branch:
        inner = head.sandwich
        grown = 2 * change * (branch.output @ inner.W_out.T) + change.square() * inner.W_out_sq
        shrunk, inv_scale = rescale(branch.var, grown / d_model)
        change, e = change * inv_scale, shrunk * branch.var.rsqrt()
    growth = 2 * change * (clean.resid @ head.W_out.T) + change.square() * head.W_out_sq
    if branch:
        along, size = dot(branch.added, clean.resid), dot(branch.added, branch.added)
        across = branch.added @ head.W_out.T
        growth += e * (2 * along[:, None] + 2 * change * across + e * size[:, None])
    growth = growth / d_model
    shrunk, inv_scale = rescale(clean.var, growth if effect == "total" else 0 * growth)
    return Coefficients(shrunk, change * inv_scale, e if e is None else e * inv_scale)


@dataclass(frozen=True)
class _Moments:
    r"""Powers of z under p, $p_v z_v^m$: summed over v, one by one, and as seen through G."""

    total: list[Float[Tensor, "pos 1"]]
    by_token: list[Float[Tensor, "pos d_vocab"]]
    through_G: list[Float[Tensor, "pos d_model"]]


def _moments(head: FinalHead, clean: CleanPass) -> _Moments:
    moments, power = _Moments([], [], []), clean.p
    for m in range(ORDER + 1):
        moments.total.append(power.sum(dim=1, keepdim=True))
        if m < ORDER:
            moments.through_G.append(power @ head.G.T)
        if m < ORDER - 1:
            moments.by_token.append(power)
        power = power * clean.z
    return moments


def _series(
    shift: _Shift, moments: _Moments, W_out: Float[Tensor, "neuron d_model"]
) -> tuple[Float[Tensor, "pos neuron"], Float[Tensor, "pos neuron"]]:
    r"""$\ln(1 + \sum_v p_v \mathrm{expm1}(u_v))$ by the series, and a bound on its error.

    With $|u_v| \le U$ the remainder is at most $\sum_v p_v |u_v|^{K+1} e^U / (K+1)!$, that is
    $U e^U / (K+1)$ times the last term, K being even. The logarithm stretches it by $e^U$ at most.
    """
    # In units of its largest entry no power of M overflows.
    unit = shift.M.abs().amax(dim=1).clamp_min(torch.finfo(shift.M.dtype).tiny)
    a, b, X = shift.by.a, shift.by.b * unit, shift.M / unit[:, None]
    terms = [torch.zeros_like(a) for _ in range(ORDER + 1)]
    X_power = X
    for j in range(ORDER + 1):
        if j > 1:
            X_power = X_power * X
        for m in range(ORDER + 1 - j):
            if j == 0:
                product = moments.total[m]
            elif j == 1:
                product = moments.through_G[m] @ (W_out / unit[:, None]).T
            else:
                product = moments.by_token[m] @ X_power.T
            terms[m + j] += a**m * b**j * product / (math.factorial(m) * math.factorial(j))
    U = a.abs() * shift.clean.z.abs().amax(dim=1, keepdim=True) + b.abs()
    # The last term is positive but for rounding, for which the second summand makes up.
    last = terms[ORDER].clamp_min(0) + 1e-5 * U**ORDER / math.factorial(ORDER)
    return sum(terms[1:]).log1p(), U * (2 * U).exp() / (ORDER + 1) * last


def _sum_in_full(
    shift: _Shift,
    p: Float[Tensor, "pos d_vocab"],
    at_target: Float[Tensor, "pos neuron"],
    chosen: Bool[Tensor, "pos neuron"],
    *,
    out: Float[Tensor, "pos neuron"],
) -> None:
    """Write the loss change summed over the whole vocabulary into `out`, for the chosen pairs."""
    # Relative to the likeliest token: its own term, often most of the sum, is then exactly 0, and
    # thousands of small ones are not rounded on top of it. Where it is the target, the change of
    # its logit drops out of the loss exactly.
    likeliest = shift.at(p.argmax(dim=1))
    size = max(1, TILE[p.device.type] // p.shape[1])
    for pos in chosen.any(dim=1).nonzero().flatten().tolist():
        for neurons in chosen[pos].nonzero().flatten().split(size):
            reference = likeliest[pos, neurons]
            u = shift.everywhere(pos, neurons).sub_(reference[:, None])
            lead = reference - at_target[pos, neurons]
            out[pos, neurons] = (u.expm1_() @ p[pos]).log1p() + lead
