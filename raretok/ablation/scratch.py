"""Activations at the scored positions, on disk while a run is under way."""

import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.checkpoints import Arrays, Checkpoints
from raretok.ablation.gather import OfBatch
from raretok.models.adapter import LanguageModel
from raretok.paths import digest


class Scratch:
    """Two files of float32 rows in the order of the positions, and one record a batch.

    A batch of contexts holds positions from all over the run, a block of positions rows from many
    batches: the files turn one order into the other without the whole in memory. A batch counts
    once its record is there, which is after its rows; the record holds their sha256.
    """

    def __init__(self, folder: Path, n_positions: int, model: LanguageModel):
        self.folder, self.records, self.n_positions = folder, Checkpoints(folder), n_positions
        sizes = model.architecture
        self.widths = {"resid": sizes.d_model, "post": sizes.d_mlp}
        self.files = {name: folder / f"{name}.f32" for name in self.widths}
        folder.mkdir(parents=True, exist_ok=True)
        for name, width in self.widths.items():
            with self.files[name].open("ab") as opened:
                opened.truncate(n_positions * width * 4)

    def keep(self, index: int, scored: Int[np.ndarray, " scored"], batch: OfBatch) -> Arrays:
        """Write a batch; its `total` of activations (float64) and their `count`."""
        for name, file in self.files.items():
            with file.open("r+b") as opened:
                rows = getattr(batch, name).cpu().numpy()
                for row, values in zip(scored.tolist(), rows, strict=True):
                    os.pwrite(opened.fileno(), values.tobytes(), row * values.nbytes)
        sha256 = np.array(self._digest(scored))
        record = {"total": batch.total.cpu().numpy(), "count": np.array(batch.count)}
        return self.records.keep(f"batch-{index}", record | {"sha256": sha256})

    def kept(self, index: int, scored: Int[np.ndarray, " scored"]) -> Arrays | None:
        """What `keep` returned, if its rows are still as they were written."""
        record = self.records.read(f"batch-{index}")
        if record is None or str(record["sha256"]) != self._digest(scored):
            return None  # never finished, or damaged: run again
        return record

    def at(self, name: str, chosen: Int[np.ndarray, " chosen"]) -> Float[Tensor, "chosen width"]:
        """Residuals ("resid") or activations ("post") of any positions."""
        shape = (self.n_positions, self.widths[name])
        mapped = np.memmap(self.files[name], np.float32, mode="r", shape=shape)
        return torch.from_numpy(np.array(mapped[chosen]))

    def _digest(self, scored: Int[np.ndarray, " scored"]) -> str:
        return digest(self.at(name, scored).numpy() for name in self.widths)
