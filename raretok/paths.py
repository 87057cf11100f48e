"""The project's files: where they lie, how they are written whole, shared and sealed.

A sealed record says by a sha256 of its own whether it is as it was written.
"""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from raretok.errors import UserError

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data"
RUNS_GIVEN = "RARETOK_RUNS"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raretok"


def runs_folder(root: Path) -> Path:
    """Where what is measured and run is kept: RARETOK_RUNS, else `runs/`, else below the cache."""
    own = root / "runs"
    closed = not os.access(own if own.exists() else root, os.W_OK)
    return Path(os.environ.get(RUNS_GIVEN) or (CACHE / "runs" if closed else own)).absolute()


RUNS = runs_folder(ROOT)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR),
    *(errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A draft that takes the place of a file once it is written: whole or not at all."""
    # A name of its own: several processes may write the file at the same time.
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")
    try:
        yield draft
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def replace_folder(draft: Path, folder: Path) -> None:
    """Put a directory that is whole in place of another, which stands until then."""
    before = folder.with_name(f".{folder.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    if folder.exists():
        os.replace(folder, before)
    os.replace(draft, folder)
    shutil.rmtree(before, ignore_errors=True)


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes from writing this run; the lock dies with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    except BlockingIOError:
        raise UserError(f"another process is writing the run {folder}: wait for it") from None
    finally:
        os.close(handle)


@contextmanager
def one_line(folder: Path) -> Iterator[None]:
    """Turn a full or closed disk into a `UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno in CLOSED:
            raise UserError(f"cannot write to {folder}: {error.strerror.lower()}") from None
        if error.errno not in FULL:
            raise
        raise UserError(
            f"the disk of {folder} is full: finished blocks are kept; "
            "make room and run the same command again to go on"
        ) from None


def check_writable(folder: Path) -> None:
    """Raise `UserError` for a folder that cannot be made or written to; nothing is left of it."""
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror.lower()}") from None


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
        total.update(np.ascontiguousarray(array))
    return total.hexdigest()
