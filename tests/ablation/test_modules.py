"""The module path, for models that the closed form refuses: Gemma 2 and 3 against whole runs."""

import pytest
import torch

from raretok.ablation import modules
from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import EFFECTS, final_head
from raretok.ablation.modules import delta_loss_neurons
from raretok.errors import UserError
from tests.ablation.reference import at_scored_positions, largest

CHOSEN = torch.tensor([5, 0, 47])


def whole_run(model, tokens, neuron, value, effect):
    """The model run with one activation replaced by hooks, and again without."""
    layer = model.architecture.n_layers - 1
    _, cache = model.bridge.run_with_cache(tokens, names_filter=["ln_final.hook_scale"])

    def replace(post, hook):
        post = post.clone()
        post[..., neuron] = value
        return post

    def freeze(scale, hook):
        return cache["ln_final.hook_scale"]

    def loss(hooks):
        logits = model.bridge.run_with_hooks(tokens, return_type="logits", fwd_hooks=hooks)
        log_p = logits[:, :-1].double().log_softmax(dim=-1)
        return -log_p.gather(-1, tokens[:, 1:, None]).flatten()

    hooks = [(f"blocks.{layer}.mlp.hook_post", replace)]
    if effect == "direct":
        hooks.append(("ln_final.hook_scale", freeze))
    return loss(hooks) - loss([])


@pytest.mark.filterwarnings("ignore:A forward hook edited")  # as it should
@pytest.mark.parametrize("effect", EFFECTS)
def test_sandwich_norm_and_soft_cap_are_served(gemma, tokens, effect):
    scored = at_scored_positions(gemma, tokens)
    inputs = (scored.resid, scored.post, scored.target, scored.mean)
    found = delta_loss_neurons(gemma, *inputs, CHOSEN, effect=effect)
    for column, neuron in enumerate(CHOSEN.tolist()):
        expected = whole_run(gemma, tokens, neuron, scored.mean[neuron], effect)
        assert largest(expected) > 1e-3
        assert largest(found[:, column] - expected) < 1e-5


def test_it_is_the_closed_form_where_that_holds(model, scored, monkeypatch):
    monkeypatch.setattr(modules, "PAIR_BUDGET", 7 * 300)  # blocks of 7 positions
    other = scored.post.roll(1, dims=0)
    inputs = (scored.resid, scored.post, scored.target, other)
    found = delta_loss_neurons(model, *inputs, CHOSEN)
    assert found.shape == (38, 3)
    assert largest(found - delta_loss(final_head(model), *inputs, neurons=CHOSEN)) < 3e-6


def test_a_neuron_outside_the_layer_is_refused(gemma, tokens):
    scored = at_scored_positions(gemma, tokens)
    inputs = (scored.resid, scored.post, scored.target, scored.mean)
    with pytest.raises(UserError, match="neuron 48 is outside the layer: choose from 0 to 47"):
        delta_loss_neurons(gemma, *inputs, torch.tensor([3, 48]))
