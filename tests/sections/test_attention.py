"""Attention rows, their comparison, and head ablation: by hand, brute force, calibration."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from raretok.sections.attention_capture import (
    Rows,
    batches,
    capture_rows,
    category_keys,
    causal_gini,
    choose_queries,
    match_queries,
    offset_edges,
)
from raretok.sections.head_ablation import (
    MODES,
    WHOLE,
    ablate_heads,
    donors,
    few_per_context,
    rank_among_equals,
    reaches_last_mlp,
    targets_of,
)

from raretok.corpus import Contexts
from raretok.errors import UserError
from raretok.groups import Fold, find_folds
from raretok.ledger import verdict
from raretok.models import LanguageModel, load_model
from raretok.protocol import PROTOCOLS
from raretok.rarity import COMMON, MIDDLE, RARE, Positions
from raretok.sections import attention, attention_page, attention_tables
from raretok.sections.attention_profiles import (
    ceiling_of,
    compare_gini,
    compare_profiles,
    correlation,
    design_of,
    gini_test,
    profile_test,
)
from raretok.sections.knockout import attention_test, group_effects, largest_share, size_change
from raretok.sections.regimes import Settings
from tests.ablation.reference import ablate
from tests.tiny import FAMILIES, SANDWICH, write_model

N_CTX = 24


@pytest.fixture(autouse=True)
def small_work():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    loaded: dict[str, LanguageModel] = {}

    def get(family: str) -> LanguageModel:
        if family not in loaded:
            folder = tmp_path_factory.mktemp(family) / family
            loaded[family] = load_model(str(write_model(folder, family)))
        return loaded[family]

    return get


def some_text(n: int = 6, seed: int = 0) -> tuple[Contexts, Positions]:
    """Random contexts of unlike length, and all their positions, a third of them rare."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 257, (n, N_CTX))
    length = rng.integers(N_CTX // 2, N_CTX + 1, n)
    contexts = Contexts(tokens, length, np.arange(n) // 2)
    context, pos = np.nonzero((np.arange(N_CTX - 1) >= 3) & (np.arange(1, N_CTX) < length[:, None]))
    target = tokens[context, pos + 1]
    positions = Positions(
        context=context,
        pos=pos,
        input=tokens[context, pos],
        target=target,
        document=contexts.document[context],
        stratum=np.array([RARE, COMMON, MIDDLE])[target % 3],
        weight=np.ones(pos.size),
    )
    return contexts, positions


# Gini coefficient and categories


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


# Matching


def pool(n: int, stratum: int, rng: np.random.Generator, n_documents: int = 6) -> Positions:
    columns = rng.integers(1, 200, (2, n))
    document = rng.integers(n_documents, size=n)
    return Positions(
        context=document,
        pos=rng.integers(3, 20, n),
        input=columns[0],
        target=columns[1],
        document=document,
        stratum=np.full(n, stratum),
        weight=np.ones(n),
    )


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


# Comparison


def made_rows(seed: int, lift: float = 0.0, n: int = 120) -> Rows:
    """Rows at random positions; rare ones give `lift` of their attention to the last token."""
    rng = np.random.default_rng(seed)
    both = [pool(n, kind, np.random.default_rng([seed, 7])) for kind in (RARE, COMMON)]
    queries = Positions(
        **{name: np.concatenate([getattr(one, name) for one in both]) for name in vars(both[0])}
    )
    edges = offset_edges(20)
    keys = category_keys(queries.pos, edges)
    of_document = rng.normal(size=(queries.document.max() + 1, 2, 1, 2, keys.shape[1]))
    noise = rng.normal(size=(2, 2 * n, 2, keys.shape[1]))
    by_document = of_document[queries.document][:, :, 0].transpose(1, 0, 2, 3)
    attention_paid = (
        keys[:, None] * np.exp(0.5 * noise + 0.5 * by_document) / (1 + np.arange(keys.shape[1]))
    )
    attention_paid /= attention_paid.sum(axis=3, keepdims=True)
    rare = queries.stratum == RARE
    attention_paid[:, rare] *= 1 - lift
    attention_paid[:, rare, :, 1] += lift
    gini = rng.normal(size=(2, 2 * n, 2)) + queries.pos[:, None] / 5
    gini[:, rare] += 5 * lift
    return Rows(queries, edges, keys, attention_paid.astype(np.float32), gini, gini)


def both_tests(rows: Rows, seed: int, n_null: int = 99):
    rng = np.random.default_rng(seed)
    design = design_of(rows, True)
    draws = {"n_null": n_null, "n_boot": 20, "rng": rng}
    return (
        profile_test(compare_profiles(rows, design, **draws)),
        gini_test(compare_gini(rows.gini, design, **draws)),
    )


def test_correlation_is_pearsons():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 3, 8))
    by_library = [np.corrcoef(a, b)[0, 1] for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(correlation(one, two), by_library)
    assert correlation(np.ones(5), np.arange(5.0)) == 0


def test_the_ceiling_is_the_reliability_of_all_queries():
    assert ceiling_of([np.full((4, 1), 0.5), np.full((4, 1), 0.5)]) == pytest.approx(2 / 3)
    assert ceiling_of([np.full((4, 1), -0.2), np.ones((4, 1))]) == pytest.approx(0)


def test_taking_position_out_leaves_what_matched_classes_differ_by():
    rows = made_rows(0, lift=0.1)
    rare = rows.rare
    with_position = compare_gini(
        rows.gini, design_of(rows, False), n_null=9, n_boot=9, rng=np.random.default_rng(0)
    )
    without = compare_gini(
        rows.gini, design_of(rows, True), n_null=9, n_boot=9, rng=np.random.default_rng(0)
    )
    plain = rows.gini[:, rare].mean(axis=1) - rows.gini[:, ~rare].mean(axis=1)
    np.testing.assert_allclose(without.difference, plain)
    np.testing.assert_allclose(with_position.difference, plain)
    profiles = compare_profiles(
        rows, design_of(rows, True), n_null=9, n_boot=9, rng=np.random.default_rng(0)
    )
    by_hand = rows.mass[:, rare].sum(axis=1) / rows.keys[rare].sum(axis=0)
    np.testing.assert_allclose(profiles.rare, by_hand, rtol=1e-5)


def test_exchanged_labels_raise_no_more_alarms_than_they_should():
    p = np.array([[one.test.p for one in both_tests(made_rows(s, n=40), s)] for s in range(100)])
    assert ((p < 0.05).mean(axis=0) <= 0.08).all()


def test_a_planted_difference_in_attention_is_seen():
    p = np.array([[one.test.p for one in both_tests(made_rows(s, lift=0.15), s)] for s in range(5)])
    assert (p <= 0.02).all()


# Ablating heads


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
    found = ablate_heads(model, contexts, positions, targets, ("zero",), rng=rng)["zero"]
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
    found = ablate_heads(model, contexts, positions, targets, ("first",), rng=rng, per_context=2)
    found = found["first"]
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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["gpt2", "neox-sequential", "neox-parallel"])
def test_last_layer_heads_reach_the_last_mlp_unless_blocks_are_parallel(models, family, mode):
    model = models(family)
    contexts, positions = some_text(n=3)
    targets = targets_of(model.architecture, range(1, 2))
    rng = np.random.default_rng(0)
    found = ablate_heads(model, contexts, positions, targets, (mode,), rng=rng)[mode]
    reaches = reaches_last_mlp(model.architecture, 1)
    assert reaches == (family != "neox-parallel")
    assert reaches_last_mlp(model.architecture, 0)
    assert (np.abs(found.change).max(axis=(1, 2)) > 1e-4).all() == reaches
    if not reaches:
        assert (found.change == 0.0).all()
        assert np.abs(found.delta_loss).max() > 1e-4  # the loss they do reach


