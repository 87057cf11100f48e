"""The corpus `docs`: parsed, split by file, free of repeats, and checked."""

import json
import sys
import warnings

import pytest

from raretok.errors import UserError
from raretok.text import docstrings
from raretok.text.corpus import load_corpus

SOURCE = b'''"""Module."""
class A:
    """Class."""
    def f(self):
        """Method."""
def g():
    "Function."
def undocumented():
    x = "no docstring"
'''


def test_docstrings_in_source_order():
    assert docstrings.docstrings(SOURCE) == ["Module.", "Class.", "Method.", "Function."]
    assert docstrings.docstrings(b"def broken(:") == []


def test_the_shipped_corpus_is_the_one_of_the_lock_file():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corpus = load_corpus("docs")
    manifest = json.loads(docstrings.MANIFEST.read_text())
    assert corpus.sha256 == manifest["parts"]["held-out"]["sha256"]
    assert len(corpus.documents) == manifest["parts"]["held-out"]["documents"]
    domains = {document.domain for document in corpus.documents}
    assert domains >= {"mathematics", "data frames", "graphs", "machine learning"}
    assert all(docstrings.part_of(document.file) == "held-out" for document in corpus.documents)


def fake_package(folder, files: dict[str, str]):
    for name, text in files.items():
        (folder / "fakepkg" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "fakepkg" / name).write_text(f'"""{text}"""\n')


@pytest.fixture
def package(tmp_path, monkeypatch):
    names = [f"m{i:02d}.py" for i in range(60)]
    fake_package(tmp_path, {"__init__.py": "Init.", **{n: f"Text of {n}." for n in names}})
    (tmp_path / "fakepkg" / "__init__.py").write_text('raise RuntimeError("was imported")\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(docstrings, "DOMAINS", {"fakepkg": "testing"})
    monkeypatch.setattr(docstrings, "package_versions", lambda: {"fakepkg": "1.0"})
    monkeypatch.setattr(docstrings, "MANIFEST", tmp_path / "manifest.json")
    return tmp_path


def test_sources_are_parsed_and_never_imported(package):
    docstrings.write_manifest()
    assert "fakepkg" not in sys.modules
    both = [file for part in ("train", "held-out") for _, file, _ in docstrings.read_docs(part)[0]]
    assert len(both) == 60
    assert len(set(both)) == 60


def test_a_repeated_docstring_stays_in_the_train_part_only(package):
    parts = {docstrings.part_of(f"fakepkg/m{i:02d}.py"): f"m{i:02d}.py" for i in range(60)}
    fake_package(package, {name: "The same words." for name in parts.values()})
    docstrings.write_manifest()
    texts = {part: [t for t, _, _ in docstrings.read_docs(part)[0]] for part in parts}
    assert texts["train"].count("The same words.") == 1
    assert "The same words." not in texts["held-out"]


def test_tests_and_generated_files_are_left_out(package):
    fake_package(package, {"tests/test_a.py": "A test.", "version.py": "Generated."})
    names = [name for name, _ in docstrings.source_files("fakepkg")]
    assert "fakepkg/version.py" not in names
    assert not [name for name in names if "tests" in name]


def test_a_changed_package_warns_in_one_sentence(package, monkeypatch):
    docstrings.write_manifest()
    held_out = next(
        f"m{i:02d}.py"
        for i in range(60)
        if docstrings.part_of(f"fakepkg/m{i:02d}.py") == "held-out"
    )
    fake_package(package, {held_out: "Edited."})
    monkeypatch.setattr(docstrings, "package_versions", lambda: {"fakepkg": "1.1"})
    with pytest.warns(UserWarning, match=r"fakepkg 1.1 instead of 1.0.*requirements.lock"):
        docstrings.read_docs("held-out")


def test_a_missing_package_is_named(monkeypatch):
    with pytest.raises(UserError, match="needs the package no_such_package"):
        list(docstrings.source_files("no_such_package"))
