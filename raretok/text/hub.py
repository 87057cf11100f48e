"""Texts from the Hub: the first documents of a dataset, read once by streaming and frozen."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from raretok.errors import UserError, first_line
from raretok.paths import RUNS, file_sha256, one_line, replacing, sha256_of, write_json

DATASET = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?")  # owner/name:configuration
KEPT = ("text", "file", "domain")  # columns
COMMIT = 12  # characters of a commit in the name of a file


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
