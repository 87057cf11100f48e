"""Records on disk that say by a sha256 of their own whether they are as they were written."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from raretok.errors import UserError
from raretok.paths import replacing


def write_json(file: Path, content: Any, *, sort_keys: bool = False) -> None:
    """Write JSON to a file, whole or not at all."""
    with replacing(file) as draft:
        draft.write_text(json.dumps(content, indent=1, sort_keys=sort_keys) + "\n")


def write_sealed(file: Path, record: dict[str, Any], *, sort_keys: bool = False) -> None:
    """Write a record with its seal."""
    write_json(file, record | {"sha256": seal_of(record)}, sort_keys=sort_keys)


def read_sealed(file: Path, refused: Callable[[str], UserError]) -> dict[str, Any]:
    """A record without its seal; raises what `refused` makes of the reason unless it is whole.

    `FileNotFoundError` where there is none.
    """
    try:
        record = json.loads(file.read_bytes())
        seal = record.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise refused(f"{file.name} cannot be read") from None
    if seal != seal_of(record):
        raise refused(f"{file.name} was changed after it was written")
    return record


def seal_of(record: dict[str, Any]) -> str:
    """sha256 of a record; it does not depend on the order of its names."""
    return sha256_of(json.dumps(record, sort_keys=True).encode())


def key_of(settings: dict[str, Any]) -> str:
    """Name of what was computed: a hash of everything that decides its numbers."""
    return seal_of(settings)[:16]


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file_sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def digest(arrays: Iterable[np.ndarray]) -> str:
    """One sha256 over shapes, types and values."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
