"""How often the gate of a neuron is open: what firing means where activations have either sign."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.models.adapter import LanguageModel
from raretok.text.corpus import Contexts

BATCH = 8  # contexts a forward pass


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
        real = (pos > 0) & (pos < contexts.length[some, None])
        pre = seen(model, torch.from_numpy(contexts.tokens[some, :width]), name)
        opened += (pre[torch.from_numpy(real).to(pre.device)] > 0).sum(dim=0).cpu().numpy()
        count += int(real.sum())
    return opened / count


def seen(model: LanguageModel, tokens: Int[Tensor, "batch pos"], name: str) -> Tensor:
    """One activation of one forward pass."""
    kept: list[Tensor] = []

    def keep(activation: Tensor, hook: Any) -> None:
        kept.append(activation.detach())

    hooks: list[tuple[str, Callable[..., None]]] = [(name, keep)]
    options = {"return_type": None, "logits_to_keep": 1, "use_cache": False}
    with torch.no_grad():
        model.bridge.run_with_hooks(tokens.to(model.device), fwd_hooks=hooks, **options)
    return kept[0]
