"""The fast path: unbiased, exact in the first order, as precise as asked for."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from raretok.ablation import head as constants
from raretok.ablation import method, sampled
from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import FinalHead, clean_pass, final_head
from raretok.ablation.method import (
    check_tolerance,
    choose_plan,
    pair_error,
    pilot_positions,
    variance_of_a_draw,
)
from raretok.ablation.sampled import Plan, curvature, estimate, push_of
from raretok.ablation.tokens import Cumulated, rank_tokens, systematic
from raretok.errors import UserError
from tests.ablation.reference import brute_force, largest

LOOSE = math.inf  # no pair is summed in full
N_DRAWS, AT_ONCE = 300, 20  # draws, and how many of them go through one call


def estimated(model, scored, plan, offset=0.5, effect="total"):
    offsets = torch.full((len(scored.post),), offset, dtype=torch.float64)
    rows = (scored.resid, scored.post, scored.target, scored.mean, offsets)
    return estimate(final_head(model), plan, *rows, effect=effect)


def random_head(d_vocab=2000, d_model=32, d_mlp=40, seed=0) -> FinalHead:
    """A head on its own, with a vocabulary that a few tokens cannot stand for exactly."""
    g = torch.Generator().manual_seed(seed)
    W_out = 0.5 * torch.randn(d_mlp, d_model, generator=g)
    G = torch.randn(d_model, d_vocab, generator=g)
    G = 0.3 * (G - G.mean(dim=1, keepdim=True))
    bias = torch.randn(d_vocab, generator=g)
    return FinalHead(W_out, W_out.square().sum(dim=1), G, bias, 1e-5, centred=False)


def random_rows(head, n_pos=12, seed=1):
    g = torch.Generator().manual_seed(seed)
    d_mlp, d_model = head.W_out.shape
    resid, post = torch.randn(n_pos, d_model, generator=g), torch.randn(n_pos, d_mlp, generator=g)
    return resid, post, torch.randint(head.G.shape[1], (n_pos,), generator=g), torch.zeros(d_mlp)


@pytest.mark.parametrize("effect", ["total", "direct"])
def test_with_every_token_in_the_head_it_equals_brute_force(model, scored, effect):
    plan = Plan(model.architecture.d_vocab, 1, False, LOOSE)
    found = estimated(model, scored, plan, effect=effect)
    assert largest(found.delta_loss - brute_force(model, scored, effect)) < 5e-6
    assert float(found.variance.max()) == 0


@pytest.mark.parametrize("second_order", [False, True])
def test_pairs_that_are_too_uncertain_are_summed_in_full(model, scored, second_order):
    plan = Plan(4, 4, second_order, 0.0)
    found = estimated(model, scored, plan)
    assert largest(found.delta_loss - brute_force(model, scored)) < 5e-6
    assert found.summed_in_full > 0.9 * found.delta_loss.numel()


@pytest.mark.parametrize(
    ("pair_error", "again"),
    [(LOOSE, 24), *((error, again) for error in (0.2, 0.02, 0.0) for again in (24, 2000))],
)
@pytest.mark.parametrize("second_order", [False, True])
def test_the_sum_over_tokens_is_unbiased(second_order, pair_error, again, monkeypatch):
    """Averaged over the random offset it is the exact sum, well within its own standard error.

    Also where some pairs are sampled a second time (24 tokens) or summed in full (2000, no less
    than the vocabulary): which ones is no matter of what they would have given.
    """
    monkeypatch.setattr(sampled, "AGAIN", again)
    monkeypatch.setattr(constants, "short_type", lambda device: torch.float32)
    head, n_pos = random_head(d_vocab=1000, d_mlp=20), 8
    *rows, new = random_rows(head, n_pos)
    resid, post, target = (part.repeat(AT_ONCE, *[1] * (part.ndim - 1)) for part in rows)
    plan = Plan(16, 16, second_order, pair_error)
    clean = clean_pass(head, resid, target, double=False)
    push = push_of(head, clean, new - post, target, "total")
    ranked = rank_tokens(clean, head.length_sq, plan.n_head)
    exact = delta_loss(head, resid, post, target, new, tolerance=0.0)
    expected = (exact.double() - push.lead.double()).expm1()
    draws, variances, poor = [], [], 0.0
    offsets = torch.from_numpy(np.random.default_rng(0).random((N_DRAWS, n_pos)))
    for offset in offsets.split(AT_ONCE):
        found = curvature(head, push, ranked, plan, offset.flatten())
        total = torch.where(found.poor, expected, found.total.double())
        draws.extend(total.view(AT_ONCE, n_pos, -1))
        variances.extend(found.variance.masked_fill(found.poor, 0).view(AT_ONCE, n_pos, -1))
        poor += float(found.poor.double().mean()) * AT_ONCE / N_DRAWS
    expected = expected[:n_pos]
    if pair_error:
        assert (poor > 1e-3) == (pair_error < LOOSE)
    else:
        assert poor > 0.999
    draws = torch.stack(draws).double()
    spread = draws.std(dim=0) / N_DRAWS**0.5
    z = ((draws.mean(dim=0) - expected) / (spread + 1e-7))[spread > 3e-7]  # beyond float32 rounding
    if pair_error:
        assert len(z) > 50
        assert abs(float(z.mean())) < 4 / len(z) ** 0.5
        assert float(z.square().mean().sqrt()) < 1.3
        # Stated variance against the one seen; equal steps scatter less than independent draws.
        ratio = torch.stack(variances).double().mean(dim=0).sum() / draws.var(dim=0).sum()
        assert 0.7 < float(ratio) < 4


def test_a_second_sample_spares_most_full_sums(monkeypatch):
    head = random_head()
    resid, post, target, new = random_rows(head, n_pos=50)
    rows = (resid, 0.4 * post, target, new)
    offset = torch.from_numpy(np.random.default_rng(0).random(50))
    exact = delta_loss(head, *rows, tolerance=0.0)
    inputs = (head, Plan(16, 8, False, 0.02), *rows, offset)
    twice = estimate(*inputs)
    monkeypatch.setattr(sampled, "AGAIN", 2000)  # no less than the vocabulary: none is drawn
    once = estimate(*inputs)
    assert twice.summed_in_full < 0.3 * once.summed_in_full
    assert once.summed_in_full < exact.numel()
    assert largest(twice.delta_loss - exact) < 5 * 0.02


def test_what_float32_cannot_hold_is_summed_in_full():
    head = random_head()
    head = replace(head, G=100 * head.G, W_out=head.W_out / 10, W_out_sq=head.W_out_sq / 100)
    rows = random_rows(head)
    offset = torch.full((12,), 0.3, dtype=torch.float64)
    found = estimate(head, Plan(16, 8, False, 1e-3), *rows, offset)
    double = FinalHead(*(t.double() for t in list(vars(head).values())[:4]), 1e-5, centred=False)
    resid, post, target, new = (t.double() if t.is_floating_point() else t for t in rows)
    exact = delta_loss(double, resid, post, target, new, tolerance=0.0)
    clean = clean_pass(head, rows[0], rows[2])
    push = push_of(head, clean, -rows[1], rows[2], "total")
    moved = push.b[..., None] * (head.W_out @ head.G) + push.a[..., None] * clean.z[:, None]
    assert float((moved - push.mean[..., None]).max()) > 90  # exp(90) is beyond float32
    assert found.delta_loss.isfinite().all()
    assert largest(found.delta_loss - exact) < 1e-2


def test_what_is_small_is_exact_in_the_first_order():
    head = random_head()
    resid, post, target, _ = random_rows(head)
    new = post * (1 - 1e-3)
    offset = torch.full((len(post),), 0.3, dtype=torch.float64)
    plan = Plan(8, 8, False, LOOSE)
    found = estimate(head, plan, resid, post, target, new, offset)
    exact = delta_loss(head, resid, post, target, new, tolerance=0.0)
    error = (found.delta_loss - exact).abs()
    assert float((error / exact.abs().clamp_min(1e-6)).median()) < 1e-3
    assert float(exact.abs().median()) > 1e-5


def test_equal_steps_draw_each_entry_as_often_as_its_score_says():
    score = torch.rand(1, 256, generator=torch.Generator().manual_seed(0))
    score[0, 40:60] = 0
    n, counts, offsets = 10, torch.zeros(256), torch.linspace(0.0005, 0.9995, 1000).double()
    for offset in offsets:
        drawn, total = systematic(Cumulated.of(score), n, offset[None])
        counts += torch.bincount(drawn[0], minlength=256)
    expected = n * score[0] / total
    assert float(counts[40:60].sum()) == 0
    assert float((counts / 1000 - expected).abs().max()) < 2.5e-3


def test_no_offset_draws_an_entry_without_score():
    score = torch.zeros(3, 128)
    score[:, [5, 70, 127]] = torch.tensor([1e-30, 1.0, 1e-30])
    for offset in (0.0, 0.5, 1 - 1e-16):
        drawn, _ = systematic(Cumulated.of(score), 7, torch.full((3,), offset, dtype=torch.float64))
        assert (score.gather(1, drawn) > 0).all()


def test_head_tokens_are_the_likeliest_and_none_is_drawn_again():
    head = random_head()
    resid, _, target, _ = random_rows(head)
    clean = clean_pass(head, resid, target, double=False)
    picked = rank_tokens(clean, head.length_sq, 16).pick(32, torch.full((12,), 0.7).double())
    score = clean.p * head.length_sq
    np.testing.assert_array_equal(picked.token[:, :16], score.topk(16, dim=1).indices)
    for row in picked.token:
        assert not set(row[:16].tolist()) & set(row[16:].tolist())
    # Weights of head and tail stand for all probability, up to the noise of the sample.
    assert float((picked.weight.sum(dim=1) - 1).abs().max()) < 0.2


def test_second_order_of_the_tail_is_the_plain_sum(monkeypatch):
    monkeypatch.setattr(constants, "short_type", lambda device: torch.float32)
    head = random_head()
    resid, post, target, new = random_rows(head)
    clean = clean_pass(head, resid, target, double=False)
    push = push_of(head, clean, new - post, target, "total")
    ranked = rank_tokens(clean, head.length_sq, 16)
    found = sampled.second_order_of_tail(head, push, ranked)
    p = clean.p.scatter(1, ranked.head, 0.0)
    u = push.a[..., None] * clean.z[:, None] + push.b[..., None] * head.M.T - push.mean[..., None]
    torch.testing.assert_close(found, (p[:, None] * u.square()).sum(dim=2), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-4, 1e-5])
def test_the_mean_of_a_neuron_is_as_precise_as_asked_for(tolerance):
    head = random_head()
    rows = random_rows(head, n_pos=200)
    resid, post, target, new = rows
    pilot = pilot_positions(200)
    plan = choose_plan(
        head,
        resid[pilot],
        (new - post)[pilot],
        target[pilot],
        tolerance=tolerance,
        n_positions=200,
    )
    offset = torch.from_numpy(np.random.default_rng(0).random(200))
    found = estimate(head, plan, *rows, offset)
    exact = delta_loss(head, resid, post, target, new, tolerance=0.0)
    error = (found.delta_loss - exact).double().mean(dim=0).abs()
    assert float(error.max()) < tolerance
    stated = found.variance.sqrt() / 200
    assert float(stated.max()) < tolerance
    assert float((stated < tolerance / 2).double().mean()) > 0.9  # all, but for what no probe met
    assert plan.pair_error == pair_error(tolerance, 200)


def test_a_stricter_target_takes_more_tokens():
    head = random_head(d_vocab=4000)
    resid, post, target, new = random_rows(head, n_pos=16)
    plans = [
        choose_plan(
            head,
            resid,
            new - post,
            target,
            tolerance=tolerance,
            n_positions=10_000,
        )
        for tolerance in (1e-1, 1e-4)
    ]
    costs = [plan.n_head + plan.n_tail for plan in plans]
    assert 2 * method.SIZES[0] <= costs[0] < costs[1]


def test_the_pilot_knows_the_variance_a_plan_leaves():
    """From the pilot's own tokens, against the spread of the estimate over offsets."""
    head = random_head(d_vocab=1000)
    resid, post, target, new = random_rows(head, n_pos=6)
    clean = clean_pass(head, resid, target, double=False)
    push = push_of(head, clean, new - post, target, "total")
    everything = rank_tokens(clean, head.length_sq, 999).pick(1, torch.full((6,), 0.5).double())
    (one_draw,) = variance_of_a_draw(head, push, everything, [16], False)
    plan, ranked, draws = Plan(16, 2, False, LOOSE), rank_tokens(clean, head.length_sq, 16), []
    for offset in np.random.default_rng(0).random(600):
        offsets = torch.full((6,), offset).double()
        draws.append(curvature(head, push, ranked, plan, offsets).total)
    seen = torch.stack(draws).var(dim=0)
    ratio = (one_draw / 2).sum() / seen.sum()
    assert 0.7 < float(ratio) < 2.5  # equal steps scatter less than independent draws


@pytest.mark.parametrize("tolerance", [1e-9, -1.0, 2.0, math.nan])
def test_a_tolerance_out_of_reach_is_refused(tolerance):
    with pytest.raises(UserError, match=r"a tolerance of .* nats cannot be kept: float32 gives"):
        check_tolerance(tolerance)


def test_zero_means_exact_and_is_allowed():
    check_tolerance(0.0)
    check_tolerance(1e-8)
