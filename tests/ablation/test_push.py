"""What any push on the final residual does, here of groups of neurons, against the real modules."""

from dataclasses import replace

import pytest
import torch

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import FinalHead, clean_pass, final_head
from raretok.ablation.split import delta_of_push
from tests.ablation.modules import delta_loss_replaced, real_modules
from tests.ablation.reference import largest

# Overlapping groups of 2, 12, about half and all of the 48 neurons, and one without a member.
GROUPS = torch.zeros(5, 48, dtype=torch.bool)
GROUPS[0, [3, 40]] = True
GROUPS[1, ::4] = True
GROUPS[2] = torch.rand(48, generator=torch.Generator().manual_seed(0)) < 0.5
GROUPS[3] = True


def of_groups(model, scored, new, groups=GROUPS, dtype=torch.float32):
    """Each group replaced by `new`, through the push that it is."""
    head = final_head(model, dtype)
    clean = clean_pass(head, scored.resid.to(dtype), scored.target)
    change = (new - scored.post).to(dtype)
    pushes = [change[:, members] @ head.W_out[members] for members in groups]
    found = [delta_of_push(head, clean, push, scored.target) for push in pushes]
    return torch.stack(found, dim=1)


def through_modules(model, scored, new):
    modules, inputs = real_modules(model), (scored.resid, scored.post)
    changed = [torch.where(members, new, scored.post) for members in GROUPS]
    found = [delta_loss_replaced(modules, *inputs, one, scored.target) for one in changed]
    return torch.stack(found, dim=1)


def test_a_flat_prediction_pushed_to_one_token_keeps_its_digits():
    """All others lose what that one gains: relative to it the sum over them is near -1."""
    G = torch.zeros(2, 20_000, dtype=torch.float64)
    G[0, 0] = 70.7
    sizes = {"W_out": torch.ones(1, 2).double(), "W_out_sq": torch.ones(1).double()}
    head = FinalHead(**sizes, G=G, logit_bias=0 * G[0], eps=0.0, centred=False)
    resid, push = torch.tensor([[1e-3, 1.0]]).double(), torch.tensor([[0.12, 0.0]]).double()
    target = torch.tensor([7])
    found = {}
    for dtype in (torch.float32, torch.float64):
        own = replace(head, **{n: v.to(dtype) for n, v in vars(head).items() if torch.is_tensor(v)})
        clean = clean_pass(own, resid.to(dtype), target, double=False)
        found[dtype] = float(delta_of_push(own, clean, push.to(dtype), target)[0])
    assert found[torch.float64] > 2
    assert abs(found[torch.float32] - found[torch.float64]) < 5e-6


def test_it_equals_the_real_modules(model, scored):
    for new in (scored.mean, scored.post.roll(1, dims=0)):
        exact = through_modules(model, scored, new)
        found = of_groups(model, scored, new)
        assert found.dtype == torch.float32
        assert largest(exact) > 1
        assert largest(found - exact) < 1e-5
        assert largest(found[:, 4]) == 0
    wide = torch.float64
    scored.resid, scored.post, new = scored.resid.to(wide), scored.post.to(wide), new.to(wide)
    assert largest(of_groups(model, scored, new, dtype=wide) - exact) < 1e-11


def test_groups_of_one_are_single_neurons(model, scored):
    found = of_groups(model, scored, scored.mean, torch.eye(48, dtype=torch.bool))
    expected = delta_loss(final_head(model), scored.resid, scored.post, scored.target, scored.mean)
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
    found = of_groups(model, scored, scored.mean)[:, 2]
    assert largest(expected) > 0.1
    assert largest(found - expected) < 2e-5


def test_a_change_beyond_float32_stays_finite_and_right(model, scored):
    head = final_head(model)
    head = replace(head, G=100 * head.G)  # changes of hundreds of nats
    push = 10 * head.W_out[:1].expand(len(scored.target), 16)
    found = delta_of_push(head, clean_pass(head, scored.resid, scored.target), push, scored.target)
    wide = replace(head, G=head.G.double(), logit_bias=head.logit_bias.double())
    before, after = (
        clean_pass(wide, resid.double(), scored.target).loss
        for resid in (scored.resid, scored.resid.double() + push.double())
    )
    assert largest(after - before) > 100
    torch.testing.assert_close(found.double(), after - before, rtol=1e-4, atol=1e-2)


def plain_loss(head, resid, target):
    """Loss of the final norm, the unembedding and a soft cap, written out in float64."""
    resid, G, bias = resid.double(), head.G.double(), head.logit_bias.double()
    if head.centred:
        resid = resid - resid.mean(dim=1, keepdim=True)
    logits = resid / (resid.square().mean(dim=1, keepdim=True) + head.eps).sqrt() @ G + bias
    if head.softcap:
        logits = head.softcap * (logits / head.softcap).tanh()
    return -logits.log_softmax(dim=1).gather(1, target[:, None]).squeeze(1)


@pytest.mark.parametrize("softcap", [None, 3.0, 30.0])
@pytest.mark.parametrize("sharper", [1.0, 10.0, 100.0])
@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_a_push_of_any_size_equals_brute_force(model, scored, softcap, sharper, dtype, digits):
    """Also where every logit stands at the cap, and where a change is beyond float32."""
    head = final_head(model, dtype)
    head = replace(head, G=sharper * head.G, softcap=softcap)
    resid, target = scored.resid.to(dtype), scored.target
    clean = clean_pass(head, resid, target)
    change = (scored.mean - scored.post).to(dtype) @ head.W_out
    before = plain_loss(head, resid, target)
    for strength in (1e-4, 1.0, 30.0, 1e3, 1e6):
        push = strength * change
        found = delta_of_push(head, clean, push, target)
        expected = plain_loss(head, resid.double() + push.double(), target) - before
        # Of the logits, whose rounding the loss has.
        size = sharper * largest(clean.z) + 10
        assert largest(found - expected) < digits * size
