"""Influence summed over blocks: against loops, and by domains of a text that a tiny model reads."""

import json
from dataclasses import replace

import numpy as np
import pytest

from raretok.errors import NotTestableError
from raretok.measure.influence import (
    OTHERS,
    SCORED,
    blocks_of,
    counted_in,
    domains_part,
    influence_part,
    influence_sums,
)
from raretok.measure.parameters import PageParameters
from raretok.measure.source import Source
from raretok.text.rarity import COMMON, MIDDLE, RARE, Positions
from tests.tiny import D_MLP, write_model

DOMAINS = {"tales": 5, "notes": 6}


@pytest.fixture
def positions():
    """Positions of three classes in nine documents, each with another weight."""
    rng = np.random.default_rng(0)
    document = np.sort(rng.integers(0, 9, 120))
    some = rng.integers(0, 5, (4, 120))
    stratum = rng.choice([MIDDLE, RARE, COMMON], 120)
    return Positions(*some, document, stratum, rng.uniform(1, 2, 120))


def test_sums_of_blocks_are_what_loops_give(positions):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(120, 2, 3))
    block = blocks_of(positions, rng)
    sums, weights = influence_sums(values, positions, block)
    assert sums.shape == (2, 9, 2, 3)
    by_hand, weighed = np.zeros_like(sums), np.zeros_like(weights)
    for row in range(120):
        if positions.stratum[row] != MIDDLE:
            at = [RARE, COMMON].index(positions.stratum[row]), block[row]
            by_hand[at] += positions.weight[row] * values[row]
            weighed[at] += positions.weight[row]
    np.testing.assert_allclose(sums, by_hand)
    np.testing.assert_allclose(weights, weighed)


def test_a_document_lies_in_one_block_and_the_rarer_class_is_counted(positions):
    block = blocks_of(positions, np.random.default_rng(2))
    for document in range(9):
        assert np.unique(block[positions.document == document]).size == 1
    rare, common = (positions.stratum == one for one in (RARE, COMMON))
    assert counted_in(positions) == {
        "positions": min(rare.sum(), common.sum()),
        "documents": min(np.unique(positions.document[one]).size for one in (rare, common)),
    }


@pytest.fixture
def source(tmp_path):
    """A tiny model and a text of two domains in many documents."""
    model = write_model(tmp_path / "tiny")
    rng = np.random.default_rng(0)
    names = [name for name, n in DOMAINS.items() for _ in range(n)]
    p = np.arange(1, 9) / 36
    lines = ["".join(rng.choice(list("abcdefgh"), 150, p=p)) for _ in names]
    rows = [{"text": t, "domain": d} for t, d in zip(lines, names, strict=True)]
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(json.dumps(row) for row in rows))
    return Source(PageParameters(model=str(model), corpus=str(text), n_ctx=32))


def test_the_corpus_and_its_domains(source):
    domains = domains_part(source, None)
    assert domains.parts == ["notes", "tales"]
    assert domains.documents.values.tolist() == [DOMAINS["notes"], DOMAINS["tales"]]
    assert not domains.weight.values[:, 1].any()
    found = influence_part(source, None, "tales")
    assert found.parts == ["tales", OTHERS]
    assert found.documents.values.tolist() == list(DOMAINS.values())
    assert found.sums.dims == ("part", "token_class", "block", "neuron")
    assert (found.sizes["part"], found.sizes["neuron"]) == (2, D_MLP)
    whole = influence_part(source, None)
    assert whole.parts == ["all"]
    # Few enough that all rare ones are scored, so that the domains make the whole.
    assert whole.positions.item() == found.positions.sum() < SCORED
    rare = found.weight.values[:, 0].sum()
    assert rare == whole.weight.values[0, 0].sum()
    # Each part puts the mean activations of its own contexts in place: nearly those of all.
    apart = found.sums.values[:, 0].sum(axis=(0, 1))
    assert np.corrcoef(apart, whole.sums.values[0, 0].sum(axis=0))[0, 1] > 0.99
    assert domains.weight.values.sum() == whole.weight.values[0, 0].sum()
    together = domains.sums.values[:, 0].sum(axis=(0, 1))
    assert np.corrcoef(together, apart)[0, 1] > 0.99


def test_a_domain_that_is_not_there_is_one_line(source):
    with pytest.raises(NotTestableError, match="the corpus has no domain 'songs'"):
        influence_part(source, None, "songs")


def test_a_corpus_of_one_domain_is_one_line(source):
    one = replace(source.corpus.documents[0], domain="all")
    source.corpus = replace(source.corpus, documents=(one,) * 12)
    with pytest.raises(NotTestableError, match="the corpus text has one domain, all"):
        domains_part(source, None)


def test_a_domain_without_rare_targets_has_empty_sums(positions):
    none = positions[:0]
    sums, weights = influence_sums(np.zeros((0, 3)), none, np.zeros(0, dtype=np.int64))
    assert sums.shape == (2, 1, 3)
    assert not sums.any()
    assert not weights.any()
