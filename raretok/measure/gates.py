"""How often the gate of a neuron is open: what firing means where activations have either sign."""

import numpy as np
import torch
from jaxtyping import Float, Int

from raretok.ablation.gather import batches_of, real_tokens
from raretok.models.adapter import LanguageModel
from raretok.models.rerun import run
from raretok.text.corpus import Contexts


@torch.no_grad()
def gate_rate(
    model: LanguageModel, contexts: Contexts, used: Int[np.ndarray, " context"]
) -> Float[np.ndarray, " neuron"]:
    """Share of the tokens of some contexts, without first ones, at which each gate is positive."""
    opened, count = np.zeros(model.architecture.d_mlp), 0
    name = f"blocks.{model.architecture.n_layers - 1}.mlp.hook_pre"
    for batch in batches_of(contexts, used):
        length = contexts.length[batch]
        seen = run(model, torch.from_numpy(contexts.tokens[batch, : length.max()]), [name])[name]
        real = real_tokens(length).to(model.device)
        opened += (seen[real] > 0).sum(dim=0).cpu().numpy()
        count += int(real.sum())
    return opened / count
