"""What the tests of the engine compare: scored positions, and the slow reference at them."""

from types import SimpleNamespace

import torch

from raretok.ablation.modules import delta_loss_modules, real_modules
from raretok.models import capture


def at_scored_positions(model, tokens):
    """Residuals, activations, targets and mean activations at all positions but the last."""
    captured = capture(model, tokens)
    return SimpleNamespace(
        resid=captured.resid[:, :-1].flatten(0, 1),
        post=captured.post[:, :-1].flatten(0, 1),
        target=tokens[:, 1:].flatten(),
        mean=captured.post.mean(dim=(0, 1)),
    )


def brute_force(model, scored, effect="total"):
    """Every pair, one by one, through float64 copies of the model's modules."""
    n_pos, d_mlp = scored.post.shape
    pos = torch.arange(n_pos).repeat_interleave(d_mlp)
    neuron = torch.arange(d_mlp).repeat(n_pos)
    pairs = delta_loss_modules(
        real_modules(model),
        scored.resid[pos],
        scored.post[pos],
        scored.target[pos],
        neuron,
        scored.mean[neuron],
        effect=effect,
    )
    return pairs.view(n_pos, d_mlp)


def largest(difference):
    return float(difference.abs().max())
