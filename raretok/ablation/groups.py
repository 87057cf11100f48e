r"""Loss change of ablating many neurons of the last MLP together, in the same closed form.

A group $g$ pushes the residual by $d = \sum_{i \in g} c_i w_i$; the rest is that of one neuron
(raretok/ablation/closed_form.py) with $d$ in place of $c_i w_i$.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.head import FinalHead, clean_pass, position_blocks
from raretok.ablation.split import delta_of_push


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
            found[rows, column] = delta_of_push(head, clean, push, target[rows])
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
    push = head.sandwich.moved(output, change @ head.sandwich.W_out[members])
    return push - push.mean(dim=1, keepdim=True) if head.centred else push
