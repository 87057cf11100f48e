r"""Exact effect of single neurons of any layer: stacks of changed residuals through later blocks.

The change of the residual that leaves layer l is $c_{pos,i}\, W_{out,i}$, in sequential and in
parallel blocks alike. What has become of it before the final norm, at the scored positions, is the
push that raretok/ablation/split.py turns into a loss change.
"""

import math
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.audit import twice
from raretok.ablation.batches import ScoredBatch
from raretok.ablation.checkpoints import Arrays, Checkpoints, shown
from raretok.ablation.head import FinalHead, Sandwich, clean_pass, sandwich_of
from raretok.ablation.plan import STACK
from raretok.ablation.split import delta_of_pushes, split_vocabulary
from raretok.models.adapter import LanguageModel, W_out_of
from raretok.models.rerun import Capture, capture, run_from_at
from raretok.paths import digest

AUDIT_PAIRS = 8
AUDIT_SEED = 0
AUDIT_LIMIT = 1e-3  # nats; a hundred times what rounding was measured to leave


@dataclass(frozen=True)
class Layer:
    """What ablating neurons of one layer needs, whatever the contexts."""

    model: LanguageModel
    head: FinalHead
    index: int
    mean_post: Float[Tensor, " d_mlp"]
    mode: str = "mean"
    stack: int = STACK

    @cached_property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        """As the MLP has it, times its multiplier."""
        return W_out_of(self.model, self.index)

    @cached_property
    def sandwich(self) -> Sandwich | None:
        return sandwich_of(self.model, layer=self.index)

    @property
    def value(self) -> Float[Tensor, " d_mlp"]:
        """What is put in place of the activations."""
        return self.mean_post if self.mode == "mean" else torch.zeros_like(self.mean_post)

    def moved(
        self, post: Float[Tensor, "*pos d_mlp"], push: Float[Tensor, "*all d_model"]
    ) -> Float[Tensor, "*all d_model"]:
        """What pushing the MLP's output adds to the residual."""
        return self.sandwich.moved(self.sandwich.output(post), push) if self.sandwich else push

    def gradient(
        self, post: Float[Tensor, "*pos d_mlp"], after: Float[Tensor, "*all d_model"]
    ) -> Float[Tensor, "*all d_mlp"]:
        """Gradient by the activations, from the one by the residual."""
        if self.sandwich:
            after = self.sandwich.gradient(self.sandwich.output(post), after)
        return after @ self.W_out.T


def exact(
    at: Layer,
    batches: list[ScoredBatch],
    neurons: Int[np.ndarray, " neuron"],
    offset: Float[np.ndarray, " position"],
    *,
    pair_error: float,
    kept: Checkpoints,
) -> tuple[Float[np.ndarray, "position neuron"], Float[np.ndarray, " position"]]:
    """Loss change of ablating each neuron throughout, and loss, at the scored positions."""
    rows, parts = np.concatenate([batch.rows for batch in batches]), []
    chosen = torch.from_numpy(neurons).to(at.model.device)
    # A screen that was computed again on another machine may choose other neurons.
    named = digest([neurons])[:8]
    for k, batch in enumerate(shown(batches, "exact")):
        drawn = torch.from_numpy(offset[batch.rows]).to(at.model.device)
        make = partial(exact_at, at, batch, chosen, drawn, pair_error)
        parts.append(kept.part(f"exact-{named}-{k}", make))
    order = np.argsort(rows)
    delta, loss = (np.concatenate([part[n] for part in parts]) for n in ("delta_loss", "loss"))
    return delta[order], loss[order]


def exact_at(
    at: Layer,
    batch: ScoredBatch,
    neurons: Int[Tensor, " neuron"],
    offset: Float[Tensor, " scored"],
    pair_error: float,
) -> Arrays:
    """The same for one batch of contexts."""
    captured = capture(at.model, batch.tokens, at.index)
    clean = clean_pass(at.head, batch.scored(captured.final), batch.target, double=False)
    split = split_vocabulary(at.head, clean, batch.target, offset)
    found = [
        delta_of_pushes(
            at.head,
            clean,
            split,
            pushes(at, batch, captured, chunk),
            batch.target,
            pair_error=pair_error,
        )
        for chunk in neurons.split(max(1, at.stack // len(batch.tokens)))
    ]
    delta = torch.cat(found, dim=1)
    return {"delta_loss": delta.cpu().numpy(), "loss": clean.loss.cpu().numpy()}


@torch.no_grad()
def pushes(
    at: Layer, batch: ScoredBatch, captured: Capture, neurons: Int[Tensor, " neuron"]
) -> Float[Tensor, "scored neuron d_model"]:
    """What ablating each neuron adds to the final residual at the scored positions."""
    change = (at.value[neurons] - captured.post[..., neurons]) * batch.ablated[..., None]
    W_out = at.W_out[neurons]
    if at.index == at.model.architecture.n_layers - 1:
        push = torch.einsum("pn,nd->npd", batch.scored(change), W_out)
        push = at.moved(batch.scored(captured.post), push).transpose(0, 1)
    else:
        push = at.moved(captured.post, torch.einsum("bpn,nd->nbpd", change, W_out))
        moved = captured.resid + push
        n, n_batch = moved.shape[:2]
        place = (torch.arange(n, device=moved.device)[:, None] * n_batch + batch.place).flatten()
        stack, pos = moved.flatten(0, 1), batch.pos.repeat(n)
        arrived = run_from_at(at.model, stack, at.index, place, pos).unflatten(0, (n, -1))
        push = (arrived - batch.scored(captured.final)).transpose(0, 1)
    return at.head.centring(push)


def audit(
    at: Layer,
    batches: list[ScoredBatch],
    neurons: Int[np.ndarray, " neuron"],
    found: Float[np.ndarray, "position neuron"],
) -> float:
    """Largest error, in nats, of random pairs of context and neuron, by whole runs of the model.

    No number if any effect is none.
    """
    rng, errors = np.random.default_rng(AUDIT_SEED), []
    for _ in range(AUDIT_PAIRS):
        batch = batches[rng.integers(len(batches))]
        place, column = rng.integers(len(batch.contexts)), rng.integers(len(neurons))
        one, neuron = batch.alone(int(place)), int(neurons[column])

        def change(post: Tensor, ablated=one.ablated, neuron=neuron) -> None:
            post[..., neuron] = torch.where(ablated, at.value[neuron], post[..., neuron])

        expected = twice(at.model, one, change, "total", at.index).cpu().numpy()
        errors.append(np.abs(found[one.rows, column] - expected).max())
    return float(np.max(errors)) if np.isfinite(found).all() else math.nan
