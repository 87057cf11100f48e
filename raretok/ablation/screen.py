r"""First-order effect of every neuron of a layer: one forward and one backward pass a class.

Attribution patching (Kramár et al. 2024, arXiv 2403.00745): the mean loss of a class,
$\sum_t w_t \ell_t / \sum_t w_t$ over its scored positions $t$, changes by about

$$\sum_{pos} \frac{\partial\, \mathrm{mean\ loss}}{\partial\, post_{pos,i}}\,
(\mathrm{replacement}_i - post_{pos,i}),$$

the sum running over the positions where neuron i is ablated. What it leaves out is everything that
bends: the later attention and MLPs, the final norm and the softmax. It ranks neurons; the exact
path measures them.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from raretok.ablation.batches import ScoredBatch
from raretok.ablation.head import FinalHead, clean_pass
from raretok.ablation.partial import LayerCapture, W_out_of, run_from
from raretok.ablation.split import TokenRows, push_gradient
from raretok.models import LanguageModel


def screen(
    model: LanguageModel,
    head: FinalHead,
    rows: TokenRows,
    layer: int,
    batch: ScoredBatch,
    captured: LayerCapture,
    value: Float[Tensor, " d_mlp"],
    weight: Float[Tensor, "token_class scored"],
) -> Float[Tensor, "token_class batch d_mlp"]:
    """First-order change of the weighted sum of losses, in nats, by class, context and neuron.

    One forward pass from the layer on, one backward pass a row of `weight`. Contexts do not read
    each other, so that their parts come apart.
    """
    clean = clean_pass(head, batch.scored(captured.final), batch.target)
    at_end = push_gradient(head, rows, clean, batch.target)
    change = (value - captured.post) * batch.ablated[..., None]
    gradients = gradients_at(model, layer, batch, captured, weight[..., None] * at_end)
    at_post = gradients @ W_out_of(model, layer).T
    return torch.einsum("cbpn,bpn->cbn", at_post, change)


def gradients_at(
    model: LanguageModel,
    layer: int,
    batch: ScoredBatch,
    captured: LayerCapture,
    at_end: Float[Tensor, "token_class scored d_model"],
) -> Float[Tensor, "token_class batch pos d_model"]:
    """Gradients by the residual leaving `layer`, from those before the final norm."""
    with torch.enable_grad():
        resid = captured.resid.detach().requires_grad_()
        final = run_from(model, resid, layer)
    found = []
    for gradient in at_end:
        full = torch.zeros_like(captured.final)
        full[batch.place, batch.pos] = gradient
        found.append(torch.autograd.grad(final, resid, full, retain_graph=True)[0])
    return torch.stack(found)
