"""Killing a run in a child process, at a chosen moment; what it left."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

WATCHED = ("open", "os.rename", "os.remove", "os.truncate", "os.mkdir")


def killed_at(moment: int, work: Callable[[Path], object], folder: Path, name: str = "") -> None:
    """Run in a child process that is killed when it opens, renames or deletes its n-th file.

    Of all files in `folder`, or of those whose path there holds `name`.
    """

    def child():
        count = 0

        def watch(event, args):
            nonlocal count
            if event in WATCHED:
                # Of the two paths of a renaming, either.
                places = [str(place).partition(str(folder)) for place in args[:2]]
                count += any(within and name in place for _, within, place in places)
                if count == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        work(folder)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of a run but the one that holds seconds."""
    files = (f for f in folder.rglob("*") if f.is_file() and f.name != "timings.json")
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}


def flip(file: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
