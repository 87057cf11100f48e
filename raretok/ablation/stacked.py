r"""Exact effect of single neurons of any layer: stacks of changed residuals through later blocks.

The change of the residual that leaves layer l is $c_{pos,i}\, W_{out,i}$, in sequential and in
parallel blocks alike. What has become of it before the final norm, at the scored positions, is the
push that raretok/ablation/split.py turns into a loss change.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.batches import ScoredBatch
from raretok.ablation.checkpoints import Arrays, Checkpoints
from raretok.ablation.head import FinalHead, Sandwich, clean_pass
from raretok.ablation.progress import blocks
from raretok.ablation.split import TokenRows, delta_of_pushes, split_vocabulary
from raretok.models.adapter import LanguageModel
from raretok.models.rerun import Capture, capture, run_from_at

STACK = 32  # contexts, at most, that run through the later blocks together
AUDIT_PAIRS = 8
AUDIT_SEED = 0
AUDIT_LIMIT = 1e-3  # nats; a hundred times what rounding was measured to leave


@dataclass(frozen=True)
class Layer:
    """What ablating neurons of one layer needs, whatever the contexts."""

    model: LanguageModel
    head: FinalHead
    rows: TokenRows
    index: int
    W_out: Float[Tensor, "d_mlp d_model"]  # as the MLP has it, times its multiplier
    mean_post: Float[Tensor, " d_mlp"]
    mode: str
    stack: int = STACK
    sandwich: Sandwich | None = None

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
    progress: bool,
) -> tuple[Float[np.ndarray, "position neuron"], Float[np.ndarray, " position"]]:
    """Loss change of ablating each neuron throughout, and loss, at the scored positions."""
    rows, parts = np.concatenate([batch.rows for batch in batches]), []
    chosen = torch.from_numpy(neurons).to(at.model.device)
    # A screen that was computed again on another machine may choose other neurons.
    named = hashlib.sha256(neurons.tobytes()).hexdigest()[:8]
    for step in blocks(len(batches), 1, "exact", progress):
        batch = batches[step.start]
        drawn = torch.from_numpy(offset[batch.rows]).to(at.model.device)
        make = partial(exact_at, at, batch, chosen, drawn, pair_error)
        parts.append(kept.part(f"exact-{named}-{step.start}", make))
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
    split = split_vocabulary(at.rows, clean, batch.target, offset)
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
    return push - push.mean(dim=2, keepdim=True) if at.head.centred else push


def audit(
    at: Layer,
    batches: list[ScoredBatch],
    neurons: Int[np.ndarray, " neuron"],
    found: Float[np.ndarray, "position neuron"],
) -> float:
    """Largest error, in nats, of random pairs of context and neuron run in full through hooks.

    No number if any effect is none.
    """
    rng, errors = np.random.default_rng(AUDIT_SEED), []
    for _ in range(AUDIT_PAIRS):
        batch = batches[rng.integers(len(batches))]
        place, column = rng.integers(len(batch.contexts)), rng.integers(len(neurons))
        mine = (batch.place == place).cpu().numpy()
        expected = through_hooks(at, batch, int(place), int(neurons[column]))
        errors.append(np.abs(found[batch.rows[mine], column] - expected).max())
    return float(np.max(errors)) if np.isfinite(found).all() else math.nan


@torch.no_grad()
def through_hooks(
    at: Layer, batch: ScoredBatch, place: int, neuron: int
) -> Float[np.ndarray, " scored"]:
    """The same by two runs of the whole model over one context, one of them hooked."""
    name = at.model.hook_post(at.index)
    tokens, ablated = batch.tokens[place, None], batch.ablated[place, None]
    mine = batch.place == place

    def ablate(post, hook):
        post = post.clone()
        mine = post.view(*tokens.shape, -1)  # OPT joins batch and positions before its MLP
        mine[..., neuron] = torch.where(ablated, at.value[neuron], mine[..., neuron])
        return post

    def loss(hooks):
        logits = at.model.bridge.run_with_hooks(tokens, fwd_hooks=hooks, return_type="logits")
        log_p = logits[0, batch.pos[mine]].double().log_softmax(dim=-1)
        return -log_p.gather(1, batch.target[mine][:, None]).squeeze(1)

    return (loss([(name, ablate)]) - loss([])).cpu().numpy()
