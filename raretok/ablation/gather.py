"""Contexts in, what the ablation needs of them out: passes through the blocks, kept on disk."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.batches import ScoredBatch, context_batches
from raretok.ablation.checkpoints import Arrays, Checkpoints, shown
from raretok.errors import UserError
from raretok.models.adapter import LanguageModel
from raretok.models.rerun import capture, capture_layers
from raretok.paths import digest
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions


@dataclass(frozen=True)
class Gathered:
    """What the closed form needs at the scored positions, and the mean activations."""

    resid: Float[Tensor, "position d_model"]
    post: Float[Tensor, "position d_mlp"]
    target: Int[Tensor, " position"]
    mean: Float[Tensor, " d_mlp"]

    def rows(self, some: slice | Int[Tensor, " some"]) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals, activations and targets of some positions."""
        return self.resid[some], self.post[some], self.target[some]


def gather(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    *,
    include_first: bool = False,
) -> Gathered:
    """Run the contexts that hold scored positions and keep what is needed of them.

    Asked for, first tokens count for the means.
    """
    resid = torch.empty(len(positions), model.architecture.d_model, device=model.device)
    post = torch.empty(len(positions), model.architecture.d_mlp, device=model.device)
    total, count = torch.zeros_like(post[0], dtype=torch.float64), 0
    for batch in context_batches(model, contexts, positions):
        found = run_batch(model, batch, include_first)
        total += found.total
        count += found.count
        resid[batch.rows], post[batch.rows] = found.resid, found.post
    target = torch.from_numpy(positions.target).to(model.device)
    return Gathered(resid, post, target, (total / count).to(post.dtype))


@dataclass(frozen=True)
class OfBatch:
    """What a few contexts give: their scored positions, and their part of the mean."""

    resid: Float[Tensor, "scored d_model"]
    post: Float[Tensor, "scored d_mlp"]
    total: Float[Tensor, " d_mlp"]  # float64 sum over the text
    count: int  # tokens of it


def run_batch(model: LanguageModel, batch: ScoredBatch, include_first: bool) -> OfBatch:
    """One forward pass; asked for, first tokens count as text."""
    seen, text = capture(model, batch.tokens), batch.ablated.clone()
    text[:, 0] = include_first
    check_finite(model, seen.resid, seen.post)
    total = seen.post[text].sum(dim=0, dtype=torch.float64)
    return OfBatch(batch.scored(seen.resid), batch.scored(seen.post), total, int(text.sum()))


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


def mean_activations(
    model: LanguageModel,
    batches: list[ScoredBatch],
    layers: list[int],
    *,
    kept: Checkpoints,
) -> Float[Tensor, "layer d_mlp"]:
    """Mean activations of the neurons of some layers over the text of batches of contexts."""

    def summed(batch: ScoredBatch) -> Arrays:
        seen = capture_layers(model, batch.tokens, layers)
        check_finite(model, *(one.post for one in seen), seen[0].final)
        total = [one.post[batch.ablated].sum(dim=0, dtype=torch.float64) for one in seen]
        return {
            "total": torch.stack(total).cpu().numpy(),
            "count": np.array(int(batch.ablated.sum())),
        }

    parts = [
        kept.part(f"mean-{k}", partial(summed, batch))
        for k, batch in enumerate(shown(batches, "contexts"))
    ]
    mean = sum(part["total"] for part in parts) / sum(part["count"] for part in parts)
    return torch.from_numpy(mean).to(model.device, model.dtype)


def check_finite(model: LanguageModel, *captured: Float[Tensor, "..."]) -> None:
    """Raise `UserError` for activations that are no numbers."""
    if not all(bool(values.isfinite().all()) for values in captured):
        raise UserError(
            f"activations of {model.name} overflow or are no numbers: its weights are damaged, or "
            f"too large for {model.dtype}"
        )


def check_contexts(model: LanguageModel, contexts: Contexts) -> None:
    """Raise `UserError` for contexts longer than the model reads."""
    if contexts.tokens.shape[1] > model.architecture.n_ctx:
        raise UserError(
            f"contexts of {contexts.tokens.shape[1]} tokens do not fit {model.name}, which reads "
            f"{model.architecture.n_ctx}: choose a smaller n_ctx"
        )
