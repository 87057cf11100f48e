"""Ablating heads against whole runs under hooks, and the sums that a measurement keeps of it."""

from typing import get_args

import numpy as np
import pytest
import torch

from raretok.measure.attention import WHOLE, HeadSums
from raretok.measure.attention_capture import whole_batches
from raretok.measure.head_ablation import (
    Mode,
    ablate_heads,
    donors,
    few_per_context,
    rank_among_equals,
    targets_of,
)
from raretok.measure.parts import BITS, head_sums
from raretok.measure.record import rounded
from raretok.models.adapter import LanguageModel
from raretok.text.rarity import COMMON, MIDDLE, RARE
from tests.tiny import FAMILIES, SANDWICH
from tests.written import N_CTX, some_text


def hooked(model: LanguageModel, tokens, hooks) -> tuple[torch.Tensor, torch.Tensor]:
    """Last MLP and log-probabilities of a whole run under hooks: the slow reference."""
    seen = {}
    last = model.architecture.n_layers - 1

    def keep(x, hook):
        seen["post"] = x.clone()

    logits = model.bridge.run_with_hooks(
        tokens, fwd_hooks=[*hooks, (f"blocks.{last}.mlp.hook_post", keep)]
    )
    return seen["post"], logits.log_softmax(dim=-1)


@pytest.mark.parametrize("family", [*FAMILIES, *SANDWICH])
def test_zero_ablation_is_that_of_a_whole_run_with_hooks(models, family):
    model = models(family)
    contexts, positions = some_text(n=3)
    targets = targets_of(model.architecture, range(2))
    rng = np.random.default_rng(0)
    found = ablate_heads(model, contexts, positions, targets, "zero", rng=rng)
    tokens = torch.from_numpy(contexts.tokens)
    at = (torch.from_numpy(positions.context), torch.from_numpy(positions.pos))
    post, log_p = hooked(model, tokens, [])
    target = torch.from_numpy(positions.target)
    for index, (layer, head) in enumerate(targets):

        def silence(z, hook, head=head):
            z = z.clone()
            z[:, 1:, slice(None) if head == WHOLE else head] = 0
            return z

        new, new_log_p = hooked(model, tokens, [(f"blocks.{layer}.attn.hook_z", silence)])
        change, loss = (new - post)[at].numpy(), -(new_log_p - log_p)[(*at, target)].numpy()
        scale = float(post.abs().max())
        np.testing.assert_allclose(found.change[index], change, atol=2e-5 * scale)
        np.testing.assert_allclose(found.delta_loss[index], loss, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "neox-parallel", "llama", "gemma2"])
def test_the_redirect_is_a_row_that_looks_at_the_first_token_only(models, family):
    model = models(family)
    contexts, positions = some_text(n=2)
    targets = targets_of(model.architecture, range(2))
    rng = np.random.default_rng(0)
    found = ablate_heads(model, contexts, positions, targets, "first", rng=rng, per_context=2)
    assert len(found.positions) < len(positions)
    tokens = torch.from_numpy(contexts.tokens)
    clean = hooked(model, tokens, [])[0]
    for q in range(0, len(found.positions), 2):
        context, pos = int(found.positions.context[q]), int(found.positions.pos[q])
        for index, (layer, head) in enumerate(targets):

            def redirect(pattern, hook, head=head, context=context, pos=pos):
                pattern, heads = pattern.clone(), slice(None) if head == WHOLE else head
                pattern[context, heads, pos] = 0
                pattern[context, heads, pos, 0] = 1
                return pattern

            new = hooked(model, tokens, [(f"blocks.{layer}.attn.hook_pattern", redirect)])[0]
            change = (new - clean)[context, pos].numpy()
            tolerance = 2e-5 * float(clean.abs().max())
            np.testing.assert_allclose(found.change[index, q], change, atol=tolerance)


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize("family", ["gpt2", "neox-sequential", "neox-parallel"])
def test_last_layer_heads_reach_the_last_mlp_unless_blocks_are_parallel(models, family, mode):
    model = models(family)
    contexts, positions = some_text(n=3)
    targets = targets_of(model.architecture, range(1, 2))
    rng = np.random.default_rng(0)
    found = ablate_heads(model, contexts, positions, targets, mode, rng=rng)
    reaches = model.architecture.reaches_last_mlp(1)
    assert reaches == (family != "neox-parallel")
    assert model.architecture.reaches_last_mlp(0)
    assert (np.abs(found.change).max(axis=(1, 2)) > 1e-4).all() == reaches
    if not reaches:
        assert (found.change == 0.0).all()
        assert np.abs(found.delta_loss).max() > 1e-4  # the loss they do reach


