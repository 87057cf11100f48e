"""The slow reference of the ablation tests."""

import torch

from raretok.ablation.modules import delta_loss_modules, real_modules


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
