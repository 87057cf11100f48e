"""Ablating attention heads: what it does to the last MLP and to the loss at scored positions.

What a head hands to the residual at a position is its row of `hook_z`. It is replaced by
- `mean`: its mean over the positions,
- `zero`,
- `resample`: that of another scored position (of its class, where the position is scored),
- `first`: the value at the first token, as if the head looked nowhere else (released code).

The first three are applied at every position but the first, so that a head is out of the network;
`first` at one query position at a time, as released. In the last layer that is the same thing:
nothing there reads another position any more. The first token is left alone: a head can look at
nothing but itself there.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.errors import UserError
from raretok.measure.attention_capture import Batch, batches
from raretok.measure.head_sums import WHOLE, Target
from raretok.measure.resume import CleanPass, Ended, row_loss
from raretok.models.adapter import Architecture, LanguageModel
from raretok.text.corpus import Contexts
from raretok.text.rarity import MIDDLE, Positions

Random = np.random.Generator
MODES = ("mean", "zero", "resample", "first")
HeadOutputs = Float[Tensor, "context pos head d_head"]
Changes = tuple[Float[Tensor, "query d_mlp"], Float[Tensor, " query"]]


def check_target(architecture: Architecture, target: Target) -> None:
    """Raise `UserError` for a layer or head that the model does not have."""
    layer, head = target
    if not 0 <= layer < architecture.n_layers:
        raise UserError(
            f"layer {layer} is outside the model: choose from 0 to {architecture.n_layers - 1}"
        )
    if head != WHOLE and not 0 <= head < architecture.n_heads:
        raise UserError(
            f"head {head} is outside layer {layer}: choose from 0 to {architecture.n_heads - 1}"
        )


def targets_of(architecture: Architecture, layers: range) -> list[Target]:
    """Every head of some layers, and each of these layers as a whole."""
    heads = (*range(architecture.n_heads), WHOLE)
    return [(layer, head) for layer in layers for head in heads]


@dataclass(frozen=True)
class HeadEffects:
    """Last MLP and loss at scored positions when one head, or one whole layer, is ablated."""

    targets: list[Target]
    positions: Positions
    post: Float[np.ndarray, "position neuron"]  # nothing ablated
    change: Float[np.ndarray, "target position neuron"]  # ablated less clean
    delta_loss: Float[np.ndarray, "target position"]  # nats


def ablate_heads(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    targets: list[Target],
    mode: str,
    *,
    rng: Random,
    per_context: int = 1,
) -> HeadEffects:
    """Ablate heads, one target after the other, and see what changes at the scored positions.

    `first` scores at most `per_context` positions of each class in a context, one at a time.
    Raises `UserError` for a head or layer the model does not have, and for an unknown mode.
    """
    if mode not in MODES:
        raise UserError(f"unknown head ablation {mode!r}: choose one of {', '.join(MODES)}")
    for target in targets:
        check_target(model.architecture, target)
    few = few_per_context(positions, per_context, rng=rng)
    positions = positions[few] if mode == "first" else positions
    layers = sorted({layer for layer, _ in targets})
    post = np.empty((len(positions), model.architecture.d_mlp), dtype=np.float32)
    change = np.zeros((len(targets), *post.shape), dtype=np.float32)
    delta_loss = np.zeros((len(targets), len(positions)), dtype=np.float32)
    with torch.no_grad():
        pooled = mode in ("mean", "resample")
        pool = gather_pool(model, contexts, positions, layers) if pooled else None
        for batch in batches(contexts, positions):
            run = AblationRun(model, batch, positions, layers)
            post[batch.scored] = run.clean_rows.post[:, 0].cpu().numpy()
            run.replace(mode, pool, positions, rng=rng)
            for index, target in enumerate(targets):
                new, loss = run.ablated(*target)
                change[index, batch.scored] = new.cpu().numpy()
                delta_loss[index, batch.scored] = loss.cpu().numpy()
    return HeadEffects(targets, positions, post, change, delta_loss)


@dataclass(frozen=True)
class Pool:
    """What heads write where nothing is ablated, layer by layer; to replace it with."""

    z: dict[int, Float[Tensor, "position head d_head"]]  # at the scored positions
    mean: dict[int, Float[Tensor, "head d_head"]]  # over all positions but first ones


def gather_pool(
    model: LanguageModel, contexts: Contexts, positions: Positions, layers: list[int]
) -> Pool:
    """One pass over the contexts of the scored positions."""
    rows: dict[int, list] = {layer: [] for layer in layers}
    total, count, order = dict.fromkeys(layers, 0.0), 0, []
    for batch in batches(contexts, positions):
        clean = CleanPass(model, batch.tokens, layers)
        count += int(batch.real.sum())
        order.append(batch.scored)
        for layer in layers:
            total[layer] = total[layer] + clean.z[layer][batch.real].sum(dim=0)
            rows[layer].append(clean.z[layer][batch.place, batch.pos])
    back = torch.from_numpy(np.argsort(np.concatenate(order)))
    return Pool(
        {layer: torch.cat(rows[layer])[back] for layer in layers},
        {layer: total[layer] / count for layer in layers},
    )


class AblationRun:
    """One batch of contexts, run clean, to be run again with heads ablated."""

    def __init__(
        self, model: LanguageModel, batch: Batch, positions: Positions, layers: list[int]
    ) -> None:
        self.model, self.batch, self.layers = model, batch, layers
        self.last = model.architecture.n_layers - 1
        kept = sorted({*layers, *(layer + 1 for layer in layers if layer < self.last)})
        self.clean = CleanPass(model, batch.tokens, kept)
        self.clean_rows = self.clean.ended.at(batch.place, batch.pos)
        self.target = torch.from_numpy(positions.target[batch.scored])
        self.loss = row_loss(model, self.clean_rows.resid[:, 0], self.target)
        # What rows are compared with is run as they are, so that no effect is exactly 0.
        self.every = torch.arange(len(batch.scored))
        self.alone = {
            n: self._rows(n, self.clean.z[n], self.every) for n in layers if n == self.last
        }

    def replace(self, mode: str, pool: Pool | None, positions: Positions, *, rng: Random) -> None:
        """Choose what head outputs are replaced with from now on."""
        self.one_by_one = mode == "first"
        donor = donors(positions, self.batch, rng=rng) if mode == "resample" else None
        self.new = {layer: self._replacement(mode, layer, pool, donor) for layer in self.layers}

    def _replacement(
        self, mode: str, layer: int, pool: Pool | None, donor: Int[Tensor, "context pos"] | None
    ) -> HeadOutputs:
        z = self.clean.z[layer]
        if mode == "mean":
            return pool.mean[layer].expand_as(z)
        if mode == "zero":
            return torch.zeros_like(z)
        if mode == "resample":
            return pool.z[layer][donor.to(z.device)]
        return z[:, :1].expand_as(z)  # alone with itself, the first token hands on its value

    def ablated(self, layer: int, head: int) -> Changes:
        """Change of the last MLP and of the loss at each scored position."""
        batch, z = self.batch, self._ablated_z(layer, head)
        if layer == self.last:
            return self._changes(self._rows(layer, z, self.every), self.alone[layer])
        if not self.one_by_one:
            ended = self.clean.again(layer, z)
            return self._changes(ended.at(batch.place, batch.pos), self.clean_rows)
        turn = rank_among_equals(batch.place.numpy())  # one query of a context at a time
        post, resid = self.clean_rows.post.clone(), self.clean_rows.resid.clone()
        for number in range(turn.max() + 1):
            query = torch.from_numpy(np.flatnonzero(turn == number))
            ended = self._rows(layer, z, query)
            post[query], resid[query] = ended.post, ended.resid
        return self._changes(Ended(post, resid), self.clean_rows)

    def _ablated_z(self, layer: int, head: int) -> HeadOutputs:
        """Head outputs with one head, or all of them, replaced at every position but the first."""
        z = self.clean.z[layer]
        heads = torch.arange(z.shape[2]) == head if head != WHOLE else torch.ones(z.shape[2]) > 0
        mask = (self.batch.real[:, :, None] & heads)[..., None]
        return torch.where(mask.to(z.device), self.new[layer], z)

    def _rows(self, layer: int, z: HeadOutputs, query: Int[Tensor, " chosen"]) -> Ended:
        """Run on with `z` at some of the scored positions only."""
        place, pos = self.batch.place[query], self.batch.pos[query]
        return self.clean.with_rows(layer, z[place, pos], place, pos)

    def _changes(self, ended: Ended, clean: Ended) -> Changes:
        loss = row_loss(self.model, ended.resid[:, 0], self.target)
        return (ended.post - clean.post)[:, 0], loss - self.loss


def donors(positions: Positions, batch: Batch, *, rng: Random) -> Int[Tensor, "context pos"]:
    """For every position of a batch a scored one; of its class, where it is scored itself."""
    n = len(positions)
    donor = rng.integers(n, size=tuple(batch.tokens.shape))
    at = (batch.scored.tolist(), batch.place.tolist(), batch.pos.tolist())
    for row, place, pos in zip(*at, strict=True):
        others = np.flatnonzero(positions.stratum == positions.stratum[row])
        others = others[others != row]
        donor[place, pos] = rng.choice(others) if others.size else row
    return torch.from_numpy(donor)


def few_per_context(positions: Positions, most: int, *, rng: Random) -> Int[np.ndarray, " chosen"]:
    """At most so many rare and as many common positions in each context, drawn at random."""
    order = rng.permutation(np.flatnonzero(positions.stratum != MIDDLE))
    classes = int(positions.stratum.max()) + 1
    key = positions.context[order] * classes + positions.stratum[order]
    return np.sort(order[rank_among_equals(key) < most])


def rank_among_equals(key: Int[np.ndarray, " item"]) -> Int[np.ndarray, " item"]:
    """How many equal items stand before each."""
    order = np.argsort(key, kind="stable")
    _, start, size = np.unique(key[order], return_index=True, return_counts=True)
    rank = np.empty_like(key)
    rank[order] = np.arange(key.size) - np.repeat(start, size)
    return rank
