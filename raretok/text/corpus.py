"""Texts, and the token contexts cut from them."""

import gzip
import json
import os
import re
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from raretok.errors import UserError
from raretok.text import docstrings, hub
from raretok.text.shelf import shelf_file, shelved

# A context shorter than this predicts too little to be worth a forward pass.
SHORTEST = 16
# Plain text without document marks is cut at the first blank line after this many characters.
BLOCK = 2_000
Records = Iterable[tuple[int, dict[str, Any]]]  # with the line or row that each is at
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


def load_corpus(
    source: str | Path = "docs", part: docstrings.Part = "held-out", n_documents: int = 500
) -> Corpus:
    """The corpus `docs` (a part of it), a text of the shelf, a file, or a dataset of the Hub.

    A file is .txt, .md, .jsonl, .ndjson (these also as .gz) or .parquet. JSONL and Parquet have a
    column `text` and may have `file` and `domain`. In plain text a line `<|endoftext|>` ends a
    document; without such lines it is cut at blank lines into blocks of about 2,000 characters.
    Of a dataset, owner/name:configuration, the first `n_documents` are read. A document that stands
    there twice is kept once; a text of the shelf stays as it was measured.
    Raises `UserError` when there is nothing to read.
    """
    if str(source) == "docs":
        rows, sha256 = docstrings.read_docs(part)
        return Corpus("docs", tuple(Document(*row) for row in rows), sha256)
    path = corpus_file(str(source), n_documents)
    state = path.stat()
    return _read(path, (state.st_mtime_ns, state.st_size), once=str(source) not in shelved())


def corpus_file(source: str, n_documents: int = 500) -> Path:
    """The file that a text which is not `docs` is read from. Raises `UserError`."""
    if source in shelved():
        return shelf_file(source)
    path = Path(os.path.expanduser(source))  # unlike those of Path, these three never raise
    if not os.path.exists(path) and hub.DATASET.fullmatch(source) and not reads(path):
        return hub.frozen(source, n_documents)
    if os.path.isdir(path):
        raise UserError(f"the corpus {path.name} is a directory: give one of the files in it")
    if not os.path.isfile(path):
        raise UserError(
            f"no corpus file {source}: give 'docs' or a .txt, .jsonl or .parquet file, "
            "or a dataset of the Hub as owner/name:configuration"
        )
    if not reads(path):
        raise UserError(f"cannot read {path.name}: a corpus is one of {', '.join(READERS)}")
    return path


def reads(path: Path) -> bool:
    return _ending(path) in READERS


def _ending(path: Path) -> str:
    return path.with_suffix("" if path.suffix.lower() == ".gz" else path.suffix).suffix.lower()


@cache  # a corpus is checked before a model is loaded, and read after
def _read(path: Path, state: tuple[int, int], once: bool) -> Corpus:
    try:
        every = [_row(record, path, number) for number, record in READERS[_ending(path)](path)]
    except OSError as error:
        raise UserError(f"cannot read {path.name}: {str(error.strerror).lower()}") from None
    rows = every = [row for row in every if row[0]]
    if once:
        first: dict[str, tuple[str, str, str]] = {}
        for row in every:
            first.setdefault(row[0], row)
        rows = list(first.values())
    if not rows:
        raise UserError(f"the corpus {path.name} is empty: it holds no text to score")
    if len(rows) < len(every):
        warnings.warn(
            f"{len(every) - len(rows)} of the {len(every)} documents of {path.name} stand there "
            "more than once: each is kept once",
            stacklevel=2,
        )
    return Corpus(path.stem, tuple(Document(*row) for row in rows), docstrings.digest(rows))


def _plain(path: Path) -> Records:
    text = _decoded(path)
    if len(texts := re.split(rf"^{re.escape(DOCUMENT_MARK)}[ \t]*$", text, flags=re.M)) == 1:
        texts = [""]
        for paragraph in text.split("\n\n"):
            texts[-1] += paragraph + "\n\n"
            if len(texts[-1]) >= BLOCK:
                texts.append("")
    return ((number, {"text": one.strip()}) for number, one in enumerate(texts))


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
        return re.sub(r"\r\n?", "\n", content.decode("utf-8-sig"))
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"{path.name} is not a gzip file, or is cut short") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path.name} is not UTF-8 text (byte {error.start}): convert it first"
        ) from None


