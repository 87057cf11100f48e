"""Texts from the Hub: the first documents of a dataset, read once by streaming and frozen."""

import json
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from raretok.errors import UserError, first_line
from raretok.paths import RUNS, one_line

DATASET = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?")  # owner/name:configuration
KEPT = ("text", "file", "domain")  # columns


def frozen(source: str, n_documents: int) -> Path:
    """The JSONL file of a dataset's first documents; fetched if it is not there.

    What streaming yields may change from one release of a dataset to the next, so it is read once;
    a record beside the file says of which. Token ids follow from it and a tokenizer, and are sealed
    by the sha256 of a run's contexts. Raises `UserError`.
    """
    name = re.sub(r"[^\w.-]+", "-", source)
    file = RUNS / "corpora" / f"{name}-{n_documents}.jsonl"
    if file.is_file():
        return file
    dataset, _, configuration = source.partition(":")
    revision, rows = streamed(dataset, configuration, n_documents)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with one_line(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text("".join(json.dumps(row) + "\n" for row in rows))
        record = {"dataset": dataset, "configuration": configuration, "revision": revision}
        record |= {"split": "train", "documents": len(rows)}
        file.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        os.replace(draft, file)
    return file


def streamed(
    dataset: str, configuration: str, n_documents: int
) -> tuple[str, list[dict[str, Any]]]:
    """The commit of a dataset and its first documents. Raises `UserError`."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        revision = HfApi().dataset_info(dataset).sha
        options = {"split": "train", "streaming": True, "revision": revision}
        rows = load_dataset(dataset, name=configuration or None, **options)
        found = list(islice(documents(rows, dataset), n_documents))
    except (HfHubHTTPError, DatasetNotFoundError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        gated = "it is gated: ask for access, then set HF_TOKEN"
        why = gated if status in (401, 403) else "check its name"
        raise UserError(f"the Hub has no dataset {dataset} to read; {why}") from None
    except UserError:
        raise
    except ValueError as error:  # an unknown configuration or split: the library names those it has
        raise UserError(f"cannot read the dataset {dataset}: {first_line(error)}") from None
    except Exception:  # each of the libraries below has errors of its own for a broken line
        raise UserError(
            f"the dataset {dataset} was not read before, and the Hub cannot be reached: give a file"
        ) from None
    if not found:
        raise UserError(f"the dataset {dataset} is empty: it holds no text to score")
    return revision, found


def documents(rows: Any, dataset: str) -> Iterator[dict[str, Any]]:
    for row in rows:
        if not isinstance(row.get("text"), str):
            raise UserError(f"{dataset} has no column 'text' of texts, it has {sorted(row)}")
        yield {name: row[name] for name in KEPT if row.get(name)}
