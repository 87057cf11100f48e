"""Contexts with scored positions, as they go through the layers together."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from raretok.models.adapter import LanguageModel
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions

BATCH = 8  # contexts a forward pass
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
    whole: bool = False,
) -> list[ScoredBatch]:
    """All contexts that hold a scored position, at most `size` together, or `most` such positions.

    Tokens after the last scored one change nothing, and are left out unless the contexts are to be
    `whole`.
    """
    used, of, held = np.unique(positions.context, return_inverse=True, return_counts=True)
    until = contexts.length[used] * whole
    np.maximum.at(until, of, positions.pos + 1)
    order = np.argsort(until, kind="stable")  # of like length together: little padding is run
    # Whole contexts in which every position is scored would else fill the memory with logits.
    by_number = np.concatenate([[0], np.cumsum(held[order])[:-1]]) // (most or held.sum())
    edges = np.flatnonzero(np.diff(by_number)) + 1
    groups = [
        part[at : at + size] for part in np.split(order, edges) for at in range(0, len(part), size)
    ]
    return [_batch(model, contexts, positions, used[group], until[group]) for group in groups]


def context_batches(
    model: LanguageModel, contexts: Contexts, positions: Positions
) -> list[ScoredBatch]:
    """The same contexts to their ends, which means are taken over."""
    return scored_batches(model, contexts, positions, size=BATCH, most=None, whole=True)


def _batch(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    chosen: Int[np.ndarray, " batch"],
    until: Int[np.ndarray, " batch"],
) -> ScoredBatch:
    rows = np.flatnonzero(np.isin(positions.context, chosen))
    place = np.argsort(chosen)[np.searchsorted(np.sort(chosen), positions.context[rows])]
    pos = np.arange(until.max())
    tensors = (
        contexts.tokens[chosen, : until.max()],
        (pos > 0) & (pos < contexts.length[chosen][:, None]),
        place,
        positions.pos[rows],
        positions.target[rows],
    )
    return ScoredBatch(chosen, rows, *(torch.from_numpy(one).to(model.device) for one in tensors))
