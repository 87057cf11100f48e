"""The ways to ablate every neuron of the last MLP that `raretok bench` compares.

Each takes whole contexts and gives the mean effect of each neuron, in nats, over all positions but
the last of a context. The mean that replaces an activation runs over all tokens but the first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import FinalHead, final_head
from raretok.ablation.method import apply_method, make_method
from raretok.ablation.precision import TOLERANCE, pilot_positions
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


@dataclass(frozen=True)
class Scored:
    """What the head sees at the scored positions, and the mean activations."""

    resid: Float[Tensor, "pos d_model"]
    post: Float[Tensor, "pos d_mlp"]
    target: Int[Tensor, " pos"]
    mean: Mean


def gather(model: LanguageModel, tokens: Tokens, batch: int) -> Scored:
    """One pass through the blocks, `batch` contexts at a time."""
    n_contexts, n_scored = tokens.shape[0], tokens.shape[1] - 1
    sizes = model.architecture
    resid = torch.empty(n_contexts, n_scored, sizes.d_model, device=model.device)
    post = torch.empty(n_contexts, n_scored, sizes.d_mlp, device=model.device)
    total = torch.zeros(sizes.d_mlp, dtype=torch.float64, device=model.device)
    for rows in torch.arange(n_contexts).split(batch):
        captured = capture(model, tokens[rows])
        resid[rows], post[rows] = captured.resid[:, :-1], captured.post[:, :-1]
        total += captured.post[:, 1:].sum(dim=(0, 1), dtype=torch.float64)
    mean = (total / (n_contexts * n_scored)).to(post.dtype)
    return Scored(resid.flatten(0, 1), post.flatten(0, 1), tokens[:, 1:].flatten(), mean)


@dataclass(frozen=True)
class FastRun:
    """Mean effects by the fast path, and how many tokens they took."""

    effects: Float[Tensor, " d_mlp"]
    work: dict[str, int | float]


@torch.no_grad()
def fast_effects(head: FinalHead, scored: Scored) -> FastRun:
    """The fast path at its default tolerance, at all scored positions."""
    n = len(scored.resid)
    pilot = pilot_positions(n).to(scored.resid.device)
    some = (scored.resid[pilot], scored.mean - scored.post[pilot], scored.target[pilot])
    options = {"tolerance": TOLERANCE, "n_positions": n, "effect": "total"}
    method = make_method(head, *some, output=head.mlp_output(scored.post[pilot]), **options)
    offset, again, in_full = sampling_offsets(n).to(scored.resid.device), 0, 0
    total = torch.zeros(scored.post.shape[1], dtype=torch.float64, device=scored.post.device)
    for at in range(0, n, BLOCK):
        rows = slice(at, at + BLOCK)
        block = (scored.resid[rows], scored.post[rows], scored.target[rows])
        found = apply_method(method, *block, scored.mean, offset[rows])
        total += found.delta_loss.sum(dim=0, dtype=torch.float64)
        again, in_full = again + found.sampled_again, in_full + found.summed_in_full
    plan = method.described
    work = {
        "tolerance": TOLERANCE,
        "tokens_summed": plan["n_head"] + plan["n_tail"],
        "tokens_probed": plan["n_probe"],
        "tokens_again": AGAIN + PROBE_AGAIN,
        "second_order": plan["second_order"],
        "sampled_again": again / scored.post.numel(),
        "summed_in_full": in_full / scored.post.numel(),
    }
    return FastRun(total / n, work)


def fast(model: LanguageModel, tokens: Tokens, batch: int) -> FastRun:
    """Everything the fast path needs: constants of the model, capture, ablation."""
    return fast_effects(final_head(model), gather(model, tokens, batch))


@torch.no_grad()
def reference_effects(model: LanguageModel, scored: Scored, neurons: Neurons) -> Effects:
    """Mean effects in float64 over the whole vocabulary, given the same residuals."""
    head, mean = final_head(model, torch.float64), scored.mean.double()
    total = torch.zeros(len(neurons), dtype=torch.float64, device=model.device)
    for at in range(0, len(scored.resid), BLOCK):
        rows = slice(at, at + BLOCK)
        block = (scored.resid[rows].double(), scored.post[rows].double(), scored.target[rows], mean)
        total += delta_loss(head, *block, neurons=neurons, tolerance=REFERENCE_TOLERANCE).sum(dim=0)
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


@torch.no_grad()
def full(model: LanguageModel, tokens: Tokens, neurons: Neurons, mean: Mean) -> Effects:
    """The closed form with every pair summed over the whole vocabulary."""
    scored, head = gather(model, tokens, 1), final_head(model)
    inputs = (scored.resid, scored.post, scored.target, mean)
    found = delta_loss(head, *inputs, neurons=neurons, tolerance=0.0)
    return found.mean(dim=0, dtype=torch.float64)


@torch.no_grad()
def released(model: LanguageModel, tokens: Tokens, neurons: Neurons, mean: Mean) -> Effects:
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
    layers = range(n_layers) if all_layers else range(n_layers - 1, n_layers)
    sums = [0.0, 0.0, 0.0]
    for part in tokens.split(batch):
        for i, found in enumerate(_attribution_sums(model, part, layers)):
            sums[i] = sums[i] + found
    gradient, product, post = sums
    # The mean is known at the end only; it enters linearly, so three sums a neuron suffice.
    return (post / tokens[:, 1:].numel() * gradient - product) / tokens[:, 1:].numel()


def _attribution_sums(
    model: LanguageModel, tokens: Tokens, layers: range
) -> Iterator[Float[Tensor, "layer d_mlp"]]:
    """Sums over positions of the gradient, of gradient times activation, and of the activation."""
    seen: list[Tensor] = []

    def keep(post: Float[Tensor, "batch pos d_mlp"], hook: Any) -> Tensor:
        # The weights need no gradient: the graph begins at the first activation that does.
        post = post if post.requires_grad else post.detach().requires_grad_()
        seen.append(post)
        return post

    hooks = [(f"blocks.{layer}.mlp.hook_post", keep) for layer in layers]
    with torch.enable_grad(), model.bridge.hooks(fwd_hooks=hooks):
        loss = model.bridge(tokens, return_type="loss", loss_per_token=True)
        gradients = torch.autograd.grad(loss.sum(), seen)
    pairs = [(g, post.detach()) for g, post in zip(gradients, seen, strict=True)]
    yield torch.stack([g.sum(dim=(0, 1), dtype=torch.float64) for g, _ in pairs])
    yield torch.stack([(g * post).sum(dim=(0, 1), dtype=torch.float64) for g, post in pairs])
    yield torch.stack([post[:, 1:].sum(dim=(0, 1), dtype=torch.float64) for _, post in pairs])
