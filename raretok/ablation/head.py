r"""What follows the last MLP: constants of the model, and its unablated pass at some positions.

Where a norm stands between the MLP and the residual (sandwich norm: gain $h$, scale $t$), the MLP
adds $h\,o/t$ with $o$ its own output, and ablating neuron i makes that
$h\,(o + c_i w_i)/t_i$ with $t_i^2 = t^2 + (2 c_i\, o \cdot w_i + c_i^2 |w_i|^2)/d$. The residual
then moves in two directions, by $(1/t_i - 1/t)\, h\,o + (c_i/t_i)\, h\,w_i$. A multiplier of the
output or of the logits is a constant of W_out or of G. A soft cap k makes a change u of a logit
$k\,\tanh(l/k)$ into $k \tau (1 - T^2) / (1 + T \tau)$, with $T = \tanh(l/k)$ and
$\tau = \tanh(u/k)$; its slope at 0 is $1 - T^2$.
"""

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.errors import UserError
from raretok.models.adapter import LanguageModel, eps_of, gain_of

# Total: everything after the neuron reacts. Direct: the final norm divides by its unablated scale,
# which leaves out what entropy neurons act through (Stolfo et al. 2024, arXiv 2406.16254).
EFFECTS = ("total", "direct")
Part = TypeVar("Part")
POSITION_BUDGET = 3 * 2**23  # elements of a [pos, d_vocab] array; three to six are alive at once


def check_effect(effect: str) -> None:
    """Raise `UserError` for an effect that is none of EFFECTS."""
    if effect not in EFFECTS:
        raise UserError(f"unknown effect {effect!r}: choose one of {', '.join(EFFECTS)}")


