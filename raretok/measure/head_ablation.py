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

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.batches import ScoredBatch
from raretok.ablation.head import capped_loss
from raretok.measure.attention import WHOLE, Target
from raretok.measure.attention_capture import whole_batches
from raretok.models.adapter import Architecture, LanguageModel
from raretok.models.rerun import Hook, check_resumes, run, run_after
from raretok.text.corpus import Contexts
from raretok.text.rarity import MIDDLE, Positions

Random = np.random.Generator
Mode = Literal["mean", "zero", "resample", "first"]
HeadOutputs = Float[Tensor, "context pos head d_head"]
Changes = tuple[Float[Tensor, "query d_mlp"], Float[Tensor, " query"]]


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


@torch.no_grad()
def ablate_heads(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    targets: list[Target],
    mode: Mode,
    *,
    rng: Random,
    per_context: int = 1,
) -> HeadEffects:
    """Ablate heads, one target after the other, and see what changes at the scored positions.

    `first` scores at most `per_context` positions of each class in a context, one at a time.
    """
    few = few_per_context(positions, per_context, rng=rng)
    positions = positions[few] if mode == "first" else positions
    layers = sorted({layer for layer, _ in targets})
    post = np.empty((len(positions), model.architecture.d_mlp), dtype=np.float32)
    change = np.zeros((len(targets), *post.shape), dtype=np.float32)
    delta_loss = np.zeros((len(targets), len(positions)), dtype=np.float32)
    pooled = mode in ("mean", "resample")
    pool = gather_pool(model, contexts, positions, layers) if pooled else None
    for batch in whole_batches(model, contexts, positions):
        donor = donors(positions, batch, rng=rng) if mode == "resample" else None
        clean = AblationRun(model, batch, layers, partial(replacement, mode, pool, donor))
        post[batch.rows] = clean.clean.post.cpu().numpy()
        for index, target in enumerate(targets):
            new, loss = clean.ablated(*target, one_by_one=mode == "first")
            change[index, batch.rows] = new.cpu().numpy()
            delta_loss[index, batch.rows] = loss.cpu().numpy()
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
    for batch in whole_batches(model, contexts, positions):
        seen = run(model, batch.tokens, [hook_z(layer) for layer in layers])
        count += int(batch.ablated.sum())
        order.append(batch.rows)
        for layer in layers:
            z = seen[hook_z(layer)]
            total[layer] = total[layer] + z[batch.ablated].sum(dim=0)
            rows[layer].append(batch.scored(z))
    back = torch.from_numpy(np.argsort(np.concatenate(order)))
    return Pool(
        {layer: torch.cat(rows[layer])[back] for layer in layers},
        {layer: total[layer] / count for layer in layers},
    )


def replacement(
    mode: Mode,
    pool: Pool | None,
    donor: Int[Tensor, "context pos"] | None,
    layer: int,
    z: HeadOutputs,
) -> HeadOutputs:
    """What the heads of a layer write where they are ablated."""
    if mode == "mean":
        return pool.mean[layer].expand_as(z)
    if mode == "zero":
        return torch.zeros_like(z)
    if mode == "resample":
        return pool.z[layer][donor.to(z.device)]
    return z[:, :1].expand_as(z)  # alone with itself, the first token hands on its value


@dataclass(frozen=True)
class Ended:
    """Where a run ended at some positions: what the last MLP and the final norm saw."""

    post: Float[Tensor, "query d_mlp"]
    resid: Float[Tensor, "query d_model"]


