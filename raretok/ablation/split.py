r"""Loss change of a push on the final residual, from a few tokens instead of the vocabulary.

A push $d$ takes the final norm's scale from $s$ to $s'$. With $z$, $G$ and $p$ as in
raretok/ablation/closed_form.py and $\bar G = \sum_v p_v G_v$ it moves the logits, relative to their
mean under $p$, by $x_v = (s/s' - 1)\, z_v + d \cdot (G_v - \bar G)/s'$. The loss changes by

$$\Delta = \ln\Big(1 + \sum_v p_v f(x_v)\Big) - x_{target}, \qquad f(x) = e^x - 1 - x .$$

The sum has no first order, so the first order of the loss is exact. The rest is summed over the
tokens of raretok/ablation/tokens.py. The spread of the terms of its probe tells the standard error
of each pair of position and push, and pairs whose error may be too large are summed over the
vocabulary. A push costs d_model times a hundred tokens, not times d_vocab.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.head import (
    CleanPass,
    FinalHead,
    capped,
    capped_loss,
    clean_pass,
    position_blocks,
    rescale,
)
from raretok.ablation.tokens import Picked, digits, doubt, rank_tokens, weighted_sum

N_HEAD, N_TAIL = 64, 32
N_PICKED = N_HEAD + 2 * N_TAIL + 1


@dataclass(frozen=True)
class Split:
    """Tokens that stand for the vocabulary at some positions, and last the target."""

    picked: Picked
    z: Float[Tensor, "pos picked"]
    direction: Float[Tensor, "pos picked d_model"]  # G_v less its mean under p


def split_vocabulary(
    head: FinalHead,
    clean: CleanPass,
    target: Int[Tensor, " pos"],
    offset: Float[Tensor, " pos"],
    *,
    n_head: int = N_HEAD,
    n_tail: int = N_TAIL,
) -> Split:
    """Choose the tokens; `offset` in [0, 1), one number a position, is what is random in it."""
    ranked = rank_tokens(clean, head.length_sq, n_head)
    picked = ranked.pick(n_tail, offset, n_tail, digits(offset, 1))
    token = torch.cat([picked.token, target[:, None]], dim=1)
    direction = head.rows[token] - (clean.p @ head.rows)[:, None]
    return Split(picked, clean.z.gather(1, token), direction)


def delta_of_pushes(
    head: FinalHead,
    clean: CleanPass,
    split: Split,
    push: Float[Tensor, "pos change d_model"],
    target: Int[Tensor, " pos"],
    *,
    pair_error: float,
) -> Float[Tensor, "pos change"]:
    """Loss change, in nats, of adding each push to the residual before the final norm.

    Pairs whose standard error may exceed `pair_error` nats are summed over the vocabulary; infinity
    sums none that float32 can hold. The push is centred where the norm centres.
    """
    delta, probed = estimate(clean, split, push)
    poor = ~(doubt(split.picked.n_probe) * probed <= pair_error**2) | ~delta.isfinite()
    pos, change = poor.nonzero(as_tuple=True)
    for pairs in position_blocks(head, len(pos)):
        at, which = pos[pairs], change[pairs]
        delta[at, which] = delta_of_push(head, clean.at(at), push[at, which], target[at])
    return delta


def estimate(
    clean: CleanPass, split: Split, push: Float[Tensor, "pos change d_model"]
) -> tuple[Float[Tensor, "pos change"], Float[Tensor, "pos change"]]:
    """Loss changes from the picked tokens alone, and their variances by the probe, nats^2."""
    growth = (push * (2 * clean.resid[:, None] + push)).mean(dim=2)
    shrunk, inv_scale = rescale(clean.var, growth)
    x = torch.einsum("pcd,pvd->pcv", push, split.direction) * inv_scale[..., None]
    x += shrunk[..., None] * split.z[:, None]
    f = x.expm1() - x
    total, _, probed = weighted_sum(f[..., :-1].mT.contiguous(), split.picked)
    return total.log1p() - x[..., -1], probed


def delta_of_push(
    head: FinalHead,
    clean: CleanPass,
    push: Float[Tensor, "pos d_model"],
    target: Int[Tensor, " pos"],
) -> Float[Tensor, " pos"]:
    """Loss change, in nats, of adding `push`, centred where the norm centres, to the residual.

    Exact for a push of any size: it sums the whole vocabulary.
    """
    growth = (push * (2 * clean.resid + push)).mean(dim=1, keepdim=True)
    shrunk, inv_scale = rescale(clean.var, growth)
    moved = (push * inv_scale) @ head.G + shrunk * clean.z
    u = capped(moved, clean.bent, head.softcap)
    # Relative to the likeliest token: its own term, often most of the sum, is then exactly 0.
    u = u - u.gather(1, clean.p.argmax(dim=1, keepdim=True))
    total = (u.expm1() * clean.p).sum(dim=1)
    change = total.log1p() - u.gather(1, target[:, None]).squeeze(1)
    # Near -1 the sum has lost its digits (twenty times those of float32 at -0.95), beyond 88 nats
    # float32 overflows, and where a soft cap holds a logit a large change has none (from where
    # exactly makes no difference); the difference of two losses then keeps what there is.
    lost = ~((total > -0.95) & (total < math.inf))
    if head.softcap:
        lost |= moved.abs().amax(dim=1) > head.softcap / 2
    if lost.any():
        logits = clean.z[lost] + head.logit_bias + moved[lost]
        change[lost] = capped_loss(logits, target[lost], head.softcap) - clean.loss[lost]
    return change


def group_delta_loss(
    head: FinalHead,
    resid: Float[Tensor, "pos d_model"],
    post: Float[Tensor, "pos d_mlp"],
    target: Int[Tensor, " pos"],
    replacement: Float[Tensor, "*pos d_mlp"],
    groups: list[Int[Tensor, " _"]],
) -> Float[Tensor, "pos group"]:
    r"""Loss change, in nats, of putting `replacement` in place of each group's activations.

    A group $g$ of neurons of the last MLP pushes the residual by $\sum_{i \in g} c_i w_i$. The
    whole vocabulary is summed, in the dtype of `resid`.
    """
    found = torch.empty(len(resid), len(groups), dtype=resid.dtype, device=resid.device)
    inner, output, change = head.sandwich, head.mlp_output(post), replacement - post
    for rows in position_blocks(head, len(resid)):
        clean = clean_pass(head, resid[rows], target[rows], double=False)
        for column, members in enumerate(groups):
            some = change[rows][:, members]
            if output is None:
                push = some @ head.W_out[members]
            else:
                push = head.centring(inner.moved(output[rows], some @ inner.W_out[members]))
            found[rows, column] = delta_of_push(head, clean, push, target[rows])
    return found


def push_gradient(
    head: FinalHead, clean: CleanPass, target: Int[Tensor, " pos"]
) -> Float[Tensor, "pos d_model"]:
    r"""Gradient of the loss by the residual before the final norm: the first order of the above.

    $(\bar G - G_{target})/s + r\, z_{target} / (d_{model} s^2)$, with $z$ less its mean under $p$.
    """
    inv_scale = clean.var.rsqrt()
    at_target = clean.z.gather(1, target[:, None])
    gradient = (clean.p @ head.rows - head.rows[target]) * inv_scale
    gradient = gradient + clean.resid * at_target * inv_scale.square() / head.G.shape[0]
    return head.centring(gradient)
