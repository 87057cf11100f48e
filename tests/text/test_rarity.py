"""Rarity: known answers on real counts, and strata whose weights add up."""

from pathlib import Path

import numpy as np
import pytest

from raretok.errors import UserError
from raretok.text.corpus import Contexts
from raretok.text.rarity import (
    all_positions,
    draw_contexts,
    draw_stratified,
    draw_total,
    elbow,
    type_classes,
    unigram,
)

UNIGRAMS = Path(__file__).parents[3] / "shared" / "unigrams"  # beside the project
# Elbow and types at or below it as stored by the released code; rare types of its rule elbow_15.
KNOWN = {
    "pythia-pile": (50_304, 9.446e-07, 2_240, 40_520),
    "gpt2-openwebtext": (50_257, 4.137e-07, 2_169, 40_561),
}


@pytest.mark.skipif(
    not UNIGRAMS.is_dir(),
    reason="token counts of The Pile and OpenWebText are others' data and not shipped (github.com/"
    "bpwu1/confidence-regulation-neurons, datasets): with NAME.npy in shared/unigrams beside the "
    "project this runs; planted counts test the elbow below",
)
@pytest.mark.parametrize("name", KNOWN)
def test_elbow_of_real_counts(name):
    d_vocab, value, below, rare = KNOWN[name]
    u = unigram(np.load(UNIGRAMS / f"{name}.npy", allow_pickle=False), d_vocab)
    assert elbow(u) == pytest.approx(value, rel=1e-3)
    assert (u <= elbow(u)).sum() == below
    assert type_classes(u, "released", counted=everywhere(d_vocab)).rare.sum() == rare


def everywhere(d_vocab: int) -> np.ndarray:
    return np.ones(d_vocab, dtype=bool)


def zipf(d_vocab: int = 1_000) -> np.ndarray:
    counts = (1e6 / np.arange(1, d_vocab + 1)).astype(np.int64)
    counts[900:] = 1  # a cliff: types that are hardly used
    return unigram(counts, d_vocab)


def test_elbow_finds_the_cliff():
    assert abs((zipf() > elbow(zipf())).sum() - 900) <= 1_000 // 25


def test_elbow_equals_plain_least_squares():
    u = zipf(400)
    window, start = 16, 200
    x, y = np.log(np.arange(1, 401)), np.log(np.sort(u)[::-1])
    slopes = [np.polyfit(x[i : i + window], y[i : i + window], 1)[0] for i in range(400 - window)]
    change = np.abs(np.diff(slopes[start:]))
    assert elbow(u) == np.sort(u)[::-1][start + change.argmax() + 1]


def test_a_curve_without_an_elbow_leaves_nothing_out():
    u = np.arange(1, 60) / 1_770
    assert elbow(u) == 0
    rules = ("percentile above elbow", "percentile")
    above, plain = (type_classes(u, rule, counted=everywhere(59)).rare for rule in rules)
    np.testing.assert_array_equal(above, plain)


def test_unigram_smooths_pads_and_refuses_another_tokenizer():
    np.testing.assert_allclose(unigram(np.array([2, 0]), 3), [0.6, 0.2, 0.2])
    with pytest.raises(UserError, match="belong to another tokenizer"):
        unigram(np.ones(4, dtype=int), 3)


def test_the_rarest_and_the_most_frequent_are_as_many():
    u = unigram(np.arange(1, 101), 100)
    classes = type_classes(u, "percentile", percentile=15.0, counted=everywhere(100))
    assert classes.rare.nonzero()[0].tolist() == list(range(15))
    assert classes.common.nonzero()[0].tolist() == list(range(84, 100))


def test_padding_rows_are_no_tokens():
    counted = np.arange(100) < 90
    classes = type_classes(unigram(np.arange(1, 91), 100), "percentile", counted=counted)
    assert not classes.rare[90:].any()
    assert classes.rare.sum() == classes.common.sum() == 14


@pytest.mark.parametrize("percentile", [0.0, 50.1, -3.0])
def test_impossible_percentile(percentile):
    with pytest.raises(UserError, match="between 0 and 50"):
        type_classes(zipf(), "percentile", percentile=percentile, counted=everywhere(1_000))


@pytest.fixture
def everything():
    rng = np.random.default_rng(0)
    u = zipf()
    contexts = Contexts(
        tokens=rng.choice(1_000, size=(60, 32), p=0.5 * u + 0.5 / 1_000),
        length=rng.integers(16, 33, size=60),
        document=np.arange(60) // 3,
    )
    classes = type_classes(u, "percentile", counted=everywhere(1_000))
    return all_positions(contexts, classes, "target"), contexts


def test_positions_are_real_and_name_their_tokens(everything):
    positions, contexts = everything
    assert positions.pos.min() == 3
    assert (positions.pos + 1 < contexts.length[positions.context]).all()
    assert len(positions) == (contexts.length - 4).sum()
    here = contexts.tokens[positions.context]
    np.testing.assert_array_equal(positions.input, here[np.arange(len(here)), positions.pos])
    np.testing.assert_array_equal(positions.target, here[np.arange(len(here)), positions.pos + 1])


def test_stratified_draw_is_balanced_weighted_and_repeatable(everything):
    positions, _ = everything
    draws = [
        draw_stratified(positions, n_per_class=20, n_middle=10, rng=np.random.default_rng(1))
        for _ in range(2)
    ]
    drawn = draws[0]
    assert np.bincount(drawn.stratum).tolist() == [10, 20, 20]
    np.testing.assert_array_equal(drawn.pos, draws[1].pos)
    assert (np.diff(drawn.context * 1_000 + drawn.pos) > 0).all()
    # Weights count the corpus: they sum to its positions, stratum by stratum.
    totals = np.bincount(drawn.stratum, weights=drawn.weight)
    np.testing.assert_allclose(totals, np.bincount(positions.stratum))


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_a_total_is_drawn_exactly_whatever_the_strata_hold(everything, share):
    positions, _ = everything
    n = int(share * len(positions))
    drawn = draw_total(positions, n=n, rng=np.random.default_rng(0))
    assert len(drawn) == n
    assert (np.diff(drawn.context * 1_000 + drawn.pos) > 0).all()
    available = np.bincount(positions.stratum)
    assert (np.bincount(drawn.stratum)[1:] >= np.minimum(available[1:], 4 * n // 9)).all()
    totals = np.bincount(drawn.stratum, weights=drawn.weight)
    np.testing.assert_allclose(totals, available)


@pytest.mark.parametrize("n", [0, 10**6])
def test_a_total_the_corpus_lacks_is_refused(everything, n):
    with pytest.raises(UserError, match=rf"{n} positions were asked for; this corpus has 1 to"):
        draw_total(everything[0], n=n, rng=np.random.default_rng(0))


def test_context_draw_takes_every_position(everything):
    positions, contexts = everything
    drawn = draw_contexts(positions, n_contexts=10, rng=np.random.default_rng(0))
    used = np.unique(drawn.context)
    assert used.size == 10
    assert len(drawn) == (contexts.length[used] - 4).sum()


def test_no_rare_position_left(everything):
    positions, _ = everything
    common_only = positions[positions.stratum != 1]
    with pytest.raises(UserError, match="no position with a rare token"):
        draw_stratified(common_only, n_per_class=5, n_middle=5, rng=np.random.default_rng(0))
    with pytest.raises(UserError, match="no rare position in the 10 contexts"):
        draw_contexts(common_only, n_contexts=10, rng=np.random.default_rng(0))
