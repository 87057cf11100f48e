"""Datasets of the Hub: read once by streaming, then frozen; and one line for what cannot be had."""

import json
import shutil
from hashlib import sha256

import datasets
import httpx
import pytest

from raretok.errors import UserError
from raretok.text import hub
from raretok.text.corpus import load_corpus

ROWS = [{"text": f"document {n}", "timestamp": "2020", "url": "u"} for n in range(9)]
BLANK = [{"text": "one"}, {"text": " \n"}, {"text": ""}, {"text": "two"}]
README = "---\nconfigs:\n" + "".join(
    f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in ("en", "other", "blank")
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Configurations of `allenai/c4` as the client of the Hub keeps them."""
    home = tmp_path_factory.mktemp("home")
    local = home / "c4"
    local.mkdir()
    (local / "README.md").write_text(f"{README}---\n")
    (local / "en.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (local / "other.jsonl").write_text('{"body": "x"}\n')
    (local / "blank.jsonl").write_text("\n".join(map(json.dumps, BLANK)))
    for name in ("en", "other", "blank"):
        datasets.load_dataset_builder(
            str(local), name, cache_dir=str(home / "cache")
        ).download_and_prepare()
    shutil.move(home / "cache" / "c4", home / "cache" / "allenai___c4")
    return home / "cache"


@pytest.fixture
def runs(prepared, tmp_path, monkeypatch):
    """A folder of runs, and no network: only what the client keeps."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(prepared))
    monkeypatch.setattr(hub, "RUNS", tmp_path)
    return tmp_path


def test_a_dataset_is_streamed_once_and_frozen(runs, monkeypatch):
    first = load_corpus("allenai/c4:en", n_documents=4)
    assert [document.text for document in first.documents] == [f"document {n}" for n in range(4)]
    assert len(load_corpus("allenai/c4:en", n_documents=5).documents) == 5
    (file,) = (runs / "corpora").glob("allenai--c4--en-*-4.jsonl")
    record = json.loads(file.with_suffix(".json").read_text())
    assert (record["dataset"], record["configuration"]) == ("allenai/c4", "en")
    assert file.name == f"allenai--c4--en-{record['commit'][:12]}-4.jsonl"
    assert (record["sha256"], record["documents"]) == (sha256(file.read_bytes()).hexdigest(), 4)
    monkeypatch.setattr(datasets, "load_dataset_builder", raising(AssertionError("read again")))
    assert load_corpus("allenai/c4:en", n_documents=4) == first


def test_documents_without_text_are_not_among_the_first(runs):
    found = load_corpus("allenai/c4:blank", n_documents=2).documents
    assert [document.text for document in found] == ["one", "two"]


@pytest.mark.parametrize("part", ["*.jsonl", "*.json"])
def test_what_was_frozen_and_is_changed_is_refused(runs, part):
    load_corpus("allenai/c4:en", n_documents=3)
    (file,) = (runs / "corpora").glob(part)
    file.write_text('{"text": "ano')
    with pytest.raises(UserError, match=r"-3.jsonl was changed since it was read: delete it"):
        load_corpus("allenai/c4:en", n_documents=3)


def raising(error):
    def raise_it(*args, **options):
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (
            "allenai/c4:xx",
            r"cannot read .*allenai/c4: .*'xx'.*\['blank', 'en', 'other'\]",
        ),
        ("allenai/c4:other", r"allenai/c4 has no column 'text' of texts, it has \['body'\]"),
        ("a/b", "a/b was not read before, and the Hub cannot be reached: give a file"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_leaves_nothing(runs, source, line, capfd):
    with pytest.raises(UserError, match=line) as caught:
        load_corpus(source)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
    assert not list(runs.rglob("*"))


GATED = "Dataset 'a/b' is a gated dataset on the Hub. You must be authenticated to access it."


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (datasets.exceptions.DatasetNotFoundError(GATED), "it is gated: ask for access"),
        (datasets.exceptions.DatasetNotFoundError("'a/b' doesn't exist"), "to read; check its nam"),
        (httpx.ReadTimeout("slow"), "the Hub cannot be reached"),
        (ValueError("Config name is missing.\nPick one of\n['en']"), r"missing. Pick .*\['en'\]"),
        (RuntimeError("Dataset scripts are no longer supported"), "a/b: Dataset scripts are no"),
    ],
)
def test_what_the_hub_answers_is_one_line(runs, monkeypatch, error, line):
    monkeypatch.setattr(datasets, "load_dataset_builder", raising(error))
    with pytest.raises(UserError, match=line) as caught:
        load_corpus("a/b")
    assert "\n" not in str(caught.value)
    assert not list(runs.rglob("*"))
