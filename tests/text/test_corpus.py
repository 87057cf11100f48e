"""Corpus files and the contexts cut from them."""

import json

import numpy as np
import pandas as pd
import pytest

from raretok.errors import UserError
from raretok.text.corpus import Corpus, Document, count_tokens, cut_contexts, load_corpus


class Letters:
    """A tokenizer whose tokens are code points."""

    def __call__(self, texts, add_special_tokens, verbose):
        assert add_special_tokens is False
        return {"input_ids": [[ord(c) for c in text] for text in texts]}


def corpus_of(*texts: str) -> Corpus:
    return Corpus("x", tuple(Document(t, f"{i}", "d") for i, t in enumerate(texts)), "0")


def test_contexts_never_cross_documents_and_lose_nothing_but_short_ends():
    texts = ["a" * 70, "b" * 40, "c" * 5]
    contexts = cut_contexts(corpus_of(*texts), Letters(), n_ctx=32, first=0)
    assert contexts.document.tolist() == [0, 0, 1]  # 70 = 31 + 31 + 8, and 8 is too short
    assert contexts.length.tolist() == [32, 32, 32]
    assert (contexts.tokens[:, 0] == 0).all()
    for row, document in zip(contexts.tokens, contexts.document, strict=True):
        assert set(row[1:].tolist()) == {ord(texts[document][0])}


def test_the_last_piece_is_padded():
    contexts = cut_contexts(corpus_of("a" * 20, "b" * 20), Letters(), n_ctx=32, first=7)
    assert contexts.length.tolist() == [21, 21]
    assert (contexts.tokens[:, 21:] == 7).all()


def test_too_short_a_corpus_is_refused():
    with pytest.raises(UserError, match=r"too short: 1 of its 2 documents have 16 tokens"):
        cut_contexts(corpus_of("a" * 50, "b"), Letters(), n_ctx=32, first=0)


def test_count_tokens():
    assert count_tokens([[1, 1, 3], [0]], 5).tolist() == [1, 2, 0, 1, 0]


def test_plain_text_is_cut_at_marks_or_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n<|endoftext|>\ntwo")
    assert [d.text for d in load_corpus(path).documents] == ["one", "two"]
    path.write_text("\n\n".join(["x" * 900] * 5))
    assert [len(d.text) for d in load_corpus(path).documents] == [2_704, 1_802]


def test_jsonl_and_parquet_give_the_same_corpus(tmp_path):
    rows = [
        {"text": "one", "file": "f", "domain": "law"},
        {"text": "two", "file": "g", "domain": "law"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    lines, table = load_corpus(tmp_path / "a.jsonl"), load_corpus(tmp_path / "a.parquet")
    assert lines == table
    assert [document.domain for document in lines.documents] == ["law", "law"]
    assert lines.sha256 != corpus_of("one").sha256


def test_jsonl_lines_end_at_line_feeds_only(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one\u2028two", "domain": null}\n')
    (document,) = load_corpus(tmp_path / "a.jsonl").documents
    assert document.text == "one\u2028two"
    assert document.domain == "a"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.jsonl", b"{", "line 1: not JSON"),
        ("a.jsonl", b"[1]", "not a JSON object"),
        ("a.jsonl", b'{"body": "x"}', "no string column 'text'"),
        ("a.parquet", b"PAR", "not a Parquet file"),
        ("a.csv", b"x", "a corpus is one of"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_corpus(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"no corpus file nowhere.txt"):
        load_corpus("nowhere.txt")


def test_padding_is_not_counted_as_text():
    contexts = cut_contexts(corpus_of("a" * 20, "b" * 30), Letters(), n_ctx=32, first=0)
    assert contexts.length.sum() == 2 + 50
    assert np.count_nonzero(contexts.tokens) == 50
