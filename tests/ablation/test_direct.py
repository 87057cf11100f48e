"""The direct effect: the final norm divides by the scale it has without the ablation."""

import pytest
import torch

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import FinalHead, final_head
from raretok.errors import UserError
from tests.ablation.reference import brute_force, largest


def doubled(scored):
    return scored.resid.double(), scored.post.double(), scored.target, scored.mean.double()


def test_it_equals_modules_with_a_frozen_scale(model, scored):
    exact = brute_force(model, scored, effect="direct")
    inputs = (scored.resid, scored.post, scored.target, scored.mean)
    found = delta_loss(final_head(model), *inputs, effect="direct")
    assert largest(found - exact) < 2e-6
    head = final_head(model, torch.float64)
    in_full = delta_loss(head, *doubled(scored), tolerance=0.0, effect="direct")
    assert largest(in_full - exact) < 1e-12
    assert largest(brute_force(model, scored) - exact) > 1e-2  # the scale does matter


@pytest.mark.filterwarnings("ignore:A forward hook edited")  # TransformerLens, of what is tested
def test_it_equals_hooks_that_freeze_the_scale_of_the_whole_model(model, tokens, scored):
    """The model run again as TransformerLens does it: `ln_final.hook_scale` kept as it was."""
    layer, neuron = model.architecture.n_layers - 1, 7
    _, cache = model.bridge.run_with_cache(tokens, names_filter=["ln_final.hook_scale"])

    def replace(post, hook):
        post = post.clone()
        post[..., neuron] = scored.mean[neuron]
        return post

    def loss(hooks):
        logits = model.bridge.run_with_hooks(tokens, return_type="logits", fwd_hooks=hooks)
        log_p = logits[:, :-1].double().log_softmax(dim=-1)
        return -log_p.gather(-1, tokens[:, 1:, None]).flatten()

    def freeze(scale, hook):
        return cache["ln_final.hook_scale"]

    hooks = [(f"blocks.{layer}.mlp.hook_post", replace), ("ln_final.hook_scale", freeze)]
    expected = loss(hooks) - loss([])
    inputs = (scored.resid, scored.post, scored.target, scored.mean)
    found = delta_loss(final_head(model), *inputs, neurons=torch.tensor([neuron]), effect="direct")[
        :, 0
    ]
    assert largest(expected) > 1e-3
    assert largest(found - expected) < 5e-6


def test_it_is_the_total_effect_where_the_scale_stays(model, scored):
    """Reflecting the residual along a neuron's weights keeps its length, hence the scale."""
    head = final_head(model, torch.float64)
    resid, post, target, _ = doubled(scored)
    centred = resid - resid.mean(dim=1, keepdim=True) if head.centred else resid
    reflected = post - 2 * (centred @ head.W_out.T) / head.W_out_sq
    total, direct = (
        delta_loss(head, resid, post, target, reflected, effect=effect)
        for effect in ("total", "direct")
    )
    assert largest(total) > 0.1
    assert largest(total - direct) < 1e-9


def test_a_push_along_the_residual_has_a_direct_effect_only(scored):
    """It multiplies residual and scale alike: the norm undoes it, unless its scale is frozen."""
    resid, target = scored.resid[:1].double(), scored.target[:1]
    head = FinalHead(
        W_out=resid,
        W_out_sq=resid.square().sum(dim=1),
        G=torch.randn(16, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        logit_bias=torch.zeros(300, dtype=torch.float64),
        eps=0.0,
        centred=False,
    )
    post, grown = torch.zeros(1, 1).double(), torch.ones(1).double()
    inputs = (head, resid, post, target, grown)
    assert largest(delta_loss(*inputs)) < 1e-12
    z = resid / resid.square().mean().sqrt() @ head.G
    by_hand = (z - 2 * z)[0, target] + (2 * z).logsumexp(1) - z.logsumexp(1)
    torch.testing.assert_close(delta_loss(*inputs, effect="direct")[0], by_hand)


def test_an_unknown_effect_is_refused(model, scored):
    inputs = (scored.resid, scored.post, scored.target)
    with pytest.raises(UserError, match="unknown effect 'indirect': choose one of total, direct"):
        delta_loss(final_head(model), *inputs, scored.mean, effect="indirect")
