"""Contexts in, what the closed form needs of them out: one pass through the blocks."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.progress import shown
from raretok.errors import UserError
from raretok.models.adapter import LanguageModel
from raretok.models.rerun import capture
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions

BATCH = 8  # contexts a forward pass


@dataclass(frozen=True)
class Gathered:
    """What the closed form needs at the scored positions, and the mean activations."""

    resid: Float[Tensor, "position d_model"]
    post: Float[Tensor, "position d_mlp"]
    mean_post: Float[Tensor, " d_mlp"]


def gather(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    *,
    include_first: bool,
    progress: bool,
) -> Gathered:
    """Run the contexts that hold scored positions and keep what is needed of them."""
    resid = torch.empty(len(positions), model.architecture.d_model, device=model.device)
    post = torch.empty(len(positions), model.architecture.d_mlp, device=model.device)
    total, count = torch.zeros_like(post[0], dtype=torch.float64), 0
    for some in shown(context_batches(contexts, positions), "contexts", progress):
        batch = run_batch(model, contexts, positions, some, include_first)
        total += batch.total
        count += batch.count
        resid[batch.scored], post[batch.scored] = batch.resid, batch.post
    return Gathered(resid, post, (total / count).to(post.dtype))


@dataclass(frozen=True)
class Batch:
    """What a few contexts give: rows of their scored positions, and their part of the mean."""

    scored: Int[np.ndarray, " scored"]  # indices into the positions of the run
    resid: Float[Tensor, "scored d_model"]
    post: Float[Tensor, "scored d_mlp"]
    total: Float[Tensor, " d_mlp"]  # float64 sum over the real tokens
    count: int


def context_batches(contexts: Contexts, positions: Positions) -> list[Int[np.ndarray, " _"]]:
    """Contexts that hold a scored position, as they are run together."""
    return batches_of(contexts, np.unique(positions.context))


def batches_of(
    contexts: Contexts, used: Int[np.ndarray, " context"]
) -> list[Int[np.ndarray, " _"]]:
    """Contexts of like length together: little padding is run."""
    used = used[np.argsort(contexts.length[used], kind="stable")]
    return [used[start : start + BATCH] for start in range(0, len(used), BATCH)]


def run_batch(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    batch: Int[np.ndarray, " context"],
    include_first: bool,
) -> Batch:
    """One forward pass."""
    length = contexts.length[batch]
    captured = capture(model, torch.from_numpy(contexts.tokens[batch, : length.max()]))
    real = real_tokens(length, include_first).to(model.device)
    scored, place = scored_in(batch, positions)
    check_finite(model, captured.resid, captured.post)
    return Batch(
        scored=scored,
        resid=captured.resid[place, positions.pos[scored]],
        post=captured.post[place, positions.pos[scored]],
        total=captured.post[real].sum(dim=0, dtype=torch.float64),
        count=int(real.sum()),
    )


def scored_in(
    batch: Int[np.ndarray, " context"], positions: Positions
) -> tuple[Int[np.ndarray, " scored"], Int[np.ndarray, " scored"]]:
    """Which positions lie in a batch of contexts, and in which of these."""
    scored = np.flatnonzero(np.isin(positions.context, batch))
    place = np.argsort(batch)[np.searchsorted(np.sort(batch), positions.context[scored])]
    return scored, place


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


def real_tokens(length: Int[np.ndarray, " batch"], include_first: bool = False) -> Tensor:
    """True where a token is text: not padding and, unless asked for, not the first one."""
    pos = np.arange(length.max())
    return torch.from_numpy((pos < length[:, None]) & (pos >= (0 if include_first else 1)))