@dataclass(frozen=True)
class Sandwich:
    """The norm between the last MLP and the residual, and what it divides."""

    W_out: Float[Tensor, "d_mlp d_model"]  # as the MLP has it
    W_out_sq: Float[Tensor, " d_mlp"]
    b_out: Float[Tensor, " d_model"]
    gain: Float[Tensor, " d_model"]
    eps: float

    def output(self, post: Float[Tensor, "*pos d_mlp"]) -> Float[Tensor, "*pos d_model"]:
        """What the MLP hands to the norm."""
        return post @ self.W_out + self.b_out

    def normed(self, output: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos d_model"]:
        """What the norm adds to the residual."""
        return self.gain * output * self.inv_scale(output)

    def inv_scale(self, output: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos 1"]:
        return (output.square().mean(dim=-1, keepdim=True) + self.eps).rsqrt()

    def moved(
        self, output: Float[Tensor, "*pos d_model"], push: Float[Tensor, "*all d_model"]
    ) -> Float[Tensor, "*all d_model"]:
        """What pushing the MLP's output adds to the residual."""
        return self.normed(output + push) - self.normed(output)

    def gradient(
        self, output: Float[Tensor, "*pos d_model"], after: Float[Tensor, "*all d_model"]
    ) -> Float[Tensor, "*all d_model"]:
        """Gradient by the MLP's output, from the one by the residual."""
        inv_scale, after = self.inv_scale(output), self.gain * after
        along = (after * output).mean(dim=-1, keepdim=True)
        return inv_scale * (after - output * along * inv_scale.square())


@dataclass(frozen=True)
class FinalHead:
    """What follows the last MLP, in the form the closed form needs."""

    W_out: Float[Tensor, "d_mlp d_model"]  # in the residual; rows centred where the norm centres
    W_out_sq: Float[Tensor, " d_mlp"]  # squared length of each row
    G: Float[Tensor, "d_model d_vocab"]  # gain times W_U
    logit_bias: Float[Tensor, " d_vocab"]
    eps: float
    centred: bool  # LayerNorm; RMSNorm does not centre
    sandwich: Sandwich | None = None
    softcap: float | None = None

    @cached_property
    def rows(self) -> Float[Tensor, "d_vocab d_model"]:
        """Columns of G, one a row."""
        return self.G.T.contiguous()

    @cached_property
    def length_sq(self) -> Float[Tensor, " d_vocab"]:
        """Squared length of each column of G."""
        return self.G.square().sum(dim=0)

    @cached_property
    def M(self) -> Float[Tensor, "d_vocab d_mlp"]:
        """What each token's logit moves by, for each neuron."""
        return self.G.T @ self.W_out.T

    @cached_property
    def short_G(self) -> Float[Tensor, "d_model d_vocab"]:
        return self.G.to(short_type(self.G.device))

    @cached_property
    def short_M_sq(self) -> Float[Tensor, "d_vocab d_mlp"]:
        return self.M.square().to(short_type(self.G.device))

    @property
    def plain(self) -> bool:
        """Whether an ablation moves the logits in one direction, and nothing bends them."""
        return self.sandwich is None and self.softcap is None

    def centring(self, resid: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos d_model"]:
        """Centred, where the norm centres."""
        return resid - resid.mean(dim=-1, keepdim=True) if self.centred else resid

    def of(self, neurons: slice | Int[Tensor, " neuron"]) -> "FinalHead":
        """That of some neurons of the layer."""
        inner = self.sandwich
        if inner:
            inner = replace(inner, W_out=inner.W_out[neurons], W_out_sq=inner.W_out_sq[neurons])
        rows = {"W_out": self.W_out[neurons], "W_out_sq": self.W_out_sq[neurons]}
        return replace(self, **rows, sandwich=inner)

    def mlp_output(self, post: Float[Tensor, "*pos d_mlp"]) -> Float[Tensor, "*pos d_model"] | None:
        """What stands before a sandwich norm; nothing where there is none. All neurons needed."""
        return self.sandwich.output(post) if self.sandwich else None


def short_type(device: torch.device) -> torch.dtype:
    """Type of the products for the second order: three digits are enough for them.

    A processor without bfloat16 instructions would be slower with it than with float32.
    """
    fast = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def doubled(part: Part) -> Part:
    """The tensors of a head, and of its sandwich norm, in float64."""
    values = {one.name: getattr(part, one.name) for one in fields(part)}
    found = {name: v.double() for name, v in values.items() if isinstance(v, Tensor)}
    inner = {name: doubled(v) for name, v in values.items() if isinstance(v, Sandwich)}
    return replace(part, **found, **inner)


def final_head(model: LanguageModel, dtype: torch.dtype | None = None) -> FinalHead:
    """Constants of a model. Raises `UserError` for a norm that the closed form does not know."""
    sizes, dtype = model.architecture, dtype or model.dtype
    sandwich = sandwich_of(model, dtype)
    W_U, scale = model.W_U.to(dtype), sizes.logit_scale
    W_out = model.W_out.to(dtype) * (sandwich.gain if sandwich else sizes.out_scale)
    centred = sizes.norm == "LayerNorm"
    if centred:
        W_out = W_out - W_out.mean(dim=1, keepdim=True)
    # A shift common to all logits changes no loss, but costs digits: the mean token goes out. Not
    # under a cap, which does not let it pass.
    mean = 0 if sizes.softcap else W_U.mean(dim=1, keepdim=True)
    return FinalHead(
        W_out=W_out,
        W_out_sq=W_out.square().sum(dim=1),
        G=(scale * model.gain.to(dtype))[:, None] * (W_U - mean),
        logit_bias=scale * (model.bias.to(dtype) @ W_U + model.b_U.to(dtype)),
        eps=model.eps,
        centred=centred,
        sandwich=sandwich,
        softcap=sizes.softcap,
    )


def sandwich_of(
    model: LanguageModel, dtype: torch.dtype | None = None, layer: int = -1
) -> Sandwich | None:
    """The norm between an MLP and the residual. Raises `UserError` for one that centres."""
    norm, dtype = model.post_norm(layer), dtype or model.dtype
    if norm is None:
        return None
    if not norm.uses_rms_norm:
        raise UserError(
            f"the closed form does not hold for {model.name}: a norm that centres stands between "
            "an MLP and the residual; choose another model"
        )
    W_out, b_out = (part.to(dtype) for part in model.down(layer))
    gain = model.architecture.out_scale * gain_of(norm, model.W_U[:, 0]).to(dtype)
    return Sandwich(W_out, W_out.square().sum(dim=1), b_out, gain, eps_of(norm))


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


class ByPosition:
    """A dataclass whose tensors have a row for each position; others are of all of them."""

    def at(self: Part, rows: Any) -> Part:
        """That of some positions, or of some pairs of position and neuron."""
        parts = {name: part[rows] for name, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, **parts)


@dataclass(frozen=True)
class CleanPass(ByPosition):
    """The unablated final norm and logits at some positions."""

    resid: Float[Tensor, "pos d_model"]  # centred where the norm centres
    var: Float[Tensor, "pos 1"]  # squared scale of the norm
    z: Float[Tensor, "pos d_vocab"]  # logits without biases, less their mean under p if centred
    p: Float[Tensor, "pos d_vocab"]
    loss: Float[Tensor, " pos"]
    bent: Float[Tensor, "pos d_vocab"] | None = None  # T of a soft cap
    centred: bool = True  # z is less its mean

    @property
    def pull(self) -> Float[Tensor, "pos d_vocab"]:
        """p times the slope of the soft cap: what the first order of a change is weighted by."""
        return self.p if self.bent is None else self.p * (1 - self.bent.square())


def clean_pass(
    head: FinalHead,
    resid: Float[Tensor, "pos d_model"],
    target: Int[Tensor, " pos"],
    *,
    double: bool = True,
    centre: bool = True,
    room: Room | None = None,
) -> CleanPass:
    """The unablated pass in the dtype of `resid`; `loss` in nats.

    `centre` takes the mean out of z, which three more passes over it cost; never under a soft cap.

    Computed in float64 unless `double` is false: one product of width d_model, and most of the
    rounding error of a single position is gone with it. Means over positions do not need that.
    What lies in `room`, which needs `double=False`, lasts until it is used again.
    """
    dtype = resid.dtype
    if double:
        head, resid = doubled(head), resid.double()
    resid = head.centring(resid)
    var = resid.square().mean(dim=1, keepdim=True) + head.eps
    shape, room = (len(resid), head.G.shape[1]), room or Room()
    z = torch.mm(resid * var.rsqrt(), head.G, out=room.take("z", head.G, *shape))
    logits, bent = torch.add(z, head.logit_bias, out=room.take("p", head.G, *shape)), None
    if head.softcap:
        bent = (logits / head.softcap).tanh()
        torch.mul(bent, head.softcap, out=logits)
    top, at_target = logits.max(dim=1), logits.gather(1, target[:, None]).squeeze(1)
    p = torch.softmax(logits, dim=1, out=logits)  # one pass; a logsumexp would be another
    loss = top.values - p.gather(1, top.indices[:, None]).squeeze(1).log() - at_target
    if centre and bent is None:
        # The softmax does not see a shift of z, and around its mean the series converges faster.
        z -= dot(p, z, out=room.take("score", z, *shape))[:, None]
    parts = (part if part is None else part.to(dtype) for part in (resid, var, z, p, loss, bent))
    return CleanPass(*parts, centred=centre and bent is None)


@dataclass(frozen=True)
class Branch:
    """What a sandwich norm adds to the residual at some positions, and its scale."""

    output: Float[Tensor, "pos d_model"]  # o, before the norm
    added: Float[Tensor, "pos d_model"]  # h o, centred where the final norm centres
    var: Float[Tensor, "pos 1"]  # t squared
    z: Float[Tensor, "pos d_vocab"]  # h o through G, less its mean under p where nothing bends it


def branch_of(
    head: FinalHead, clean: CleanPass, output: Float[Tensor, "pos d_model"] | None
) -> Branch | None:
    """What the MLP's `output` becomes; nothing for a model without a sandwich norm."""
    if head.sandwich is None or output is None:
        return None
    added = head.centring(head.sandwich.gain * output)
    z = added @ head.G
    if clean.bent is None:
        z -= dot(clean.p, z)[:, None]
    return Branch(output, added, output.square().mean(dim=1, keepdim=True) + head.sandwich.eps, z)


def capped(
    u: Float[Tensor, "*some"], bent: Float[Tensor, "*of"] | None, softcap: float | None
) -> Float[Tensor, "*some"]:
    """Changes of logits as they leave a soft cap, whose T they meet."""
    if softcap is None:
        return u
    small = (u / softcap).tanh()
    return softcap * small * (1 - bent.square()) / (1 + bent * small)


def capped_loss(
    logits: Float[Tensor, "pos d_vocab"], target: Int[Tensor, " pos"], softcap: float | None
) -> Float[Tensor, " pos"]:
    """Loss of each target, in nats, from logits before a soft cap."""
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return torch.nn.functional.cross_entropy(logits, target, reduction="none")


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
