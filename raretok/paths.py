"""Where the project's files lie, and how processes share a folder they write to."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raretok.errors import UserError

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data"
RUNS = Path(os.environ.get("RARETOK_RUNS", ROOT / "runs"))
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR),
    *(errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
)


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