def test_mean_ablation_uses_the_mean_over_all_tokens_but_first_ones(models):
    model = models("gpt2")
    contexts, positions = some_text(n=3)
    rng = np.random.default_rng(0)
    found = ablate_heads(model, contexts, positions, [(1, 0)], ("mean",), rng=rng)["mean"]
    _, cache = model.bridge.run_with_cache(torch.from_numpy(contexts.tokens))
    z = cache["blocks.1.attn.hook_z"]
    last = max(b.tokens.shape[1] for b in batches(contexts, positions))
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


def test_donors_are_other_positions_of_the_class():
    contexts, positions = some_text()
    for batch in batches(contexts, positions):
        donor = donors(positions, batch, rng=np.random.default_rng(0))
        at = donor[batch.place, batch.pos].numpy()
        np.testing.assert_array_equal(positions.stratum[at], positions.stratum[batch.scored])
        assert (at != batch.scored).all()


def test_few_per_context_counts_rare_and_common_apart():
    _, positions = some_text()
    row = few_per_context(positions, 2, rng=np.random.default_rng(0))
    counts = np.bincount(positions.context[row] * 3 + positions.stratum[row])
    assert counts.max() == 2
    assert (positions.stratum[row] != MIDDLE).all()
    np.testing.assert_array_equal(rank_among_equals(np.array([5, 3, 5, 5, 3])), [0, 0, 1, 2, 1])


@pytest.mark.parametrize(
    ("targets", "modes", "message"),
    [
        ([(2, 0)], ("zero",), "layer 2 is outside the model: choose from 0 to 1"),
        ([(0, 2)], ("zero",), "head 2 is outside layer 0: choose from 0 to 1"),
        ([(0, 0)], ("half",), "unknown head ablation 'half': choose one of mean, zero"),
    ],
)
def test_what_does_not_exist_is_refused(models, targets, modes, message):
    contexts, positions = some_text(n=2)
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match=message):
        ablate_heads(models("gpt2"), contexts, positions, targets, modes, rng=rng)
    with pytest.raises(UserError, match="layer -1 is outside"):
        reaches_last_mlp(models("gpt2").architecture, -1)


# Groups


