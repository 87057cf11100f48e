"""Part of a model: run it up to a layer, change the residual there, and run on from it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.errors import UserError
from raretok.models import LanguageModel


def layer_index(model: LanguageModel, layer: int) -> int:
    """A layer counted from the first; a negative one counts from the end, -1 being the last.

    Raises `UserError` for a layer that the model does not have.
    """
    n_layers = model.architecture.n_layers
    if not -n_layers <= layer < n_layers:
        raise UserError(
            f"{model.name} has no layer {layer}: it has 0 to {n_layers - 1}, "
            f"or -{n_layers} to -1 counted from the last"
        )
    return layer % n_layers


def W_out_of(model: LanguageModel, layer: int) -> Float[Tensor, "d_mlp d_model"]:
    """Output weights of the MLP of a layer, in the raw basis."""
    return model.bridge.blocks[layer].mlp.W_out.detach()


@dataclass(frozen=True)
class LayerCapture:
    """What the MLP of one layer writes from, and the residual after it and at the end."""

    post: Float[Tensor, "batch pos d_mlp"]  # input of the layer's W_out
    resid: Float[Tensor, "batch pos d_model"]  # leaving the layer
    final: Float[Tensor, "batch pos d_model"]  # before the final norm


@torch.no_grad()
def capture_layer(
    model: LanguageModel, tokens: Int[Tensor, "batch pos"], layer: int
) -> LayerCapture:
    """Run the blocks once. Right padding needs no mask: no real position reads it."""
    last = model.architecture.n_layers - 1
    names = (
        f"blocks.{layer}.mlp.hook_post",
        f"blocks.{layer}.hook_resid_post",
        f"blocks.{last}.hook_resid_post",
    )
    seen = _run(model, tokens.to(model.device), names)
    return LayerCapture(*(seen[name] for name in names))


def run_from(
    model: LanguageModel, resid: Float[Tensor, "batch pos d_model"], layer: int
) -> Float[Tensor, "batch pos d_model"]:
    """Residual before the final norm, if `resid` leaves `layer`: the later blocks and no others."""
    last = model.architecture.n_layers - 1
    if layer == last:
        return resid
    name = f"blocks.{last}.hook_resid_post"
    # TransformerLens runs every block and puts the residual in at the right one.
    with _skipped([model.bridge.blocks[index] for index in range(layer + 1)]):
        return _run(model, resid, (name,), start_at_layer=layer + 1)[name]


def _run(
    model: LanguageModel, start: Tensor, names: tuple[str, ...], **options: Any
) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    # A hook point may call itself by another name than the one it was asked for.
    def keeper(name: str) -> Callable[..., None]:
        def keep(activation: Tensor, hook: Any) -> None:
            seen[name] = activation

        return keep

    model.bridge.run_with_hooks(
        start,
        fwd_hooks=[(name, keeper(name)) for name in dict.fromkeys(names)],
        return_type=None,
        logits_to_keep=1,
        use_cache=False,
        **options,
    )
    return seen


@contextmanager
def _skipped(blocks: list[Any]) -> Iterator[None]:
    """Let blocks hand on what they are given."""

    def hand_on(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden_states

    # The wrapped module: TransformerLens passes an attribute set on its block on to it.
    wrapped = [block.original_component for block in blocks]
    before = [vars(module).get("forward") for module in wrapped]
    try:
        for module in wrapped:
            module.forward = hand_on
        yield
    finally:
        for module, forward in zip(wrapped, before, strict=True):
            vars(module).pop("forward", None)
            if forward is not None:
                module.forward = forward
