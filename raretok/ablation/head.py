"""What follows the last MLP: constants of the model, and its unablated pass at some positions."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.errors import UserError
from raretok.models.adapter import LanguageModel

# Total: everything after the neuron reacts. Direct: the final norm divides by its unablated scale,
# which leaves out what entropy neurons act through (Stolfo et al. 2024, arXiv 2406.16254).
EFFECTS = ("total", "direct")
POSITION_BUDGET = 3 * 2**23  # elements of a [pos, d_vocab] array; three to six are alive at once


def check_effect(effect: str) -> None:
    """Raise `UserError` for an effect that is none of EFFECTS."""
    if effect not in EFFECTS:
        raise UserError(f"unknown effect {effect!r}: choose one of {', '.join(EFFECTS)}")


@dataclass(frozen=True)
class FinalHead:
    """What follows the last MLP, in the form the closed form needs."""

    W_out: Float[Tensor, "d_mlp d_model"]  # rows centred where the norm centres
    W_out_sq: Float[Tensor, " d_mlp"]  # squared length of each row
    G: Float[Tensor, "d_model d_vocab"]  # gain times W_U
    logit_bias: Float[Tensor, " d_vocab"]
    eps: float
    centred: bool  # LayerNorm; RMSNorm does not centre


def final_head(model: LanguageModel, dtype: torch.dtype | None = None) -> FinalHead:
    """Constants of a model. Raises `UserError` where the closed form does not hold."""
    reason = model.architecture.closed_form_refusal
    if reason:
        raise UserError(
            f"the closed form does not hold for {model.name}: {reason}; choose another model"
        )
    dtype = dtype or model.dtype
    W_out, W_U = model.W_out.to(dtype), model.W_U.to(dtype)
    centred = model.architecture.norm == "LayerNorm"
    if centred:
        W_out = W_out - W_out.mean(dim=1, keepdim=True)
    return FinalHead(
        W_out=W_out,
        W_out_sq=W_out.square().sum(dim=1),
        # A shift common to all logits changes no loss, but costs digits: the mean token goes out.
        G=model.gain.to(dtype)[:, None] * (W_U - W_U.mean(dim=1, keepdim=True)),
        logit_bias=model.bias.to(dtype) @ W_U + model.b_U.to(dtype),
        eps=model.eps,
        centred=centred,
    )


class Room:
    """Memory that blocks of positions use in turn: fresh pages cost as much as a small product."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """What was kept under a name, its values as they happen to be, in another shape."""
        size, kept = math.prod(shape), self._kept.get(name)
        if kept is None or kept.numel() < size:
            kept = self._kept[name] = like.new_empty(size)
        return kept[:size].view(shape)


@dataclass(frozen=True)
class CleanPass:
    """The unablated final norm and logits at some positions."""

    resid: Float[Tensor, "pos d_model"]  # centred where the norm centres
    var: Float[Tensor, "pos 1"]  # squared scale of the norm
    z: Float[Tensor, "pos d_vocab"]  # logits without biases, less their mean under p
    p: Float[Tensor, "pos d_vocab"]
    loss: Float[Tensor, " pos"]


def clean_pass(
    head: FinalHead,
    resid: Float[Tensor, "pos d_model"],
    target: Int[Tensor, " pos"],
    *,
    double: bool = True,
    room: Room | None = None,
) -> CleanPass:
    """The unablated pass in the dtype of `resid`; `loss` in nats.

    Computed in float64 unless `double` is false: one product of width d_model, and most of the
    rounding error of a single position is gone with it. Means over positions do not need that.
    What lies in `room`, which needs `double=False`, lasts until it is used again.
    """
    dtype = resid.dtype
    if double:
        head = replace(head, G=head.G.double(), logit_bias=head.logit_bias.double())
        resid = resid.double()
    if head.centred:
        resid = resid - resid.mean(dim=1, keepdim=True)
    var = resid.square().mean(dim=1, keepdim=True) + head.eps
    shape, room = (len(resid), head.G.shape[1]), room or Room()
    z = torch.mm(resid * var.rsqrt(), head.G, out=room.take("z", head.G, *shape))
    logits = torch.add(z, head.logit_bias, out=room.take("p", head.G, *shape))
    top, at_target = logits.max(dim=1), logits.gather(1, target[:, None]).squeeze(1)
    p = torch.softmax(logits, dim=1, out=logits)  # one pass; a logsumexp would be another
    loss = top.values - p.gather(1, top.indices[:, None]).squeeze(1).log() - at_target
    # The softmax does not see a shift of z, and around its mean the series converges faster.
    z -= dot(p, z, out=room.take("score", z, *shape))[:, None]
    return CleanPass(*(part.to(dtype) for part in (resid, var, z, p, loss)))


def dot(
    a: Float[Tensor, "row entry"],
    b: Float[Tensor, "row entry"],
    *,
    out: Float[Tensor, "row entry"] | None = None,
) -> Float[Tensor, " row"]:
    """Scalar product of each row; `out` is memory for the terms.

    Their sum in pairs keeps the digits of float32. Products of matrices add one by one: of 50,000
    terms of one sign they lose four digits more, always in the same direction.
    """
    return torch.mul(a, b, out=out).sum(dim=1)


def clean_loss(
    head: FinalHead, resid: Float[Tensor, "pos d_model"], target: Int[Tensor, " pos"]
) -> Float[Tensor, " pos"]:
    """Loss of the unablated model, in nats."""
    blocks = position_blocks(head, len(resid))
    return torch.cat([clean_pass(head, resid[rows], target[rows]).loss for rows in blocks])


def rescale(
    var: Float[Tensor, "pos 1"], growth: Float[Tensor, "pos change"]
) -> tuple[Float[Tensor, "pos change"], Float[Tensor, "pos change"]]:
    """s/s_i - 1 and 1/s_i, when the squared scale of the norm grows from `var` by `growth`."""
    inv_scale = (var + growth).rsqrt()
    ratio = var.sqrt() * inv_scale
    # ratio - 1 without the cancellation: (ratio^2 - 1) / (ratio + 1)
    return -growth * inv_scale.square() / (1 + ratio), inv_scale


def position_blocks(head: FinalHead, n: int) -> list[slice]:
    """Slices of `n` positions, alike in size, each small enough to hold its logits.

    One empty slice for none.
    """
    most = max(1, POSITION_BUDGET // head.G.shape[1])
    size = max(1, -(-n // -(-n // most))) if n else 1
    return [slice(start, min(start + size, n)) for start in range(0, max(n, 1), size)]
