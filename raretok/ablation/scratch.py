"""Activations at the scored positions, on disk while a run is under way."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.checkpoints import Checkpoints
from raretok.ablation.gather import Batch
from raretok.models.adapter import LanguageModel

Part = tuple[Float[np.ndarray, " d_mlp"], int]


class Scratch:
    """Two files of float32 rows in the order of the positions, and one record a batch.

    A batch of contexts holds positions from all over the run, a block of positions rows from many
    batches: the files turn one order into the other without the whole in memory. A batch counts
    once its record is there, which is after its rows; the record holds their sha256.
    """

    def __init__(self, folder: Path, n_positions: int, model: LanguageModel):
        self.records = Checkpoints(folder)
        sizes = model.architecture
        self.folder, self.n_positions = folder, n_positions
        self.widths = {"resid": sizes.d_model, "post": sizes.d_mlp}
        for name, width in self.widths.items():
            with self._file(name).open("ab") as opened:
                opened.truncate(n_positions * width * 4)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.f32"

    def keep(self, index: int, batch: Batch) -> Part:
        """Write a batch; its sum of activations (float64) and their number."""
        for name in self.widths:
            self._write(name, batch.scored, getattr(batch, name).cpu().numpy())
        total, sha256 = batch.total.cpu().numpy(), self._digest(batch.scored)
        record = {"total": total, "count": np.array(batch.count), "sha256": np.array(sha256)}
        self.records.keep(f"batch-{index}", record)
        return total, batch.count

    def kept(self, index: int, scored: Int[np.ndarray, " scored"]) -> Part | None:
        """What `keep` returned, if its rows are still as they were written."""
        record = self.records.read(f"batch-{index}")
        if record is None or str(record["sha256"]) != self._digest(scored):
            return None  # never finished, or damaged: run again
        return record["total"], int(record["count"])

    def at(self, name: str, chosen: Int[np.ndarray, " chosen"]) -> Float[Tensor, "chosen width"]:
        """Residuals ("resid") or activations ("post") of any positions."""
        shape = (self.n_positions, self.widths[name])
        mapped = np.memmap(self._file(name), np.float32, mode="r", shape=shape)
        return torch.from_numpy(np.array(mapped[chosen]))

    def _write(
        self, name: str, scored: Int[np.ndarray, " scored"], rows: Float[np.ndarray, "scored width"]
    ) -> None:
        with self._file(name).open("r+b") as opened:
            for start, stop in _stretches(scored):
                opened.seek(int(scored[start]) * self.widths[name] * 4)
                opened.write(rows[start:stop].tobytes())

    def _read(self, name: str, start: int, stop: int) -> Float[np.ndarray, "pos width"]:
        width = self.widths[name]
        with self._file(name).open("rb") as opened:
            opened.seek(start * width * 4)
            values = np.frombuffer(bytearray(opened.read((stop - start) * width * 4)), np.float32)
        return values.reshape(stop - start, width)

    def _digest(self, scored: Int[np.ndarray, " scored"]) -> str:
        total = hashlib.sha256()
        for name in self.widths:
            for start, stop in _stretches(scored):
                first = int(scored[start])
                total.update(self._read(name, first, first + stop - start).tobytes())
        return total.hexdigest()


def _stretches(scored: Int[np.ndarray, " scored"]) -> list[tuple[int, int]]:
    """Where consecutive numbers begin and end: positions of one context lie together."""
    edges = (np.flatnonzero(np.diff(scored) != 1) + 1).tolist()
    return list(zip([0, *edges], [*edges, len(scored)], strict=True))
