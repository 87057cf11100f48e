"""The closed form against brute force: real modules in float64, and TransformerLens's own hooks."""

import math

import pytest
import torch

from raretok.ablation import closed_form
from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import FinalHead, clean_loss, final_head
from tests.ablation.reference import brute_force, largest


@pytest.mark.parametrize("tolerance", [closed_form.TOLERANCE, 0.0])
def test_it_equals_brute_force_in_float32(model, scored, tolerance):
    exact = brute_force(model, scored)
    found = delta_loss(
        final_head(model),
        scored.resid,
        scored.post,
        scored.target,
        scored.mean,
        tolerance=tolerance,
    )
    assert found.dtype == torch.float32
    assert largest(exact) > 0.1
    assert largest(found - exact) < 2e-6
    assert largest((found - exact).mean(dim=0)) < 1e-7


def test_it_equals_brute_force_in_float64(model, scored):
    exact = brute_force(model, scored)
    head = final_head(model, torch.float64)
    inputs = (scored.resid.double(), scored.post.double(), scored.target, scored.mean.double())
    assert largest(delta_loss(head, *inputs, tolerance=0.0) - exact) < 1e-12
    series = delta_loss(head, *inputs)
    assert 1e-13 < largest(series - exact) < closed_form.TOLERANCE


def test_the_bound_of_the_series_holds_and_is_used(model, scored, monkeypatch):
    """With a wide tolerance the series decides more pairs, none further off than allowed."""
    head = final_head(model, torch.float64)
    inputs = (scored.resid.double(), scored.post.double(), scored.target, scored.mean.double())
    exact = delta_loss(head, *inputs, tolerance=0.0)
    chosen = []
    real = closed_form._sum_in_full

    def counting(shift, p, at_target, pairs, *, out):
        chosen.append(int(pairs.sum()))
        real(shift, p, at_target, pairs, out=out)

    monkeypatch.setattr(closed_form, "_sum_in_full", counting)
    for tolerance in (1e-9, 1e-6, 1e-3):
        assert largest(delta_loss(head, *inputs, tolerance=tolerance) - exact) < tolerance
    assert exact.numel() > chosen[0] > chosen[1] > chosen[2] > 0


def test_small_effects_keep_their_digits(model, scored):
    """A thousandth of a change has about a thousandth of the effect, to five digits or more."""
    head = final_head(model)
    tiny = scored.post + 1e-6 * (scored.mean - scored.post)
    found = delta_loss(head, scored.resid, scored.post, scored.target, tiny)
    change = (tiny - scored.post).double()
    exact = delta_loss(
        final_head(model, torch.float64),
        scored.resid.double(),
        scored.post.double(),
        scored.target,
        scored.post.double() + change,
        tolerance=0.0,
    )
    assert largest(exact) < 1e-4
    assert largest(found - exact) < 1e-5 * largest(exact)


def test_it_equals_ablation_by_hooks(model, tokens, scored):
    """The whole model run again with one activation replaced, as TransformerLens does it."""
    layer = model.architecture.n_layers - 1
    shape = (tokens.shape[0], tokens.shape[1] - 1)

    def loss(**hooks):
        logits = model.bridge.run_with_hooks(tokens, return_type="logits", **hooks)
        log_p = logits[:, :-1].double().log_softmax(dim=-1)
        return -log_p.gather(-1, tokens[:, 1:, None]).squeeze(-1)

    found = delta_loss(final_head(model), scored.resid, scored.post, scored.target, scored.mean)
    for neuron in (0, 7, 47):

        def replace(post, hook, neuron=neuron):
            post = post.clone()
            post[..., neuron] = scored.mean[neuron]
            return post

        ablated = loss(fwd_hooks=[(f"blocks.{layer}.mlp.hook_post", replace)])
        assert largest(ablated - loss()) > 1e-3
        assert largest(found[:, neuron].view(shape) - (ablated - loss())) < 5e-6


def test_clean_loss_is_that_of_the_model(model, tokens, scored):
    expected = model.bridge(tokens, return_type="loss", loss_per_token=True).flatten()
    found = clean_loss(final_head(model), scored.resid, scored.target)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_neurons_and_replacements_of_each_position(model, scored):
    head = final_head(model)
    every = delta_loss(head, scored.resid, scored.post, scored.target, scored.mean)
    some = torch.tensor([40, 3])
    each = scored.mean.expand_as(scored.post)
    found = delta_loss(head, scored.resid, scored.post, scored.target, each, neurons=some)
    torch.testing.assert_close(found, every[:, some], atol=1e-6, rtol=0)
    kept = delta_loss(head, scored.resid, scored.post, scored.target, scored.post)
    assert largest(kept) == 0


def test_blocks_do_not_change_the_numbers(model, scored, monkeypatch):
    head = final_head(model)
    inputs = (scored.resid[:11], scored.post[:11], scored.target[:11], scored.mean)
    at_once = delta_loss(head, *inputs)
    monkeypatch.setattr("raretok.ablation.head.POSITION_BUDGET", 4 * 300)
    monkeypatch.setattr(closed_form, "NEURONS", 20)
    monkeypatch.setitem(closed_form.TILE, "cpu", 3 * 300)
    torch.testing.assert_close(delta_loss(head, *inputs), at_once, atol=1e-6, rtol=0)


def test_two_tokens_by_hand():
    """RMSNorm of (1, 1) is (1, 1); removing the second entry gives (sqrt 2, 0)."""
    head = FinalHead(
        W_out=torch.tensor([[0.0, 1.0]]),
        W_out_sq=torch.ones(1),
        G=torch.eye(2),
        logit_bias=torch.zeros(2),
        eps=0.0,
        centred=False,
    )
    found = delta_loss(
        head, torch.ones(1, 2), torch.ones(1, 1), torch.tensor([1]), torch.zeros(1), tolerance=0.0
    )
    by_hand = math.log(1 + math.exp(math.sqrt(2))) - math.log(2)
    assert found.item() == pytest.approx(by_hand, abs=1e-6)


def test_no_position_gives_no_row(model, scored):
    head = final_head(model)
    none = delta_loss(head, scored.resid[:0], scored.post[:0], scored.target[:0], scored.mean)
    assert none.shape == (0, 48)
