"""Corpus files and the contexts cut from them."""

import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from raretok.errors import UserError
from raretok.text.corpus import (
    Corpus,
    Document,
    count_tokens,
    cut_contexts,
    load_corpus,
    token_ids,
)
from tests.tiny import write_tokenizer


class Letters:
    """A tokenizer whose tokens are code points."""

    def __call__(self, texts, add_special_tokens, verbose, split_special_tokens):
        assert (add_special_tokens, split_special_tokens) == (False, True)
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
        ("a.jsonl", b'{"body": "x"}', "row 1: no column 'text', got"),
        ("a.parquet", b"PAR", "not a Parquet file"),
        ("a.csv", b"x", "a corpus is one of"),
        ("a.jsonl", b'{"text": "a"}\n{"text": null}', "row 2: text is null"),
        ("a.jsonl", b'{"text": ["a"]}', "row 1: text is a list"),
        ("a.jsonl", b'{"text": "b \\ud83d cd"}', "line 1: half a character .* at 2"),
        ("a.jsonl", b'{"text": "b", "file": "\\ud83d"}', "line 1: half a character"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b'{"text": "a", "n": ' + b"9" * 5_000 + b"}", "line 1: not JSON"),
        ("a.jsonl.gz", b"{}", "not a gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}')[:-9], "cut short"),
        ("a.jsonl.gz", gzip.compress(b"")[:10] + b"\xff" * 20, "not a gzip file"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_corpus(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere.txt", "x" * 5_000, "~nobody-here/a.txt", "a\0b"])
def test_a_missing_file_is_named(name):
    with pytest.raises(UserError, match=f"^no corpus file {name}: give"):
        load_corpus(name)


def test_a_string_of_parquet_that_is_not_utf8_is_named(tmp_path):
    column = pa.array([b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a.parquet holds a string that is not UTF-8"):
        load_corpus(tmp_path / "a.parquet")


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "a.txt").write_text("some words")
    monkeypatch.setattr("pathlib.Path.read_bytes", closed)
    with pytest.raises(UserError, match=r"^cannot read a.txt: permission denied$"):
        load_corpus(tmp_path / "a.txt")


def test_padding_is_not_counted_as_text():
    contexts = cut_contexts(corpus_of("a" * 20, "b" * 30), Letters(), n_ctx=32, first=0)
    assert contexts.length.sum() == 2 + 50
    assert np.count_nonzero(contexts.tokens) == 50


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("B.JSONL", lambda held: b"\xef\xbb\xbf" + held),
        ("b.ndjson", lambda held: held.replace(b"\n", b"\r\n")),
        ("b.jsonl.gz", gzip.compress),
    ],
)
def test_the_same_text_in_another_dress(tmp_path, name, change):
    held = b'{"text": "one \\u0000 two", "file": "f"}\n\n{"text": "three", "file": "g"}\n'
    (tmp_path / "a.jsonl").write_bytes(held)
    (tmp_path / name).write_bytes(change(held))
    found, plain = (
        [(one.text, one.file) for one in load_corpus(tmp_path / x).documents]
        for x in (name, "a.jsonl")
    )
    assert found == plain == [("one \0 two", "f"), ("three", "g")]


def test_home_is_expanded_and_a_directory_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("some words")
    assert load_corpus("~/a.txt").name == "a"
    with pytest.raises(UserError, match=r"is a directory: give one of the files") as caught:
        load_corpus(tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_what_stands_there_twice_is_kept_once_and_said(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{t}"}}\n' for t in ["abab", "c"]))
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{"text": "a"}\n')
    assert len(load_corpus(tmp_path / "a.jsonl").documents) == 2
    with pytest.warns(UserWarning, match=r"1 of the 3 documents of b.jsonl stand there more than"):
        assert [d.text for d in load_corpus(tmp_path / "b.jsonl").documents] == ["a", "b"]


def test_a_text_of_the_shelf_stays_as_it_was_measured(tmp_path, monkeypatch):
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "licences.jsonl").write_text('{"text": "a"}\n{"text": "a"}\n')
    monkeypatch.setattr("raretok.text.shelf.RUNS", tmp_path)
    assert [document.text for document in load_corpus("licences").documents] == ["a", "a"]


def test_only_a_line_of_its_own_ends_a_document(tmp_path):
    (tmp_path / "a.txt").write_text("one <|endoftext|> still one\n<|endoftext|>\ntwo")
    texts = [document.text for document in load_corpus(tmp_path / "a.txt").documents]
    assert texts == ["one <|endoftext|> still one", "two"]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_mark_inside_a_text_is_text(tmp_path, family):
    tokenizer = AutoTokenizer.from_pretrained(write_tokenizer(tmp_path / family))
    (ids,) = token_ids(["a <|endoftext|> b"], tokenizer)
    assert 0 not in ids
    assert tokenizer.decode(ids) == "a <|endoftext|> b"
    assert 0 in token_ids(["a <|endoftext|> b"], tokenizer, marks=True)[0]


def test_packed_documents_follow_each_other_and_none_is_lost():
    corpus = corpus_of("a" * 20, "b" * 50, "c" * 40)
    contexts = cut_contexts(corpus, Letters(), n_ctx=32, first=7, packed=True)
    assert contexts.tokens.shape == (3, 32)
    assert (contexts.tokens[:, 0] == 7).all()
    assert (contexts.length == 32).all()
    text = "".join(map(chr, contexts.tokens[:, 1:].ravel()))
    assert "\7".join(["a" * 20, "b" * 50, "c" * 40]).startswith(text)
    assert contexts.document.tolist() == [0, 1, 2 - 1]


def test_a_tokenizer_that_makes_nothing_is_named():
    class Damaged:
        def __call__(self, texts, **options):
            return {"input_ids": [[] for _ in texts]}

    with pytest.raises(UserError, match="makes no token of the 2 documents of x: its files"):
        cut_contexts(corpus_of("a" * 20, "b" * 30), Damaged(), n_ctx=32, first=0)
