"""The ways to ablate every neuron of the last MLP that `raretok bench` compares.

Each takes whole contexts and gives the mean effect of each neuron, in nats, over all positions but
the last of a context. The mean that replaces an activation runs over all tokens but the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.gather import Gathered
from raretok.ablation.head import FinalHead, final_head
from raretok.ablation.method import TOLERANCE, apply_method, make_method, pilot_positions
from raretok.ablation.sampled import AGAIN, PROBE_AGAIN, sampling_offsets
from raretok.models.adapter import LanguageModel
from raretok.models.rerun import capture

Tokens = Int[Tensor, "context pos"]
Neurons = Int[Tensor, " neuron"]
Effects = Float[Tensor, " neuron"]
Mean = Float[Tensor, " d_mlp"]
Losses = Float[Tensor, " position"]
BLOCK = 1024  # positions of the reference at a time
CHUNK = 20  # neurons at a time, as in the released code
REFERENCE_TOLERANCE = 1e-10  # nats a pair: proven bound on what the float64 reference leaves out


def gather(model: LanguageModel, tokens: Tokens, batch: int) -> Gathered:
    """One pass through the blocks, `batch` contexts at a time."""
    resid, post, total = [], [], 0.0
    for part in tokens.split(batch):
        captured = capture(model, part)
        resid.append(captured.resid[:, :-1].flatten(0, 1))
        post.append(captured.post[:, :-1].flatten(0, 1))
        total = total + captured.post[:, 1:].sum(dim=(0, 1), dtype=torch.float64)
    target = tokens[:, 1:].flatten()
    mean = (total / len(target)).to(post[0].dtype)
    return Gathered(torch.cat(resid), torch.cat(post), target, mean)


@dataclass(frozen=True)
class FastRun:
    """Mean effects by the fast path, and how many tokens they took."""

    effects: Float[Tensor, " d_mlp"]
    work: dict[str, int | float]


@torch.no_grad()
def fast_effects(head: FinalHead, scored: Gathered) -> FastRun:
    """The fast path at its default tolerance, at all scored positions."""
    n = len(scored.resid)
    pilot = pilot_positions(n).to(scored.resid.device)
    pilot_rows = scored.rows(pilot)
    method = make_method(head, *pilot_rows, scored.mean, tolerance=TOLERANCE, n_positions=n)
    offset, total = sampling_offsets(n).to(scored.resid.device), 0.0
    pairs = {"sampled_again": 0, "summed_in_full": 0}
    for at in range(0, n, BLOCK):
        rows = slice(at, at + BLOCK)
        found = apply_method(method, *scored.rows(rows), scored.mean, offset[rows])
        total = total + found.delta_loss.sum(dim=0, dtype=torch.float64)
        pairs = {name: count + getattr(found, name) for name, count in pairs.items()}
    plan = method.described
    work = {
        "tolerance": TOLERANCE,
        "tokens_summed": plan["n_head"] + plan["n_tail"],
        "tokens_probed": plan["n_probe"],
        "tokens_again": AGAIN + PROBE_AGAIN,
        "second_order": plan["second_order"],
        **{name: count / scored.post.numel() for name, count in pairs.items()},
    }
    return FastRun(total / n, work)


def fast(model: LanguageModel, tokens: Tokens, batch: int) -> FastRun:
    """Everything the fast path needs: constants of the model, capture, ablation."""
    return fast_effects(final_head(model), gather(model, tokens, batch))


@torch.no_grad()
def reference_effects(
    model: LanguageModel,
    scored: Gathered,
    neurons: Neurons,
    *,
    dtype: torch.dtype = torch.float64,
    tolerance: float = REFERENCE_TOLERANCE,
) -> Effects:
    """Mean effects by the closed form over the whole vocabulary, given the same residuals."""
    head, mean = final_head(model, dtype), scored.mean.to(dtype)
    total = torch.zeros(len(neurons), dtype=torch.float64, device=model.device)
    for at in range(0, len(scored.resid), BLOCK):
        resid, post, target = scored.rows(slice(at, at + BLOCK))
        block = resid.to(dtype), post.to(dtype), target
        found = delta_loss(head, *block, mean, neurons=neurons, tolerance=tolerance)
        total += found.sum(dim=0, dtype=torch.float64)
    return total / len(scored.resid)


@torch.no_grad()
def bridge_forward(model: LanguageModel, tokens: Tokens, batch: int) -> Losses:
    """One forward pass with its loss, in nats, through TransformerLens."""
    options = {"return_type": "loss", "loss_per_token": True}
    return torch.cat([model.bridge(part, **options) for part in tokens.split(batch)]).flatten()


@torch.no_grad()
def plain_forward(model: LanguageModel, tokens: Tokens, batch: int) -> Losses:
    """One forward pass with its loss, in nats, by the Hugging Face model underneath."""
    losses = []
    for part in tokens.split(batch):
        logits = model.bridge.original_model(part, use_cache=False).logits[:, :-1].flatten(0, 1)
        target = part[:, 1:].flatten()
        losses.append(torch.nn.functional.cross_entropy(logits, target, reduction="none"))
    return torch.cat(losses)


def full(model: LanguageModel, tokens: Tokens, neurons: Neurons, mean: Mean, batch: int) -> Effects:
    """The closed form with every pair summed over the whole vocabulary."""
    scored = replace(gather(model, tokens, batch), mean=mean)
    return reference_effects(model, scored, neurons, dtype=mean.dtype, tolerance=0.0)


@torch.no_grad()
def released(
    model: LanguageModel, tokens: Tokens, neurons: Neurons, mean: Mean, batch: int = 1
) -> Effects:
    """The released code's way: context by context, neurons in chunks, norm and unembedding again.

    Its entropies, divergences and frozen projection, computed for each neuron too, are left out.
    """
    W_out, total = model.W_out, torch.zeros(len(neurons), dtype=torch.float64, device=model.device)
    for context in tokens:
        captured = capture(model, context[None])
        resid, post, target = captured.resid[0, :-1], captured.post[0, :-1], context[1:]
        clean = head_loss(model, resid[None], target)
        for at in range(0, len(neurons), CHUNK):
            chunk = neurons[at : at + CHUNK]
            change = (mean[chunk] - post[:, chunk]).T
            rebuilt = resid + change[:, :, None] * W_out[chunk, None]
            delta = head_loss(model, rebuilt, target) - clean
            total[at : at + CHUNK] += delta.sum(dim=1, dtype=torch.float64)
    return total / tokens[:, 1:].numel()


def head_loss(
    model: LanguageModel, resid: Float[Tensor, "neuron pos d_model"], target: Int[Tensor, " pos"]
) -> Float[Tensor, "neuron pos"]:
    """Loss, in nats, from residuals before the final norm, by the model's own modules."""
    log_p = model.bridge.unembed(model.bridge.ln_final(resid)).log_softmax(dim=-1)
    return -log_p.gather(-1, target.expand(len(resid), -1)[..., None]).squeeze(-1)


