"""How often the gate of a neuron is open: what firing means where activations have either sign."""

import numpy as np
import torch
from jaxtyping import Float

from raretok.ablation.batches import context_batches
from raretok.models.adapter import LanguageModel
from raretok.models.rerun import run
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions

GATED = 100  # contexts in which the sign of gates is counted


@torch.no_grad()
def gate_rate(
    model: LanguageModel, contexts: Contexts, positions: Positions
) -> Float[np.ndarray, " neuron"]:
    """Share of the tokens, without first ones, at which each gate is positive.

    Of the first GATED contexts that hold any of the positions.
    """
    opened, count = np.zeros(model.architecture.d_mlp), 0
    name = f"blocks.{model.architecture.n_layers - 1}.mlp.hook_pre"
    used = np.unique(positions.context)[:GATED]
    for batch in context_batches(model, contexts, positions[np.isin(positions.context, used)]):
        seen = run(model, batch.tokens, [name])[name]
        opened += (seen[batch.ablated] > 0).sum(dim=0).cpu().numpy()
        count += int(batch.ablated.sum())
    return opened / count