def _jsonl(path: Path) -> Records:
    for number, line in enumerate(_decoded(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # thousands of digits or brackets, too
            raise UserError(f"{path.name}, line {number}: not JSON: {line[:40]!r}") from None
        if not isinstance(record, dict):
            raise UserError(f"{path.name}, line {number}: not a JSON object: {line[:40]!r}")
        yield number, record


def _parquet(path: Path) -> Records:
    import pyarrow.parquet
    from pyarrow import ArrowException

    try:
        return enumerate(pyarrow.parquet.read_table(path).to_pylist(), start=1)
    except PermissionError:
        raise
    except UnicodeDecodeError:
        raise UserError(f"{path.name} holds a string that is not UTF-8: convert it first") from None
    except (ArrowException, OSError) as error:
        raise UserError(
            f"{path.name} is not a Parquet file: {str(error).splitlines()[0]}"
        ) from None


def _row(record: dict[str, Any], path: Path, number: int) -> tuple[str, str, str]:
    """Text, file and domain of a record. Raises `UserError` for what is no text."""
    text = record.get("text")
    if "text" not in record:
        raise UserError(f"{path.name}, row {number}: no column 'text', got {sorted(record)}")
    if not isinstance(text, str):
        kind = "null" if text is None else f"a {type(text).__name__}"
        raise UserError(f"{path.name}, row {number}: text is {kind}, it must be a string")
    file, domain = record.get("file") or f"{path.name}#{number}", record.get("domain") or path.stem
    row = text, str(file), str(domain)
    try:
        "".join(row).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{path.name}, line {number}: half a character (a lone surrogate) at {error.start}"
        ) from None
    return row


READERS = {
    **dict.fromkeys((".txt", ".md"), _plain),
    **dict.fromkeys((".jsonl", ".ndjson"), _jsonl),
    ".parquet": _parquet,
}


def token_ids(texts: list[str], tokenizer: Any, *, marks: bool = False) -> list[list[int]]:
    """Token ids of each text, without special tokens: a mark that a text mentions is text.

    With `marks` it is the special token, as in the stream that the shipped models were trained on.
    """
    # verbose=False: a text longer than the model's context is expected here, it is cut below.
    options = {"add_special_tokens": False, "verbose": False, "split_special_tokens": not marks}
    return tokenizer(texts, **options)["input_ids"]


def text_of(tokenizer: Any, token: int) -> str:
    """The text of a token; its name in the vocabulary where it is part of a character."""
    name = tokenizer.convert_ids_to_tokens(token) or ""
    if "▁" in name:  # SentencePiece: decoding would drop a space at the start
        return name.replace("▁", " ")
    text = tokenizer.decode([token])
    return name if "\ufffd" in text else text


def cut_contexts(
    corpus: Corpus, tokenizer: Any, *, n_ctx: int, first: int, packed: bool = False
) -> Contexts:
    """Cut each document into contexts of `n_ctx` tokens, the first of them always `first`.

    Contexts never cross documents, so that documents can be resampled; a last piece is padded.
    `packed` joins the documents end to end, `first` between them, as the paper's recipe does; a
    context then counts as of the document that its first token is of.
    Raises `UserError` when no document is long enough.
    """
    texts, width = token_ids([d.text for d in corpus.documents], tokenizer), n_ctx - 1
    if not any(texts):
        raise UserError(
            f"the tokenizer makes no token of the {len(texts)} documents of {corpus.name}: "
            "its files are damaged"
        )
    fewest = min(SHORTEST, n_ctx) - 1
    streams = [(ids, [index] * len(ids)) for index, ids in enumerate(texts)]
    if packed:
        ends, fewest = [[*ids, first] for ids in texts], width
        of = np.repeat(np.arange(len(texts)), [len(ids) for ids in ends])
        streams = [([token for ids in ends for token in ids], of)]
    cut = [
        (ids[at : at + width], of[at])
        for ids, of in streams
        for at in range(0, len(ids), width)
        if len(ids) - at >= fewest
    ]
    tokens = np.full((len(cut), n_ctx), first, dtype=np.int64)
    for row, (ids, _) in zip(tokens, cut, strict=True):
        row[1 : 1 + len(ids)] = ids
    document = np.array([of for _, of in cut], dtype=np.int64)
    if np.unique(document).size < 2:
        raise UserError(
            f"the corpus {corpus.name} is too short: {np.unique(document).size} of its "
            f"{len(corpus.documents)} documents have {SHORTEST} tokens or more, 2 are needed"
        )
    return Contexts(tokens, 1 + np.array([len(ids) for ids, _ in cut]), document)


def count_tokens(ids: list[list[int]], d_vocab: int) -> Int[np.ndarray, " d_vocab"]:
    """How often each token id occurs."""
    return np.bincount(
        np.concatenate([np.asarray(i, dtype=np.int64) for i in ids]), minlength=d_vocab
    )
