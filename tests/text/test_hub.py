"""Datasets of the Hub: read once by streaming, then frozen; and one line for what cannot be had."""

import json
from types import SimpleNamespace

import datasets
import huggingface_hub
import pytest
from datasets import IterableDataset

from raretok.errors import UserError
from raretok.text import hub
from raretok.text.corpus import load_corpus

ROWS = [{"text": f"document {n}", "url": "u", "timestamp": None} for n in range(9)]


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A Hub with one dataset; how often it was asked."""
    asked: list[tuple] = []

    def load_dataset(path, **options):
        asked.append((path, options))
        return IterableDataset.from_generator(lambda: iter(ROWS))

    info = SimpleNamespace(sha="4" * 40)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name: info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "RUNS", tmp_path)
    return asked


def test_a_dataset_is_streamed_once_and_frozen(served, tmp_path):
    first, again = (load_corpus("allenai/c4:en", n_documents=4) for _ in range(2))
    assert first == again
    assert [document.text for document in first.documents] == [f"document {n}" for n in range(4)]
    options = {"name": "en", "split": "train", "streaming": True, "revision": "4" * 40}
    assert served == [("allenai/c4", options)]
    record = json.loads((tmp_path / "corpora" / "allenai-c4-en-4.json").read_text())
    assert record["revision"] == "4" * 40
    assert (record["configuration"], record["documents"]) == ("en", 4)
    assert len(load_corpus("allenai/c4:en", n_documents=5).documents) == 5


def raising(error):
    def raise_it(*args, **options):
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConnectionError("no route"), "was not read before, and the Hub cannot be reached"),
        (ValueError("BuilderConfig 'xx' not found. Available: ['en']"), "'xx' not found. Availab"),
        (
            datasets.exceptions.DatasetNotFoundError("?"),
            "has no dataset a/b to read; check",
        ),
    ],
)
def test_what_cannot_be_had_is_one_line_and_leaves_nothing(
    served, tmp_path, monkeypatch, error, line
):
    monkeypatch.setattr(datasets, "load_dataset", raising(error))
    with pytest.raises(UserError, match=line) as caught:
        load_corpus("a/b:xx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("rows", "line"), [([], "a/b is empty"), ([{"body": "x"}], "no column 'text' of texts, it has")]
)
def test_a_dataset_without_texts_is_named(served, monkeypatch, rows, line):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    with pytest.raises(UserError, match=line):
        load_corpus("a/b")
