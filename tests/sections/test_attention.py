"""Comparing attention, and what ablated heads do to a group: by hand, calibration, evidence."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from raretok.claims.attention.head_sums import WHOLE, HeadSums
from raretok.claims.attention.rows import Rows
from raretok.ledger.verdicts import verdict
from raretok.measure.attention_capture import (
    capture_rows,
    category_keys,
    choose_queries,
    offset_edges,
)
from raretok.measure.head_ablation import ablate_heads, targets_of
from raretok.measure.parts import head_sums
from raretok.models.adapter import LanguageModel, load_model
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
from raretok.stats.groups import Fold, find_folds
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import COMMON, RARE, Positions
from tests.ablation.reference import ablate
from tests.written import pool, some_text
from tests.tiny import write_model


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


def heads_of(model, contexts, positions, reading, trained, rng) -> dict[str, HeadSums]:
    """Heads of both layers, ablated as the protocol does; as a measurement keeps it."""
    mode = "first" if reading.draw == "whole contexts" else "mean"
    targets = targets_of(model.architecture, range(2))
    if not trained:
        targets = [target for target in targets if target[1] == WHOLE]
    found = ablate_heads(model, contexts, positions, targets, (mode,), rng=rng, per_context=5)
    data = head_sums(found[mode], {reading.name: found[mode].positions.stratum})
    return {mode: HeadSums.of(data, reading.name)}


def whole(model: LanguageModel, n=30, protocol="corrected", trained=True, size=3):
    contexts, positions = some_text(n=n)
    effects = ablate(model, contexts, positions, progress=False)
    rng = np.random.default_rng(0)
    reading = PROTOCOLS[protocol]
    norm = model.W_out.norm(dim=1).numpy()
    return attention.find_attention(
        model.architecture,
        lambda: capture_rows(model, contexts, choose_queries(positions, reading.matched, rng=rng)),
        effects,
        heads_of(model, contexts, positions, reading, trained, rng),
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
