"""Parts of a long computation: counted as they are made, and each kept once it is."""

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from raretok.paths import replacing

Arrays = dict[str, np.ndarray]
DIGEST = 32  # bytes of a sha256


def shown(items: Sequence, unit: str) -> tqdm:
    """The items, with a progress bar on stderr if it is a terminal."""
    return tqdm(items, desc=unit, unit=unit[:-1], disable=None)


class Checkpoints:
    """Parts by name, in a directory.

    A part is there whole or not at all: the arrays, as NumPy writes them, behind their sha256. A
    damaged one counts as never made.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def part(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The part of this name; made and kept if it is not there."""
        found = self.read(name)
        return self.keep(name, make()) if found is None else found

    def keep(self, name: str, part: Arrays) -> Arrays:
        """Keep a part, in place of an earlier one of that name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, **part)
        content = buffer.getbuffer()
        with replacing(self._file(name)) as draft:
            draft.write_bytes(hashlib.sha256(content).digest() + content)
        return part

    def read(self, name: str) -> Arrays | None:
        """The part of this name; None if it was never finished, or is damaged."""
        if not self._file(name).is_file():
            return None
        stored = self._file(name).read_bytes()
        digest, content = stored[:DIGEST], stored[DIGEST:]
        if digest != hashlib.sha256(content).digest():
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as record:
            return dict(record)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.part"
