"""Texts, and the token contexts cut from them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from raretok.errors import UserError
from raretok.text import docstrings
from raretok.text.shelf import shelf_file, shelved

# A context shorter than this predicts too little to be worth a forward pass.
SHORTEST = 16
# Plain text without document marks is cut at the first blank line after this many characters.
BLOCK = 2_000
DOCUMENT_MARK = "<|endoftext|>"


@dataclass(frozen=True)
class Document:
    """A text, the file it comes from and the domain that file belongs to."""

    text: str
    file: str
    domain: str


@dataclass(frozen=True)
class Corpus:
    name: str
    documents: tuple[Document, ...]
    sha256: str  # of texts, files and domains, in order


@dataclass(frozen=True)
class Contexts:
    """Token sequences, each cut from one document: a first token, then text, then padding."""

    tokens: Int[np.ndarray, "context n_ctx"]
    length: Int[np.ndarray, " context"]  # real tokens, the first one included
    document: Int[np.ndarray, " context"]  # index into the documents of the corpus

    def __len__(self) -> int:
        return len(self.length)


def load_corpus(source: str | Path = "docs", part: docstrings.Part = "held-out") -> Corpus:
    """The corpus `docs` (a part of it), a text of the shelf, or a .txt, .jsonl or .parquet file.

    A JSONL or Parquet file has a column `text` and may have `file` and `domain`. In plain text a
    line `<|endoftext|>` ends a document; without such lines it is cut at blank lines into blocks
    of about 2,000 characters. Raises `UserError` when there is nothing to read.
    """
    if str(source) == "docs":
        rows, sha256 = docstrings.read_docs(part)
        return Corpus("docs", tuple(Document(*row) for row in rows), sha256)
    path = shelf_file(str(source)) if str(source) in shelved() else Path(source)
    reader = reader_of(path)
    rows = [(text, file, domain) for text, file, domain in reader(path) if text]
    if not rows:
        raise UserError(f"the corpus {path.name} is empty: it holds no text to score")
    return Corpus(path.stem, tuple(Document(*row) for row in rows), docstrings.digest(rows))


def reader_of(path: Path) -> Callable[[Path], list[tuple[str, str, str]]]:
    """The function that reads a corpus file. Raises `UserError` where there is none."""
    if not path.is_file():
        raise UserError(f"no corpus file {path}: give 'docs' or a .txt, .jsonl or .parquet file")
    readers = {".txt": _plain, ".md": _plain, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix not in readers:
        raise UserError(f"cannot read {path.name}: a corpus is one of {', '.join(readers)}")
    return readers[path.suffix]


def _plain(path: Path) -> list[tuple[str, str, str]]:
    text = _decoded(path)
    if DOCUMENT_MARK in text:
        texts = text.split(DOCUMENT_MARK)
    else:
        texts, block = [], ""
        for paragraph in text.split("\n\n"):
            block += paragraph + "\n\n"
            if len(block) >= BLOCK:
                texts.append(block)
                block = ""
        texts.append(block)
    return [(t.strip(), f"{path.name}#{i}", path.stem) for i, t in enumerate(texts)]


def _decoded(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path.name} is not UTF-8 text (byte {error.start}): convert it first"
        ) from None


def _jsonl(path: Path) -> list[tuple[str, str, str]]:
    rows = []
    for number, line in enumerate(_decoded(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            raise UserError(f"{path.name}, line {number}: not JSON: {line[:40]!r}") from None
        if not isinstance(record, dict):
            raise UserError(f"{path.name}, line {number}: not a JSON object: {line[:40]!r}")
        rows.append(_row(record, path, number))
    return rows


def _parquet(path: Path) -> list[tuple[str, str, str]]:
    import pyarrow.parquet
    from pyarrow import ArrowException

    try:
        table = pyarrow.parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise UserError(
            f"{path.name} is not a Parquet file: {str(error).splitlines()[0]}"
        ) from None
    return [_row(record, path, i) for i, record in enumerate(table.to_pylist(), start=1)]


def _row(record: dict[str, Any], path: Path, number: int) -> tuple[str, str, str]:
    text = record.get("text")
    if not isinstance(text, str):
        raise UserError(
            f"{path.name}, row {number}: no string column 'text', got columns {sorted(record)}"
        )
    return (
        text,
        str(record.get("file") or f"{path.name}#{number}"),
        str(record.get("domain") or path.stem),
    )


def token_ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    """Token ids of each text, without special tokens."""
    # verbose=False: a text longer than the model's context is expected here, it is cut below.
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def cut_contexts(corpus: Corpus, tokenizer: Any, *, n_ctx: int, first: int) -> Contexts:
    """Cut each document into contexts of `n_ctx` tokens, the first of them always `first`.

    Contexts never cross documents, so that documents can be resampled; a last piece is padded.
    Raises `UserError` when no document is long enough.
    """
    tokens, length, document = [], [], []
    for index, ids in enumerate(token_ids([d.text for d in corpus.documents], tokenizer)):
        for start in range(0, len(ids), n_ctx - 1):
            piece = [first, *ids[start : start + n_ctx - 1]]
            if len(piece) < min(SHORTEST, n_ctx):
                continue
            tokens.append(piece + [first] * (n_ctx - len(piece)))
            length.append(len(piece))
            document.append(index)
    if len(set(document)) < 2:
        raise UserError(
            f"the corpus {corpus.name} is too short: {len(set(document))} of its "
            f"{len(corpus.documents)} documents have {SHORTEST} tokens or more, 2 are needed"
        )
    return Contexts(
        np.array(tokens, dtype=np.int64),
        np.array(length, dtype=np.int64),
        np.array(document, dtype=np.int64),
    )


def count_tokens(ids: list[list[int]], d_vocab: int) -> Int[np.ndarray, " d_vocab"]:
    """How often each token id occurs."""
    return np.bincount(
        np.concatenate([np.asarray(i, dtype=np.int64) for i in ids]), minlength=d_vocab
    )