def test_group_statistics_by_hand():
    size = np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 8.0]])
    groups = np.array([[0, 1], [2, 3]])
    np.testing.assert_allclose(group_effects(size, groups), [[1.5, 0.0], [3.5, 4.0]])
    np.testing.assert_allclose(largest_share(group_effects(size, groups)), [1.0, 4 / 7.5])
    assert largest_share(np.zeros((1, 3)))[0] == 0
    before, after = np.array([1.0, 3.0, 0.0, 0.0]), np.array([[1.0, 1.0, 5.0, 0.0]])
    np.testing.assert_allclose(size_change(before, after, groups), [[-50.0], [0.0]])


def planted(seed: int, factor: float = 1.0, n: int = 1024) -> tuple[list, list[Fold]]:
    """Head effects on neurons in two folds; one head moves the group `factor` times as much."""
    rng = np.random.default_rng(seed)
    sizes, folds = [], []
    for _ in range(2):
        size = rng.gamma(4.0, 0.05, (8, n))
        neurons = rng.permutation(n)
        controls = np.stack([rng.permutation(neurons[10:])[:10] for _ in range(200)])
        size[3, neurons[:10]] *= factor
        sizes.append(size)
        folds.append(Fold(neurons[:10], controls, controls, np.ones(4, dtype=bool)))
    return sizes, folds


def test_the_largest_head_is_found_where_it_is_planted_and_silent_where_not():
    null = np.array([attention_test(*planted(seed)).p for seed in range(120)])
    assert (null < 0.05).mean() <= 0.08
    fed = [attention_test(*planted(seed, factor=3.0)) for seed in range(10)]
    assert max(test.p for test in fed) < 0.05
    assert min(test.value for test in fed) > 1.5


def test_the_test_is_quick_enough_to_be_repeated():
    sizes, folds = planted(0)
    many = [np.tile(fold.controls, (5, 1)) for fold in folds]
    folds = [replace(f, controls=c, equals=c) for f, c in zip(folds, many, strict=True)]
    start = time.perf_counter()
    assert attention_test(sizes, folds).null.size == 1000
    assert time.perf_counter() - start < 0.3


def test_heads_without_any_effect_are_not_testable():
    sizes, folds = planted(0)
    with pytest.raises(ValueError, match="not testable: no head"):
        attention_test([np.zeros_like(size) for size in sizes], folds)


# The whole


def whole(model: LanguageModel, n=30, protocol="corrected", trained=True, size=3):
    contexts, positions = some_text(n=n)
    effects = ablate(model, contexts, positions, progress=False)
    rng = np.random.default_rng(0)
    reading = PROTOCOLS[protocol]
    norm = model.W_out.norm(dim=1).numpy()
    released = reading.draw == "whole contexts"
    heads = attention.run_heads(model, contexts, positions, released, trained, rng=rng)
    return attention.find_attention(
        model,
        contexts,
        positions,
        effects,
        heads,
        {"boost": lambda: find_folds(effects, reading, norm, size=size, n_controls=100, rng=rng)},
        reading,
        Settings(20, 60),
        trained=trained,
        rng=rng,
    )


@pytest.mark.parametrize("protocol", ["code", "corrected"])
@pytest.mark.parametrize("family", ["gpt2", "neox-parallel"])
def test_every_claim_gets_evidence_with_finite_numbers(models, family, protocol):
    found = whole(models(family), protocol=protocol)
    untrained = whole(models(family), protocol=protocol, trained=False)
    assert found.layers == ([0] if family == "neox-parallel" else [0, 1])
    records = attention.evidence(found, untrained)
    assert [one.claim for one in records] == ["A1", "A2", "A3", "A4"]
    for one in records:
        assert np.isfinite([one.value, *one.interval, one.p, one.power, one.smallest]).all()
        assert one.figure.startswith("fig-")
    assert records[3].null_world_p is not None
    both = {protocol: found}
    for table in (
        attention_tables.queries_table(both),
        attention_tables.alike_table(both),
        attention_tables.modes_table(found),
        attention_tables.groups_table(found),
        attention_tables.protocols_table(both),
        attention_tables.layer_gini_table(found),
        attention_tables.loss_table(found, 20, np.random.default_rng(0)),
    ):
        assert table.size
        assert not table.astype(str).isin(["nan", "None"]).to_numpy().any()
    assert ("exactly 0" in attention_page.path_sentence(found)) == (family == "neox-parallel")
    heat = attention_page.heat_maps(found)
    assert heat[0]["largest"] >= heat[0]["effect"].max()


def test_what_cannot_be_tested_says_why(models):
    found = whole(models("gpt2"), n=4)
    records = attention.evidence(found, found)
    assert {verdict(one) for one in records[:2]} == {"not testable here"}
    assert "rare queries have a common one" in records[0].reason
    assert attention_page.r_dots(found).startswith("not testable here")
    assert attention_page.told(found, 60)["r"] == "not testable here"


def test_a_group_too_small_leaves_a_reason(models):
    found = whole(models("gpt2"), size=2)
    records = attention.evidence(found, found)
    assert verdict(records[2]) == "not testable here"
    assert "a group of 2 of 48 neurons is too small" in records[3].reason
    assert attention_page.layer_dots(found).startswith("not testable here: a group of 2")
    assert attention_tables.groups_table(found).size == 0
