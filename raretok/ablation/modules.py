"""The reference: ablation by brute force through the model's real modules, in double precision."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.models import LanguageModel


@dataclass(frozen=True)
class RealModules:
    """Double-precision copies of what follows the last MLP's activation, as the model runs it."""

    W_out: Any
    post_norm: Any  # sandwich norm between MLP and residual, or None
    ln_final: Any
    unembed: Any
    softcap: float | None


def real_modules(model: LanguageModel) -> RealModules:
    """Copies of the modules after the last MLP, so that the model itself stays as it is."""
    sandwich = getattr(model.last_block, "ln2_post", None)
    return RealModules(
        W_out=_double(model.last_block.mlp.out.original_component),
        post_norm=_double_norm(sandwich) if sandwich is not None else None,
        ln_final=_double_norm(model.bridge.ln_final),
        unembed=_double(model.bridge.unembed.original_component),
        softcap=model.architecture.softcap,
    )


def _double(module: Any) -> Any:
    return copy.deepcopy(module).double()


def _double_norm(norm: Any) -> Any:
    norm = _double(norm)
    # Transformers rounds to float32 inside every RMSNorm; TransformerLens's own path does not.
    norm.use_native_layernorm_autograd = False
    return norm


def loss_of(
    modules: RealModules, resid: Float[Tensor, "pair d_model"], target: Int[Tensor, " pair"]
) -> Float[Tensor, " pair"]:
    """Loss from the residual before the final norm, in nats."""
    logits = modules.unembed(modules.ln_final(resid))
    if modules.softcap is not None:
        logits = modules.softcap * torch.tanh(logits / modules.softcap)
    return torch.nn.functional.cross_entropy(logits, target, reduction="none")


@torch.no_grad()
def delta_loss_modules(
    modules: RealModules,
    resid: Float[Tensor, "pair d_model"],
    post: Float[Tensor, "pair d_mlp"],
    target: Int[Tensor, " pair"],
    neuron: Int[Tensor, " pair"],
    replacement: Float[Tensor, " pair"],
) -> Float[Tensor, " pair"]:
    """Loss change of replacing one neuron's activation at each pair of position and neuron.

    The activation is written into the MLP's input of `W_out` and everything after it is run again.
    """
    resid, post = resid.double(), post.double()
    ablated = post.clone()
    ablated[torch.arange(len(post)), neuron] = replacement.double()
    mlp_out, ablated_out = modules.W_out(post), modules.W_out(ablated)
    if modules.post_norm is not None:
        mlp_out, ablated_out = modules.post_norm(mlp_out), modules.post_norm(ablated_out)
    ablated_resid = resid - mlp_out + ablated_out
    return loss_of(modules, ablated_resid, target) - loss_of(modules, resid, target)


def audit(
    model: LanguageModel,
    resid: Float[Tensor, "pos d_model"],
    post: Float[Tensor, "pos d_mlp"],
    target: Int[Tensor, " pos"],
    replacement: Float[Tensor, "*pos d_mlp"],
    found: Float[Tensor, "pos d_mlp"],
    *,
    n_pairs: int,
    rng: np.random.Generator,
) -> float:
    """Largest error, in nats, of a random sample of (position, neuron) pairs."""
    pos = torch.from_numpy(rng.integers(len(resid), size=n_pairs))
    neuron = torch.from_numpy(rng.integers(post.shape[1], size=n_pairs))
    new = replacement.expand_as(post)[pos, neuron]
    exact = delta_loss_modules(real_modules(model), resid[pos], post[pos], target[pos], neuron, new)
    return float((found[pos, neuron].double() - exact).abs().max())