def test_mean_ablation_uses_the_mean_over_all_tokens_but_first_ones(models):
    model = models("gpt2")
    contexts, positions = some_text(n=3)
    rng = np.random.default_rng(0)
    found = ablate_heads(model, contexts, positions, [(1, 0)], "mean", rng=rng)
    _, cache = model.bridge.run_with_cache(torch.from_numpy(contexts.tokens))
    z = cache["blocks.1.attn.hook_z"]
    last = max(b.tokens.shape[1] for b in whole_batches(model, contexts, positions))
    real = np.arange(N_CTX)[None] < np.minimum(contexts.length, last)[:, None]
    real[:, 0] = False
    mean = z[torch.from_numpy(real)].mean(dim=0)

    def average(z, hook):
        z = z.clone()
        z[:, 1:, 0] = mean[0]
        return z

    tokens = torch.from_numpy(contexts.tokens)
    new = hooked(model, tokens, [("blocks.1.attn.hook_z", average)])[0]
    change = new - cache["blocks.1.mlp.hook_post"]
    np.testing.assert_allclose(
        found.change[0], change[positions.context, positions.pos].numpy(), atol=1e-4
    )


def test_donors_are_other_positions_of_the_class(models):
    contexts, positions = some_text()
    for batch in whole_batches(models("gpt2"), contexts, positions):
        donor = donors(positions, batch, rng=np.random.default_rng(0))
        at = donor[batch.place, batch.pos].numpy()
        np.testing.assert_array_equal(positions.stratum[at], positions.stratum[batch.rows])
        assert (at != batch.rows).all()


def test_few_per_context_counts_rare_and_common_apart():
    _, positions = some_text()
    row = few_per_context(positions, 2, rng=np.random.default_rng(0))
    counts = np.bincount(positions.context[row] * 3 + positions.stratum[row])
    assert counts.max() == 2
    assert (positions.stratum[row] != MIDDLE).all()
    np.testing.assert_array_equal(rank_among_equals(np.array([5, 3, 5, 5, 3])), [0, 0, 1, 2, 1])


@pytest.mark.parametrize("strata", [("corrected",), ("code", "text")])
def test_sums_are_those_of_single_positions(models, strata):
    contexts, positions = some_text(n=6)
    targets = [(0, 1), (1, WHOLE), (1, 0)]
    rng = np.random.default_rng(0)
    found = ablate_heads(models("gpt2"), contexts, positions, targets, "zero", rng=rng)
    classes = dict(zip(strata, (positions.stratum, positions.input % 3), strict=False))
    data = head_sums(found, classes)
    for name, stratum in classes.items():
        sums = HeadSums.of(data, name)
        assert sums.targets == targets
        assert sums.layers == [1]
        for document in np.unique(positions.document):
            at = (positions.document == document) & (stratum == RARE)
            cells = (sums.document == document) & (sums.stratum == RARE)
            assert sums.count[cells].sum() == at.sum()
            pairs = [
                (sums.change[:, cells].sum(axis=1), np.abs(found.change[:, at]).sum(axis=1)),
                (sums.before[cells].sum(axis=0), np.abs(found.post[at]).sum(axis=0)),
                (
                    sums.after[0][cells].sum(axis=0),
                    np.abs(found.post[at] + found.change[1][at]).sum(axis=0),
                ),
            ]
            for kept, exact in pairs:
                np.testing.assert_allclose(kept, exact, rtol=1.01 * 2.0 ** -(BITS + 1), atol=1e-6)


def test_common_positions_are_kept_under_one_protocol_alone(models):
    contexts, positions = some_text(n=6)
    rng = np.random.default_rng(0)
    found = ablate_heads(models("gpt2"), contexts, positions, [(1, WHOLE)], "zero", rng=rng)
    one = head_sums(found, {"code": positions.stratum})
    assert set(one.cell_code.values) == {RARE, COMMON}
    both = head_sums(found, {"text": positions.stratum, "corrected": positions.input % 3})
    assert ((both.cell_text == RARE) | (both.cell_corrected == RARE)).all()
    assert one.delta_loss.sizes["position"] == len(positions)
    np.testing.assert_array_equal(one.delta_loss, rounded(found.delta_loss, 10))
