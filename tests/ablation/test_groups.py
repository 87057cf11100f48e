"""Groups of neurons ablated together, against the real modules and against single neurons."""

from dataclasses import replace

import pytest
import torch

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.groups import delta_loss_group
from raretok.ablation.head import EFFECTS, final_head
from raretok.ablation.modules import delta_loss_replaced, real_modules
from raretok.errors import UserError
from tests.ablation.reference import largest

# Overlapping groups of 2, 12, about half and all of the 48 neurons.
GROUPS = torch.zeros(4, 48, dtype=torch.bool)
GROUPS[0, [3, 40]] = True
GROUPS[1, ::4] = True
GROUPS[2] = torch.rand(48, generator=torch.Generator().manual_seed(0)) < 0.5
GROUPS[3] = True


def through_modules(model, scored, groups, replacement, effect):
    modules, inputs = real_modules(model), (scored.resid, scored.post)
    return torch.stack(
        [
            delta_loss_replaced(
                modules,
                *inputs,
                torch.where(members, replacement, scored.post),
                scored.target,
                effect=effect,
            )
            for members in groups
        ],
        dim=1,
    )


@pytest.mark.parametrize("effect", EFFECTS)
def test_it_equals_the_real_modules(model, scored, effect):
    exact = through_modules(model, scored, GROUPS, scored.mean, effect)
    inputs = (scored.resid, scored.post, scored.target, scored.mean)
    found = delta_loss_group(final_head(model), *inputs, GROUPS, effect=effect)
    assert found.dtype == torch.float32
    assert largest(exact) > 1
    assert largest(found - exact) < 1e-5
    doubled = (scored.resid.double(), scored.post.double(), scored.target, scored.mean.double())
    head = final_head(model, torch.float64)
    assert largest(delta_loss_group(head, *doubled, GROUPS, effect=effect) - exact) < 1e-11


@pytest.mark.parametrize("effect", EFFECTS)
def test_groups_of_one_are_single_neurons(model, scored, effect):
    inputs = (scored.resid, scored.post, scored.target, scored.mean)
    alone = torch.eye(48, dtype=torch.bool)
    found = delta_loss_group(final_head(model), *inputs, alone, effect=effect)
    expected = delta_loss(final_head(model), *inputs, effect=effect)
    assert largest(found - expected) < 3e-6


def test_it_equals_hooks_on_the_whole_model(model, tokens, scored):
    layer = model.architecture.n_layers - 1

    def ablate_group(post, hook):
        return torch.where(GROUPS[2], scored.mean, post)

    def loss(hooks):
        logits = model.bridge.run_with_hooks(tokens, return_type="logits", fwd_hooks=hooks)
        log_p = logits[:, :-1].double().log_softmax(dim=-1)
        return -log_p.gather(-1, tokens[:, 1:, None]).flatten()

    expected = loss([(f"blocks.{layer}.mlp.hook_post", ablate_group)]) - loss([])
    inputs = (scored.resid, scored.post, scored.target, scored.mean)
    found = delta_loss_group(final_head(model), *inputs, GROUPS)[:, 2]
    assert largest(expected) > 0.1
    assert largest(found - expected) < 2e-5


def test_a_neuron_and_its_copy_together_do_what_neither_does_alone(model, scored):
    """Redundancy: half of a push each; together the push, whose effect is not the sum."""
    head, inputs = final_head(model), (scored.resid, scored.post, scored.target)
    twice = torch.zeros_like(scored.mean)
    pair = torch.zeros(3, 48, dtype=torch.bool)
    pair[0, 1] = pair[1, 2] = pair[2, 1] = pair[2, 2] = True
    W_out = head.W_out.index_copy(0, torch.tensor([2]), head.W_out[1:2])
    copied = replace(head, W_out=W_out)
    post = scored.post.index_copy(1, torch.tensor([2]), scored.post[:, 1:2])
    found = delta_loss_group(copied, inputs[0], post, inputs[2], twice, pair)
    assert largest(found[:, 0] - found[:, 1]) < 1e-6
    doubled = delta_loss(head, *inputs, -scored.post, neurons=torch.tensor([1]))[:, 0]
    assert largest(found[:, 2] - doubled) < 3e-6
    assert largest(found[:, 2] - found[:, 0] - found[:, 1]) > 1e-3


def test_replacements_of_each_position_and_an_empty_group(model, scored):
    other = scored.post.roll(1, dims=0)
    groups = torch.cat([GROUPS, torch.zeros(1, 48, dtype=torch.bool)])
    exact = through_modules(model, scored, groups, other, "total")
    inputs = (scored.resid, scored.post, scored.target, other)
    found = delta_loss_group(final_head(model), *inputs, groups)
    assert largest(found - exact) < 1e-5
    assert largest(found[:, 4]) == 0
    none = (scored.resid[:0], scored.post[:0], scored.target[:0], scored.mean)
    assert delta_loss_group(final_head(model), *none, groups).shape == (0, 5)


def test_a_change_beyond_float32_stays_finite_and_right(model, scored):
    far = scored.mean + 1000
    exact = through_modules(model, scored, GROUPS, far, "direct")
    inputs = (scored.resid, scored.post, scored.target, far)
    found = delta_loss_group(final_head(model), *inputs, GROUPS, effect="direct")
    assert largest(exact) > 1000
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-2)


def test_blocks_of_positions_do_not_change_the_numbers(model, scored, monkeypatch):
    inputs = (scored.resid, scored.post, scored.target, scored.mean, GROUPS)
    at_once = delta_loss_group(final_head(model), *inputs)
    monkeypatch.setattr("raretok.ablation.head.POSITION_BUDGET", 4 * 300)
    assert largest(delta_loss_group(final_head(model), *inputs) - at_once) < 1e-5


def test_groups_over_another_layer_are_refused(model, scored):
    inputs = (scored.resid, scored.post, scored.target, scored.mean)
    with pytest.raises(UserError, match="groups mark 40 neurons, the layer has 48: give one"):
        delta_loss_group(final_head(model), *inputs, GROUPS[:, :40])
