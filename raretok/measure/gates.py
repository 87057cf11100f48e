"""How often the gate of a neuron is open: what firing means where activations have either sign."""

import numpy as np
import torch
from jaxtyping import Float, Int

from raretok.models.adapter import LanguageModel
from raretok.models.rerun import run
from raretok.text.corpus import Contexts

BATCH = 8  # contexts a forward pass


@torch.no_grad()
def gate_rate(
    model: LanguageModel, contexts: Contexts, used: Int[np.ndarray, " context"]
) -> Float[np.ndarray, " neuron"]:
    """Share of the tokens of some contexts, without first ones, at which each gate is positive."""
    opened = np.zeros(model.architecture.d_mlp)
    count, order = 0, used[np.argsort(contexts.length[used], kind="stable")]
    name = f"blocks.{model.architecture.n_layers - 1}.mlp.hook_pre"
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        width = int(contexts.length[some].max())
        pos = np.arange(width)
        real = torch.from_numpy((pos > 0) & (pos < contexts.length[some, None])).to(model.device)
        seen = run(model, torch.from_numpy(contexts.tokens[some, :width]), [name])[name]
        opened += (seen[real] > 0).sum(dim=0).cpu().numpy()
        count += int(real.sum())
    return opened / count
