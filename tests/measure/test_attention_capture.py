"""Attention rows of single queries, and how queries are matched: by hand and by whole patterns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raretok.errors import UserError
from raretok.measure.attention_capture import (
    capture_rows,
    category_keys,
    causal_gini,
    choose_queries,
    match_queries,
    offset_edges,
)
from raretok.text.rarity import COMMON, MIDDLE, RARE
from tests.written import pool, some_text


def test_gini_by_hand():
    rows = torch.tensor([[[0.0, 0.0, 1.0, 0.0]], [[0.25, 0.25, 0.25, 0.25]], [[0.5, 0.5, 0, 0]]])
    found = causal_gini(rows, torch.tensor([3, 4, 2]))
    torch.testing.assert_close(found[:, 0], torch.tensor([2 / 3, 0.0, 0.0], dtype=torch.float64))


def test_gini_is_half_the_relative_mean_difference_and_ignores_scale_and_padding():
    p = torch.rand(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_pairs = (p[:, None] - p[None]).abs().mean() / (2 * p.mean())
    padded = torch.cat([3 * p, torch.zeros(5)])
    found = causal_gini(torch.stack([p, p])[:, None], torch.tensor([7, 7]))
    torch.testing.assert_close(found[0, 0], by_pairs)
    torch.testing.assert_close(causal_gini(padded[None, None], torch.tensor([7]))[0, 0], by_pairs)


def test_a_row_without_attention_has_a_finite_gini():
    assert causal_gini(torch.zeros(1, 1, 4), torch.tensor([4])).item() == 0.0


def test_each_key_falls_into_one_category_and_the_first_token_into_its_own():
    edges = offset_edges(64)
    pos = np.array([3, 17, 63])
    keys = category_keys(pos, edges)
    np.testing.assert_array_equal(keys.sum(axis=1), pos + 1)
    np.testing.assert_array_equal(keys[:, :4], 1)  # first token, and 0, 1, 2 back
    assert keys[0, 4:].sum() == 0


@pytest.mark.parametrize("family", ["gpt2", "neox-parallel", "llama", "qwen3"])
def test_captured_rows_are_those_of_the_patterns(models, family):
    model = models(family)
    contexts, positions = some_text()
    queries = positions[positions.stratum != MIDDLE]
    rows = capture_rows(model, contexts, queries)
    np.testing.assert_allclose(rows.mass.sum(axis=3), 1, atol=1e-5)
    _, cache = model.bridge.run_with_cache(torch.from_numpy(contexts.tokens))
    for layer in range(2):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"].double().numpy()
        for q in range(0, len(queries), 7):
            context, pos = queries.context[q], queries.pos[q]
            p = pattern[context, :, pos, : pos + 1]
            np.testing.assert_allclose(rows.mass[layer, q, :, 0], p[:, 0], atol=1e-6)
            np.testing.assert_allclose(rows.mass[layer, q, :, 1], p[:, pos], atol=1e-6)
            ordered, k = np.sort(p, axis=1), np.arange(1, pos + 2)
            gini = ((2 * k - pos - 2) * ordered).sum(axis=1) / ((pos + 1) * ordered.sum(axis=1))
            np.testing.assert_allclose(rows.gini[layer, q], gini, atol=1e-5)


def test_matched_queries_balance_positions_and_documents():
    rng = np.random.default_rng(0)
    rare, common = pool(60, RARE, rng), pool(2_000, COMMON, rng)
    partner = match_queries(rare, common, rng=rng)
    assert (partner >= 0).all()
    assert np.unique(partner).size == 60
    np.testing.assert_array_equal(common.pos[partner], rare.pos)
    np.testing.assert_array_equal(np.bincount(common.document[partner]), np.bincount(rare.document))


def test_where_no_document_fits_the_position_still_does():
    rng = np.random.default_rng(1)
    rare, common = pool(40, RARE, rng), pool(300, COMMON, rng)
    common = replace(common, document=common.document + 100)
    partner = match_queries(rare, common, rng=rng)
    assert (partner >= 0).mean() > 0.9
    np.testing.assert_array_equal(common.pos[partner[partner >= 0]], rare.pos[partner >= 0])


def test_queries_of_both_classes_are_equally_many_or_refused():
    _, positions = some_text(n=40)
    rng = np.random.default_rng(0)
    for matched in (True, False):
        queries = choose_queries(positions, matched, rng=rng)
        assert (queries.stratum == RARE).sum() == (queries.stratum == COMMON).sum()
    _, few = some_text(n=2)
    with pytest.raises(UserError, match="rare queries have a common one"):
        choose_queries(few, True, rng=rng)
