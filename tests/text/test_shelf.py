"""Texts that are made from a package's files: which one, and what is said where it is not there."""

import json

import pytest

from raretok.errors import UserError
from raretok.text import shelf
from raretok.text.corpus import load_corpus
from raretok.text.docstrings import digest
from raretok.text.shelf import LONGEST, make_text, shelved

FILES = {"b.txt": "  two \n", "a.txt": "one" * LONGEST, "c.txt": " \n", "notes.md": "no text"}
ROWS = [(("one" * LONGEST)[:LONGEST], "a.txt", "letters"), ("two", "b.txt", "letters")]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An unpacked package, and a shelf with two texts of it: plain files, and a field of JSON."""
    monkeypatch.setattr(shelf, "SHELF", tmp_path / "shelf")
    monkeypatch.setattr(shelf, "RUNS", tmp_path / "runs")
    (tmp_path / "shelf").mkdir()
    record = {"package": "post", "version": "1.2", "files": "data/*.txt", "sha256": digest(ROWS)}
    fields = record | {"files": "data/*.json", "field": "body"}
    for name, of in (("letters", record), ("cards", fields), ("docs", {})):
        (tmp_path / "shelf" / f"{name}.json").write_text(json.dumps(of))
    folder = tmp_path / "post"
    (folder / "data").mkdir(parents=True)
    for name, text in FILES.items():
        (folder / "data" / name).write_text(text)
    (folder / "data" / "d.json").write_text('{"title": "x", "body": "three"}')
    return folder


def test_a_text_is_the_first_characters_of_its_files_and_known_by_its_digest(package):
    path, same = make_text("letters", package)
    assert same
    documents = load_corpus("letters").documents
    assert [(one.text, one.file, one.domain) for one in documents] == ROWS
    (package / "data" / "b.txt").write_text("another")
    assert make_text("letters", package) == (path, False)


def test_a_field_of_a_json_file_can_be_the_text(package):
    path, _ = make_text("cards", package)
    assert json.loads(path.read_text()) == {"text": "three", "file": "d.json", "domain": "cards"}


def test_an_unknown_text_is_named_with_those_there_are(package):
    assert shelved() == ["cards", "letters"]
    with pytest.raises(UserError, match="no text 'novels': there are cards, letters"):
        make_text("novels", package)


def test_a_folder_without_its_files_is_named(package, tmp_path):
    with pytest.raises(UserError, match=r"shelf has no data/\*\.txt: unpack post there"):
        make_text("letters", tmp_path / "shelf")


def test_a_text_that_was_never_made_says_how_to_make_it(package):
    with pytest.raises(UserError, match=r"unpack post 1\.2 and give its folder") as caught:
        load_corpus("letters")
    assert "\n" not in str(caught.value)