class AblationRun:
    """One batch of contexts, run clean, to be run again with heads ablated."""

    def __init__(
        self,
        model: LanguageModel,
        batch: ScoredBatch,
        layers: list[int],
        replacement: Callable[[int, HeadOutputs], HeadOutputs],
    ) -> None:
        """Run it; what heads of a layer write is `replacement(layer, z)` where they are ablated.

        Raises `NotTestableError` for a model that cannot be run from its middle.
        """
        check_resumes(model)
        self.model, self.batch, self.last = model, batch, model.architecture.n_layers - 1
        self.names = model.hook_post(), f"blocks.{self.last}.hook_resid_post"
        before = {*layers, *(layer + 1 for layer in layers if layer < self.last)}
        of_layers = [f"blocks.{n}.hook_resid_pre" for n in before] + [hook_z(n) for n in layers]
        seen = run(model, batch.tokens, [*self.names, *of_layers])
        self.resid = {n: seen[f"blocks.{n}.hook_resid_pre"] for n in before}
        self.z = {n: seen[hook_z(n)] for n in layers}
        self.new = {n: replacement(n, z) for n, z in self.z.items()}
        self.clean = Ended(*(batch.scored(seen[name]) for name in self.names))
        self.loss = row_loss(model, self.clean.resid, batch.target)
        self.every = torch.arange(len(batch.rows), device=model.device)

    @cached_property
    def alone(self) -> Ended:
        """What rows of the last layer are compared with, run as they are: no effect is then 0."""
        return self._rows(self.last, self.z[self.last], self.every)

    def ablated(self, layer: int, head: int, one_by_one: bool) -> Changes:
        """Change of the last MLP and of the loss at each scored position."""
        batch, z = self.batch, self._ablated_z(layer, head)
        if layer == self.last:
            return self._changes(self._rows(layer, z, self.every), self.alone)
        if not one_by_one:
            hooks = [written(layer, z)]
            seen = run_after(self.model, self.resid[layer], layer - 1, self.names, hooks)
            return self._changes(Ended(*(batch.scored(seen[name]) for name in self.names)))
        turn = rank_among_equals(batch.place.cpu().numpy())  # one query of a context at a time
        post, resid = self.clean.post.clone(), self.clean.resid.clone()
        for number in range(turn.max() + 1):
            query = self.every[torch.from_numpy(turn == number)]
            ended = self._rows(layer, z, query)
            post[query], resid[query] = ended.post, ended.resid
        return self._changes(Ended(post, resid))

    def _ablated_z(self, layer: int, head: int) -> HeadOutputs:
        """Head outputs with one head, or all of them, replaced at every position but the first."""
        z = self.z[layer]
        heads = torch.arange(z.shape[2], device=z.device)
        heads = heads == head if head != WHOLE else heads >= 0
        mask = (self.batch.ablated[:, :, None] & heads)[..., None]
        return torch.where(mask, self.new[layer], z)

    def _rows(self, layer: int, z: HeadOutputs, query: Int[Tensor, " chosen"]) -> Ended:
        """Run on with `z` at some of the scored positions only; what these end with.

        Given its `z`, a layer reads no other position: it is run at these alone.
        """
        at = self.batch.place[query], self.batch.pos[query]
        through, hooks = f"blocks.{layer}.hook_resid_post", [written(layer, z[at][:, None])]
        alone = self.resid[layer][at][:, None]
        rows = run_after(self.model, alone, layer - 1, [self.names[0], through], hooks)
        if layer == self.last:
            return Ended(rows[self.names[0]][:, 0], rows[through][:, 0])
        resid = self.resid[layer + 1].clone()
        resid[at] = rows[through][:, 0]
        seen = run_after(self.model, resid, layer, self.names)
        return Ended(*(seen[name][at] for name in self.names))

    def _changes(self, ended: Ended, clean: Ended | None = None) -> Changes:
        loss = row_loss(self.model, ended.resid, self.batch.target)
        return ended.post - (clean or self.clean).post, loss - self.loss


def hook_z(layer: int) -> str:
    """Name of the hook that sees what the heads of a layer hand on."""
    return f"blocks.{layer}.attn.hook_z"


def written(layer: int, z: Float[Tensor, "batch pos head d_head"]) -> Hook:
    """A hook that lets the heads of a layer write `z`."""
    return hook_z(layer), lambda activation, hook: z


def row_loss(
    model: LanguageModel, resid: Float[Tensor, "query d_model"], target: Int[Tensor, " query"]
) -> Float[Tensor, " query"]:
    """Loss of each target, nats, from the residual before the final norm."""
    logits = model.bridge.unembed(model.bridge.ln_final(resid)).float()
    sizes = model.architecture
    return capped_loss(sizes.logit_scale * logits, target.to(logits.device), sizes.softcap)


def donors(positions: Positions, batch: ScoredBatch, *, rng: Random) -> Int[Tensor, "context pos"]:
    """For every position of a batch a scored one; of its class, where it is scored itself."""
    n = len(positions)
    donor = rng.integers(n, size=tuple(batch.tokens.shape))
    at = (batch.rows.tolist(), batch.place.tolist(), batch.pos.tolist())
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
    return pd.Series(key).groupby(key).cumcount().to_numpy()
