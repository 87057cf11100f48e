"""Contexts with scored positions, as they go through the layers together, and their means."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from raretok.ablation.checkpoints import Arrays, Checkpoints
from raretok.ablation.gather import BATCH, check_finite, real_tokens, scored_in
from raretok.ablation.progress import shown
from raretok.models.adapter import LanguageModel
from raretok.models.rerun import capture_layers
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions

SCORED = 256  # positions that go through the head together, and those that end their context


@dataclass(frozen=True)
class ScoredBatch:
    """A few contexts up to their last scored position, and what is scored in them."""

    contexts: Int[np.ndarray, " batch"]
    rows: Int[np.ndarray, " scored"]  # indices into the positions of the run
    tokens: Int[Tensor, "batch pos"]
    ablated: Bool[Tensor, "batch pos"]  # text: not padding and not the first token
    place: Int[Tensor, " scored"]  # context of each scored position, within the batch
    pos: Int[Tensor, " scored"]
    target: Int[Tensor, " scored"]

    def scored(self, values: Float[Tensor, "batch pos *width"]) -> Float[Tensor, "scored *width"]:
        """What stands at the scored positions."""
        return values[self.place, self.pos]

    def alone(self, place: int) -> "ScoredBatch":
        """One of the contexts."""
        mine, some = self.place == place, slice(place, place + 1)
        per_context = self.tokens[some], self.ablated[some]
        rows, pos = self.rows[mine.cpu().numpy()], self.pos[mine]
        scored = torch.zeros_like(pos), pos, self.target[mine]
        return ScoredBatch(self.contexts[some], rows, *per_context, *scored)


def scored_batches(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    *,
    size: int = BATCH,
    most: int | None = SCORED,
) -> list[ScoredBatch]:
    """All contexts that hold a scored position, at most `size` together, or `most` such positions.

    Tokens after the last scored one change nothing, and are left out.
    """
    used, of, held = np.unique(positions.context, return_inverse=True, return_counts=True)
    until = np.zeros_like(used)
    np.maximum.at(until, of, positions.pos + 1)
    order = np.argsort(until, kind="stable")  # of like length together: little padding is run
    # Whole contexts in which every position is scored would else fill the memory with logits.
    by_number = np.concatenate([[0], np.cumsum(held[order])[:-1]]) // (most or held.sum())
    edges = np.flatnonzero(np.diff(by_number)) + 1
    groups = [
        part[at : at + size] for part in np.split(order, edges) for at in range(0, len(part), size)
    ]
    return [_batch(model, contexts, positions, used[group], until[group]) for group in groups]


def _batch(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    chosen: Int[np.ndarray, " batch"],
    until: Int[np.ndarray, " batch"],
) -> ScoredBatch:
    rows, place = scored_in(chosen, positions)
    tensors = (
        torch.from_numpy(contexts.tokens[chosen, : until.max()]),
        real_tokens(contexts.length[chosen])[:, : until.max()],
        torch.from_numpy(place),
        torch.from_numpy(positions.pos[rows]),
        torch.from_numpy(positions.target[rows]),
    )
    return ScoredBatch(chosen, rows, *(tensor.to(model.device) for tensor in tensors))


def mean_activations(
    model: LanguageModel,
    contexts: Contexts,
    batches: list[Int[np.ndarray, " _"]],
    layers: list[int],
    *,
    kept: Checkpoints,
    progress: bool,
) -> Float[Tensor, "layer d_mlp"]:
    """Mean activations of the neurons of some layers over the text of batches of contexts."""

    def summed(batch: Int[np.ndarray, " batch"]) -> Arrays:
        length = contexts.length[batch]
        tokens = torch.from_numpy(contexts.tokens[batch, : length.max()])
        seen = capture_layers(model, tokens, layers)
        check_finite(model, *(one.post for one in seen), seen[0].final)
        real = real_tokens(length).to(model.device)
        total = torch.stack([one.post[real].sum(dim=0, dtype=torch.float64) for one in seen])
        return {"total": total.cpu().numpy(), "count": np.array(int(real.sum()))}

    parts = [
        kept.part(f"mean-{k}", partial(summed, batch))
        for k, batch in enumerate(shown(batches, "contexts", progress))
    ]
    mean = sum(part["total"] for part in parts) / sum(part["count"] for part in parts)
    return torch.from_numpy(mean).to(model.device, model.dtype)