@torch.no_grad()
def hook_loop(
    model: LanguageModel, tokens: Tokens, neurons: Neurons, mean: Mean, batch: int
) -> Effects:
    """One forward pass of the whole model for each neuron, its activation replaced by a hook."""
    name, chosen = f"blocks.{model.architecture.n_layers - 1}.mlp.hook_post", 0

    def replace(post: Float[Tensor, "batch pos d_mlp"], hook: Any) -> Tensor:
        post = post.clone()
        post[..., chosen] = mean[chosen]
        return post

    clean = bridge_forward(model, tokens, batch)
    effects = []
    for chosen in neurons.tolist():  # noqa: B007  (the hook reads it)
        with model.bridge.hooks(fwd_hooks=[(name, replace)]):
            ablated = bridge_forward(model, tokens, batch)
        effects.append((ablated - clean).mean(dtype=torch.float64))
    return torch.stack(effects) if effects else mean[:0].double()


def attribution(
    model: LanguageModel, tokens: Tokens, batch: int, *, all_layers: bool = True
) -> Float[Tensor, "layer d_mlp"]:
    """AtP (arXiv 2403.00745), first order: gradient of the loss times the change of activation.

    One forward and one backward pass give every layer's MLP; the last layer's row is the one to
    compare. `all_layers=False` stops the backward pass at the last MLP. The loss is summed over
    positions: an activation of the last layer reaches its own position's loss only.
    """
    n_layers = model.architecture.n_layers
    seen: list[Tensor] = []

    def keep(post: Float[Tensor, "batch pos d_mlp"], hook: Any) -> Tensor:
        # The weights need no gradient: the graph begins at the first activation that does.
        seen.append(post if post.requires_grad else post.detach().requires_grad_())
        return seen[-1]

    layers = range(0 if all_layers else n_layers - 1, n_layers)
    hooks = [(f"blocks.{layer}.mlp.hook_post", keep) for layer in layers]
    gradient, product, total, n = 0.0, 0.0, 0.0, tokens[:, 1:].numel()
    for part in tokens.split(batch):
        seen.clear()
        with torch.enable_grad(), model.bridge.hooks(fwd_hooks=hooks):
            loss = model.bridge(part, return_type="loss", loss_per_token=True)
            slopes = torch.autograd.grad(loss.sum(), seen)
        post = [one.detach() for one in seen]
        gradient = gradient + over_positions(slopes)
        product = product + over_positions([a * b for a, b in zip(slopes, post, strict=True)])
        total = total + over_positions([one[:, 1:] for one in post])
    # The mean is known at the end only; it enters linearly, so three sums a neuron suffice.
    return (total / n * gradient - product) / n


def over_positions(
    values: Sequence[Float[Tensor, "batch pos d_mlp"]],
) -> Float[Tensor, "layer d_mlp"]:
    """Sums over contexts and positions, layer by layer."""
    return torch.stack([one.sum(dim=(0, 1), dtype=torch.float64) for one in values])
