"""Parts of a long computation, each kept once it is made."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]


class Checkpoints:
    """Parts by name: in a directory, or in memory where none is given.

    On disk a part is there whole or not at all. A damaged one fails the checksum that its file
    carries, and counts as never made.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self._held: dict[str, Arrays] = {}
        if folder:
            folder.mkdir(exist_ok=True)

    def part(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The part of this name; made and kept if it is not there."""
        found = self.read(name)
        return self.keep(name, make()) if found is None else found

    def keep(self, name: str, part: Arrays) -> Arrays:
        """Keep a part, in place of an earlier one of that name."""
        if self.folder is None:
            self._held[name] = part
            return part
        partial = self.folder / "partial.npz"
        np.savez(partial, **part)
        os.replace(partial, self.folder / f"{name}.npz")
        return part

    def read(self, name: str) -> Arrays | None:
        """The part of this name; None if it was never finished, or is damaged."""
        if self.folder is None:
            return self._held.get(name)
        try:
            with (
                (self.folder / f"{name}.npz").open("rb") as opened,
                np.load(opened, allow_pickle=False) as record,
            ):
                return dict(record)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
