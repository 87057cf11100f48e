r"""Loss change of ablating many neurons of the last MLP together, in the same closed form.

A group $g$ pushes the residual by $d = \sum_{i \in g} c_i w_i$; the rest is that of one neuron
(raretok/ablation/closed_form.py) with $d$ in place of $c_i w_i$.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.head import (
    CleanPass,
    FinalHead,
    capped,
    clean_pass,
    position_blocks,
    rescale,
)


def group_delta_loss(
    head: FinalHead,
    resid: Float[Tensor, "pos d_model"],
    change: Float[Tensor, "pos neuron"],
    target: Int[Tensor, " pos"],
    groups: list[Int[Tensor, " _"]],
    output: Float[Tensor, "pos d_model"] | None = None,
) -> Float[Tensor, "pos group"]:
    """Loss change, in nats, of adding `change` to the activations of each group's neurons.

    The whole vocabulary is summed. Computed in the dtype of `resid`; `output` is
    `head.mlp_output`.
    """
    found = torch.empty(len(resid), len(groups), dtype=resid.dtype, device=resid.device)
    for rows in position_blocks(head, len(resid)):
        clean = clean_pass(head, resid[rows], target[rows], double=False)
        for column, members in enumerate(groups):
            here = None if output is None else output[rows]
            push = push_of_group(head, change[rows][:, members], members, here)
            found[rows, column] = pushed(head, clean, push, target[rows])
    return found


def push_of_group(
    head: FinalHead,
    change: Float[Tensor, "pos member"],
    members: Int[Tensor, " member"],
    output: Float[Tensor, "pos d_model"] | None,
) -> Float[Tensor, "pos d_model"]:
    """What changed activations add to the residual, centred where the final norm centres."""
    if output is None:
        return change @ head.W_out[members]
    inner = head.sandwich
    push = inner.normed(output + change @ inner.W_out[members]) - inner.normed(output)
    return push - push.mean(dim=1, keepdim=True) if head.centred else push


def pushed(
    head: FinalHead,
    clean: CleanPass,
    push: Float[Tensor, "pos d_model"],
    target: Int[Tensor, " pos"],
) -> Float[Tensor, " pos"]:
    """Loss change, in nats, of adding `push` (centred where the norm centres) to the residual."""
    growth = (2 * clean.resid * push + push.square()).mean(dim=1, keepdim=True)
    shrunk, inverse = rescale(clean.var, growth)
    u = capped(shrunk * clean.z + inverse * (push @ head.G), clean.bent, head.softcap)
    at_target = u.gather(1, target[:, None]).squeeze(1)
    # ln(1 + x) keeps small effects; of a tenth of the neurons u may be large, and then x is near
    # -1, where its digits are lost, or infinite: subtract the largest before the exponential.
    inner = (clean.p * u.expm1()).sum(dim=1)
    change = inner.log1p()
    if (rows := ~(inner.abs() < 0.5)).any():
        top = u[rows].amax(dim=1, keepdim=True)
        change[rows] = (clean.p[rows] * (u[rows] - top).exp()).sum(dim=1).log() + top.squeeze(1)
    return change - at_target
