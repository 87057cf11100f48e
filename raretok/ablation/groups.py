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
    post: Float[Tensor, "pos d_mlp"],
    target: Int[Tensor, " pos"],
    replacement: Float[Tensor, "*pos d_mlp"],
    groups: list[Int[Tensor, " _"]],
) -> Float[Tensor, "pos group"]:
    """Loss change, in nats, of putting `replacement` in place of each group's activations.

    The whole vocabulary is summed. Computed in the dtype of `resid`.
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
