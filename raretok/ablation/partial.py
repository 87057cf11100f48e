"""Part of a model: run it up to a layer, change the residual there, and run on from it."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.errors import NotTestableError, UserError
from raretok.models.adapter import LanguageModel


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
    """Output weights of the MLP of a layer, times the multiplier of its output.

    Raises `NotTestableError` for a layer without one dense MLP.
    """
    try:
        W_out = model.down(layer)[0]
        sandwich = model.post_norm(layer) is not None  # its gain has the multiplier
        return W_out if sandwich else W_out * model.architecture.out_scale
    except AttributeError:
        raise NotTestableError(
            f"layer {layer} of {model.name} has no dense MLP: choose another layer"
        ) from None


@dataclass(frozen=True)
class LayerCapture:
    """What the MLP of one layer writes from, and the residual after it and at the end."""

    post: Float[Tensor, "batch pos d_mlp"]  # input of the layer's W_out
    resid: Float[Tensor, "batch pos d_model"]  # leaving the layer
    final: Float[Tensor, "batch pos d_model"]  # before the final norm


def capture_layer(
    model: LanguageModel, tokens: Int[Tensor, "batch pos"], layer: int
) -> LayerCapture:
    """Run the blocks once. Right padding needs no mask: no real position reads it."""
    return capture_layers(model, tokens, [layer])[0]


@torch.no_grad()
def capture_layers(
    model: LanguageModel, tokens: Int[Tensor, "batch pos"], layers: list[int]
) -> list[LayerCapture]:
    """The same of several layers, still in one run."""
    names = [(model.hook_post(n), f"blocks.{n}.hook_resid_post") for n in layers]
    final = f"blocks.{model.architecture.n_layers - 1}.hook_resid_post"
    wanted = (*(name for pair in names for name in pair), final)
    seen = _run(model, tokens.to(model.device), wanted)
    return [LayerCapture(seen[post], seen[resid], seen[final]) for post, resid in names]


def check_resumes(model: LanguageModel) -> None:
    """Raise `NotTestableError` for a model that TransformerLens cannot run from its middle."""
    # Both run the model, so both must be known before anything is hooked or replaced.
    if not (model.n_outputs and model.resumes):
        raise NotTestableError(
            f"TransformerLens cannot run {model.name} ({model.architecture.family}) from its "
            "middle: its layers before the last are out of reach"
        )


def run_from(
    model: LanguageModel, resid: Float[Tensor, "batch pos d_model"], layer: int
) -> Float[Tensor, "batch pos d_model"]:
    """Residual before the final norm, if `resid` leaves `layer`: the later blocks and no others.

    Raises `NotTestableError` for a model that TransformerLens cannot run from its middle.
    """
    last = model.architecture.n_layers - 1
    if layer == last:
        return resid
    check_resumes(model)
    name = f"blocks.{last}.hook_resid_post"
    # TransformerLens runs every block and puts the residual in at the right one.
    with ExitStack() as skipped:
        for block in range(layer + 1):
            skip = partial(_hand_on, model.n_outputs[block])
            skipped.enter_context(_replaced(model.bridge.blocks[block], skip))
        return _run(model, resid, (name,), start_at_layer=layer + 1)[name]


def run_from_at(
    model: LanguageModel,
    resid: Float[Tensor, "batch pos d_model"],
    layer: int,
    place: Int[Tensor, " row"],
    pos: Int[Tensor, " row"],
) -> Float[Tensor, "row d_model"]:
    """`run_from` at some positions of some contexts.

    The last MLP, two thirds of its block, runs at these alone, where it is a module of one input.
    """
    check_resumes(model)
    mlp, block = model.last_block.mlp.original_component, model.last_block.original_component
    if mlp is block or len(inspect.signature(mlp.forward).parameters) > 1:
        return run_from(model, resid, layer)[place, pos]
    whole = mlp.forward

    def at_rows(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = torch.zeros_like(hidden_states)
        out[place, pos] = whole(hidden_states[place, pos][None], *args, **kwargs)[0]
        return out

    with _replaced(model.last_block.mlp, at_rows):
        return run_from(model, resid, layer)[place, pos]


def _run(
    model: LanguageModel, start: Tensor, names: tuple[str, ...], **options: Any
) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    # A hook point may call itself by another name than the one it was asked for.
    def keeper(name: str) -> Callable[..., None]:
        def keep(activation: Tensor, hook: Any) -> None:
            # OPT joins batch and positions before its MLP.
            seen[name] = activation.reshape(*start.shape[:2], -1)

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


def _hand_on(
    n_outputs: int, hidden_states: Tensor, *args: Any, **kwargs: Any
) -> Tensor | tuple[Tensor | None, ...]:
    return (hidden_states, *[None] * (n_outputs - 1)) if n_outputs else hidden_states


@contextmanager
def _replaced(bridge: Any, forward: Callable[..., Tensor]) -> Iterator[None]:
    """Let the module that a part of TransformerLens wraps compute something else."""
    module = bridge.original_component
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before
