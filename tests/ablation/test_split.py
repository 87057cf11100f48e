"""The estimate from a few tokens, against the sum over the vocabulary."""

import math
from dataclasses import replace

import pytest
import torch

from raretok.ablation.head import clean_pass, final_head
from raretok.ablation.split import (
    delta_of_push,
    delta_of_pushes,
    estimate,
    push_gradient,
    split_vocabulary,
)
from raretok.ablation.tokens import doubt
from tests.ablation.reference import largest


@pytest.fixture
def pushed(model, scored):
    """Head, clean pass, pushes of neurons and larger ones, and their exact effects, in float64."""
    head = final_head(model, torch.float64)
    clean = clean_pass(head, scored.resid.double(), scored.target)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(scored.post), 3, 16, generator=generator, dtype=torch.float64)
    push = torch.cat([0.1 * noise, noise], dim=1)
    if head.centred:
        push = push - push.mean(dim=2, keepdim=True)
    exact = [delta_of_push(head, clean, push[:, i], scored.target) for i in range(6)]
    return head, clean, push, torch.stack(exact, dim=1)


def offsets(n, seed=0):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def split_of(head, clean, target, **sizes):
    return split_vocabulary(head, clean, target, offsets(len(target)), **sizes)


def test_all_tokens_in_the_head_are_exact(pushed, scored):
    head, clean, push, exact = pushed
    split = split_of(head, clean, scored.target, n_head=300)
    found, variance = estimate(clean, split, push)
    assert largest(found - exact) < 1e-12
    assert largest(variance) == 0


def test_it_is_off_by_no_more_than_its_standard_error_says(pushed, scored):
    head, clean, push, exact = pushed
    split = split_of(head, clean, scored.target, n_head=32, n_tail=32)
    found, variance = estimate(clean, split, push)
    assert largest(found - exact) > 1e-6  # it is an estimate
    in_errors = (found - exact) / variance.sqrt()
    assert float(in_errors.square().mean().sqrt()) < 1.5


def test_the_sampled_sum_is_unbiased(pushed, scored):
    head, clean, push, exact = pushed
    n_draws, n_pos = 400, len(scored.target)
    at_once = 20  # draws in one call
    many = clean.at(torch.arange(n_pos).repeat(at_once))
    target, pushes = scored.target.repeat(at_once), push.repeat(at_once, 1, 1)
    sums = torch.zeros_like(exact)
    steps = (torch.arange(n_draws, dtype=torch.float64) + 0.5) / n_draws
    # Over a fine grid of offsets each tail token is drawn as often as its score says.
    for offset in steps.repeat_interleave(n_pos).split(at_once * n_pos):
        split = split_vocabulary(head, many, target, offset, n_head=16, n_tail=4)
        x_target = _change_of_target(head, many, split, pushes)
        changes = (estimate(many, split, pushes)[0] + x_target).exp() - 1
        sums += changes.view(at_once, n_pos, -1).sum(dim=0)
    x_target = x_target[:n_pos]
    expected = (exact + x_target).exp() - 1
    small = slice(0, 3)
    torch.testing.assert_close(sums[:, small] / n_draws, expected[:, small], rtol=0.03, atol=1e-5)


def _change_of_target(head, clean, split, push):
    growth = (push * (2 * clean.resid[:, None] + push)).mean(dim=2)
    scale = (clean.var + growth).sqrt()
    along = torch.einsum("pcd,pd->pc", push, split.direction[:, -1])
    return (clean.var.sqrt() / scale - 1) * split.z[:, -1:] + along / scale


@pytest.mark.parametrize("pair_error", [0.0, 1e-4, math.inf])
def test_poor_pairs_are_summed_in_full(pushed, scored, pair_error):
    head, clean, push, exact = pushed
    split = split_of(head, clean, scored.target, n_head=32, n_tail=32)
    inputs = (head, clean, split, push, scored.target)
    found = delta_of_pushes(*inputs, pair_error=pair_error)
    estimated, variance = estimate(clean, split, push)
    in_full = doubt(split.picked.n_probe) * variance > pair_error**2
    assert torch.equal(found[~in_full], estimated[~in_full])
    torch.testing.assert_close(found[in_full], exact[in_full], rtol=1e-10, atol=1e-12)
    assert in_full.all() == (pair_error == 0)


def test_what_float32_cannot_hold_is_summed_in_full(model, scored):
    head = final_head(model)
    head = replace(head, G=100 * head.G)  # changes of hundreds of nats
    clean = clean_pass(head, scored.resid, scored.target)
    push = 10 * head.W_out[:1].expand(len(scored.target), 1, 16)
    split = split_of(head, clean, scored.target)
    beyond = ~estimate(clean, split, push)[0].isfinite()
    found = delta_of_pushes(head, clean, split, push, scored.target, pair_error=math.inf)
    exact = delta_of_push(head, clean, push[:, 0], scored.target)
    assert beyond.any()
    assert found.isfinite().all()
    torch.testing.assert_close(found[:, 0][beyond[:, 0]], exact[beyond[:, 0]])


def test_the_gradient_is_the_first_order(pushed, scored):
    head, clean, push, _ = pushed
    gradient = push_gradient(head, clean, scored.target)
    eps = 1e-5
    for i in range(6):
        up, down = (
            delta_of_push(head, clean, step * push[:, i], scored.target) for step in (eps, -eps)
        )
        expected = (gradient * push[:, i]).sum(dim=1)
        torch.testing.assert_close((up - down) / (2 * eps), expected, rtol=1e-6, atol=1e-7)
