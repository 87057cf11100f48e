r"""Loss change of ablating many neurons of the last MLP together, in the same closed form.

A group $g$ pushes the residual by $d = \sum_{i \in g} c_i w_i$; the rest is that of one neuron
(raretok/ablation/closed_form.py) with $d$ in place of $c_i w_i$.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.head import CleanPass, FinalHead, clean_pass, position_blocks, rescale


def group_delta_loss(
    head: FinalHead,
    resid: Float[Tensor, "pos d_model"],
    change: Float[Tensor, "pos neuron"],
    target: Int[Tensor, " pos"],
    groups: list[Int[Tensor, " member"]],
) -> Float[Tensor, "pos group"]:
    """Loss change, in nats, of adding `change` to the activations of each group's neurons.

    The whole vocabulary is summed. Computed in the dtype of `resid`.
    """
    found = torch.empty(len(resid), len(groups), dtype=resid.dtype, device=resid.device)
    for rows in position_blocks(head, len(resid)):
        clean = clean_pass(head, resid[rows], target[rows], double=False)
        for column, members in enumerate(groups):
            push = change[rows][:, members] @ head.W_out[members]
            found[rows, column] = pushed(head, clean, push, target[rows])
    return found


def pushed(
    head: FinalHead,
    clean: CleanPass,
    push: Float[Tensor, "pos d_model"],
    target: Int[Tensor, " pos"],
) -> Float[Tensor, " pos"]:
    """Loss change, in nats, of adding `push` (centred where the norm centres) to the residual."""
    growth = (2 * clean.resid * push + push.square()).mean(dim=1, keepdim=True)
    shrunk, inverse = rescale(clean.var, growth)
    u = shrunk * clean.z + inverse * (push @ head.G)
    at_target = u.gather(1, target[:, None]).squeeze(1)
    # Of a whole tenth of the neurons u may be large: subtract its largest before the exponential.
    top = u.amax(dim=1, keepdim=True).clamp(min=0)
    small = torch.log1p((clean.p * u.expm1()).sum(dim=1))
    large = ((clean.p * (u - top).exp()).sum(dim=1)).log() + top.squeeze(1)
    return torch.where(top.squeeze(1) < 1, small, large) - at_target
