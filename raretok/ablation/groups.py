r"""Loss change of ablating groups of neurons together: what single neurons cannot show, redundancy.

A group $S$ adds one vector $d_S = \sum_{i \in S} c_i w_i$ to the residual before the final norm,
$c_i$ being the change of activation $i$ and $w_i$ its row of $W_{out}$. With the norm's scale going
from $s$ to $s_S$, and $z$, $G$, $p$ as in raretok/ablation/closed_form.py,

$$u_v = (s/s_S - 1)\, z_v + (d_S G)_v / s_S, \qquad
\Delta_S = \ln\Big(1 + \sum_v p_v\, \mathrm{expm1}(u_v)\Big) - u_{target} .$$

Exact for groups of any size: nothing is expanded in the size of the change. The product $d_S G$ is
what costs, d_model times positions times groups times vocabulary, whatever the sizes of the groups.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from raretok.ablation.head import (
    CleanPass,
    FinalHead,
    check_effect,
    clean_pass,
    position_blocks,
    rescale,
)
from raretok.errors import UserError


def delta_loss_group(
    head: FinalHead,
    resid: Float[Tensor, "pos d_model"],
    post: Float[Tensor, "pos d_mlp"],
    target: Int[Tensor, " pos"],
    replacement: Float[Tensor, "*pos d_mlp"],
    groups: Bool[Tensor, "group members"],
    *,
    effect: str = "total",
) -> Float[Tensor, "pos group"]:
    """Loss change, in nats, of putting `replacement` in place of all activations of a group.

    A row of `groups` marks its members among the d_mlp neurons; groups may overlap, and one without
    a member changes nothing. The other arguments are those of `delta_loss`. Raises `UserError` for
    groups over another number of neurons and for an unknown effect.
    """
    check_effect(effect)
    if groups.shape[1] != post.shape[1]:
        raise UserError(
            f"groups mark {groups.shape[1]} neurons, the layer has {post.shape[1]}: "
            "give one column a neuron"
        )
    change = replacement - post
    delta = change.new_empty(len(post), len(groups))
    for rows in position_blocks(head, len(post)):
        clean = clean_pass(head, resid[rows], target[rows])
        for group, members in enumerate(groups):
            push = change[rows][:, members] @ head.W_out[members]
            delta[rows, group] = delta_of_push(head, clean, push, target[rows], effect)
    return delta


def delta_of_push(
    head: FinalHead,
    clean: CleanPass,
    push: Float[Tensor, "pos d_model"],
    target: Int[Tensor, " pos"],
    effect: str = "total",
) -> Float[Tensor, " pos"]:
    """Loss change, in nats, of adding `push`, centred where the norm centres, to the residual.

    Whatever moved the residual: neurons of the last MLP, or anything before it. Sums the whole
    vocabulary; raretok/ablation/split.py has the estimate that does not.
    """
    growth = (push * (2 * clean.resid + push)).mean(dim=1, keepdim=True)
    shrunk, inv_scale = rescale(clean.var, growth if effect == "total" else 0 * growth)
    u = (push * inv_scale) @ head.G + shrunk * clean.z
    # Relative to the likeliest token: its own term, often most of the sum, is then exactly 0.
    u = u - u.gather(1, clean.p.argmax(dim=1, keepdim=True))
    log_mean = (u.expm1() * clean.p).sum(dim=1).log1p()
    # A change of 88 nats overflows float32; that large, a plain logarithm loses no digit.
    over = ~log_mean.isfinite()
    log_p = (clean.z[over] + head.logit_bias).log_softmax(dim=1)
    log_mean[over] = (u[over] + log_p).logsumexp(dim=1)
    return log_mean - u.gather(1, target[:, None]).squeeze(1)
