"""The reference: ablation by brute force through the model's real modules, in double precision."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.models.adapter import LanguageModel


@dataclass(frozen=True)
class RealModules:
    """Double-precision copies of what follows the last MLP's activation, as the model runs it."""

    W_out: Any
    ln_final: Any
    unembed: Any


def real_modules(model: LanguageModel) -> RealModules:
    """Copies of the modules after the last MLP, so that the model itself stays as it is."""
    return RealModules(
        W_out=_double(model.last_block.mlp.out.original_component),
        ln_final=_double_norm(model.bridge.ln_final),
        unembed=_double(model.bridge.unembed.original_component),
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
    return torch.nn.functional.cross_entropy(logits, target, reduction="none")


@contextmanager
def hooked_scale(modules: RealModules, hook: Callable[..., Tensor | None]) -> Iterator[None]:
    """Let `hook` see, or replace, what the final norm divides by."""
    handle = modules.ln_final.hook_scale.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def delta_loss_replaced(
    modules: RealModules,
    resid: Float[Tensor, "pair d_model"],
    post: Float[Tensor, "pair d_mlp"],
    ablated: Float[Tensor, "pair d_mlp"],
    target: Int[Tensor, " pair"],
    *,
    effect: str = "total",
) -> Float[Tensor, " pair"]:
    """Loss change, in nats, of the last MLP's activations being `ablated` instead of `post`.

    They are written into the input of `W_out` and everything after it is run again; under
    `effect="direct"` the final norm divides by the scale seen in the unablated run.
    """
    resid, post, ablated = resid.double(), post.double(), ablated.double()
    mlp_out, ablated_out = modules.W_out(post), modules.W_out(ablated)
    scale: list[Tensor] = []
    with hooked_scale(modules, lambda module, args, seen: scale.append(seen)):
        clean = loss_of(modules, resid, target)
    frozen = scale[0] if effect == "direct" else None
    with hooked_scale(modules, lambda module, args, seen: frozen):
        return loss_of(modules, resid - mlp_out + ablated_out, target) - clean


def delta_loss_modules(
    modules: RealModules,
    resid: Float[Tensor, "pair d_model"],
    post: Float[Tensor, "pair d_mlp"],
    target: Int[Tensor, " pair"],
    neuron: Int[Tensor, " pair"],
    replacement: Float[Tensor, " pair"],
    *,
    effect: str = "total",
) -> Float[Tensor, " pair"]:
    """Loss change of replacing one neuron's activation at each pair of position and neuron."""
    ablated = post.double().clone()
    ablated[torch.arange(len(post)), neuron] = replacement.double()
    return delta_loss_replaced(modules, resid, post, ablated, target, effect=effect)
