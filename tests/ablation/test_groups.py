"""Groups of neurons ablated together, against the closed form of one and against brute force."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import FinalHead, final_head
from raretok.ablation.split import group_delta_loss
from tests.ablation.reference import largest

GROUPS = ([0], [7, 3], [5, 5 + 16, 40, 41, 47], list(range(48)))


def inputs(model, scored):
    head = final_head(model, torch.float64)
    change = scored.mean.double() - scored.post.double()
    return head, scored.resid.double(), change, scored.target


def changed(head, resid, change, target, groups):
    """Of activations that are zero."""
    return group_delta_loss(head, resid, torch.zeros_like(change), target, change, groups)


def normed(norm, resid):
    """The final norm without gain and bias; `norm` says whether it centres, and its epsilon."""
    if norm.centred:
        resid = resid - resid.mean(dim=1, keepdim=True)
    return resid / (resid.square().mean(dim=1, keepdim=True) + norm.eps).sqrt()


def loss(model, resid, target):
    """Loss of the final norm and the unembedding, written out."""
    norm = SimpleNamespace(centred=model.architecture.norm == "LayerNorm", eps=model.eps)
    scaled = normed(norm, resid) * model.gain.double() + model.bias.double()
    log_p = (scaled @ model.W_U.double() + model.b_U.double()).log_softmax(dim=1)
    return -log_p.gather(1, target[:, None]).squeeze(1)


def brute_force(model, resid, change, target, groups):
    """The loss with the changed residual less the loss with the residual as it was."""
    W_out, found = model.W_out.double(), []
    for members in groups:
        pushed = resid + change[:, members] @ W_out[members]
        found.append(loss(model, pushed, target) - loss(model, resid, target))
    return torch.stack(found, dim=1)


def test_a_group_of_one_is_the_neuron_of_the_closed_form(model, scored):
    head, resid, change, target = inputs(model, scored)
    groups = [torch.tensor([neuron]) for neuron in range(48)]
    single = delta_loss(
        head, resid, scored.post.double(), target, scored.mean.double(), tolerance=0.0
    )
    found = changed(head, resid, change, target, groups)
    assert largest(single) > 0.1
    assert largest(found - single) < 1e-9


def test_a_group_equals_brute_force(model, scored):
    """Families with LayerNorm, which centres, and with RMSNorm, which does not."""
    head, resid, change, target = inputs(model, scored)
    groups = [torch.tensor(one) for one in GROUPS]
    found = changed(head, resid, change, target, groups)
    exact = brute_force(model, resid, change, target, groups)
    assert largest(exact) > 0.1
    assert largest(found - exact) < 1e-9


@pytest.mark.parametrize("strength", [30.0, 1e3, 1e5])
def test_a_large_group_stays_finite_and_exact(model, scored, strength):
    head, resid, change, target = inputs(model, scored)
    every = [torch.arange(48)]
    found = changed(head, resid, strength * change, target, every)
    exact = brute_force(model, resid, strength * change, target, every)
    assert torch.isfinite(found).all()
    assert largest(found - exact) < 1e-8


@pytest.mark.parametrize(("dtype", "spread"), [(torch.float64, 600), (torch.float32, 80)])
def test_changes_of_many_nats_stay_exact(model, scored, dtype, spread):
    """Logits nearly as far apart as probabilities of this precision can say."""
    head, resid, change, target = inputs(model, scored)
    logits = normed(head, resid) @ head.G
    factor = spread / (logits.amax(dim=1) - logits.amin(dim=1)).max()
    sharp = replace(head, G=factor * head.G, logit_bias=0 * head.logit_bias)
    before, after = (
        (normed(head, one) @ sharp.G).log_softmax(dim=1).gather(1, target[:, None]).squeeze(1)
        for one in (resid, resid + 10 * change @ head.W_out)
    )
    assert largest(after - before) > spread / 5
    parts = vars(sharp) | {
        name: one.to(dtype) for name, one in vars(sharp).items() if isinstance(one, torch.Tensor)
    }
    given = (resid.to(dtype), 10 * change.to(dtype), target)
    found = changed(replace(sharp, **parts), *given, [torch.arange(48)])
    assert largest(found[:, 0] - (before - after)) < 100 * spread * torch.finfo(dtype).eps


def test_a_certain_token_that_is_pushed_down_keeps_its_digits():
    """In float32 the probability of all others, 1e-10, is lost beside 1."""

    def found(dtype, target):
        resid, W_out, G = (
            torch.zeros(*shape, dtype=dtype) for shape in ((1, 64), (1, 64), (64, 50))
        )
        resid[0, 0], G[0, 0] = 8, 3.2
        W_out[0, :2] = torch.tensor([-6.0, 60**0.5])  # turns the residual, and leaves its length
        length, bias = W_out.square().sum(dim=1), torch.zeros(50, dtype=dtype)
        head = FinalHead(W_out, length, G, bias, eps=0.0, centred=False)
        ones = torch.ones(1, 1, dtype=dtype)
        every = [torch.tensor([0])]
        return changed(head, resid, ones, torch.tensor([target]), every).item()

    log_p = [[logit - math.log(math.exp(logit) + 49) for logit in (25.6, 6.4)]]
    log_p.append([-math.log(math.exp(logit) + 49) for logit in (25.6, 6.4)])
    for target, (before, after) in enumerate(log_p):
        assert found(torch.float64, target) == pytest.approx(before - after, rel=1e-6)
        assert found(torch.float32, target) == pytest.approx(before - after, rel=1e-4)


def test_an_order_of_members_and_blocks_does_not_matter(model, scored, monkeypatch):
    head, resid, change, target = inputs(model, scored)
    groups = [torch.tensor([4, 9, 30])]
    found = changed(head, resid, change, target, groups)
    other = changed(head, resid, change, target, [groups[0].flip(0)])
    torch.testing.assert_close(found, other, atol=1e-12, rtol=0)
    monkeypatch.setattr("raretok.ablation.head.POSITION_BUDGET", 4 * 300)
    other = changed(head, resid, change, target, groups)
    torch.testing.assert_close(found, other, atol=1e-12, rtol=0)


def test_in_float32_it_is_as_good_as_the_closed_form(model, scored):
    change = scored.mean - scored.post
    groups = [torch.tensor(one) for one in GROUPS]
    found = changed(final_head(model), scored.resid, change, scored.target, groups)
    exact = brute_force(model, *inputs(model, scored)[1:], groups)
    assert found.dtype == torch.float32
    assert largest(found - exact) < 2e-5
