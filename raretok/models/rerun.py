"""Running the blocks of a model: to see and change activations, and on from one of its layers."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.errors import NotTestableError
from raretok.models.adapter import LanguageModel

Resid = Float[Tensor, "batch pos d_model"]
Hook = tuple[str, Callable[..., Tensor | None]]


@dataclass(frozen=True)
class Capture:
    """What the MLP of one layer writes from, and the residual after it and at the end."""

    post: Float[Tensor, "batch pos d_mlp"]  # input of the layer's W_out
    resid: Float[Tensor, "batch pos d_model"]  # leaving the layer
    final: Float[Tensor, "batch pos d_model"]  # before the final norm


def capture(model: LanguageModel, tokens: Int[Tensor, "batch pos"], layer: int = -1) -> Capture:
    """Run the blocks once; the logits of all but the last position are never computed."""
    return capture_layers(model, tokens, [layer % model.architecture.n_layers])[0]


@torch.no_grad()
def capture_layers(
    model: LanguageModel, tokens: Int[Tensor, "batch pos"], layers: list[int]
) -> list[Capture]:
    """The same of several layers, still in one run.

    Right padding needs no mask: no real position reads it.
    """
    names = [(model.hook_post(n), f"blocks.{n}.hook_resid_post") for n in layers]
    final = f"blocks.{model.architecture.n_layers - 1}.hook_resid_post"
    seen = run(model, tokens, [*(name for pair in names for name in pair), final])
    # Blocks may lie on other devices than W_U.
    seen = {name: value.to(model.device) for name, value in seen.items()}
    return [Capture(seen[post], seen[resid], seen[final]) for post, resid in names]


def run(
    model: LanguageModel,
    start: Int[Tensor, "batch pos"] | Resid,
    names: Iterable[str] = (),
    hooks: Iterable[Hook] = (),
    **options: Any,
) -> dict[str, Tensor]:
    """What is seen at hook points by their `names` in one run; `hooks` may change activations."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, activation: Tensor, hook: Any) -> None:
        # OPT joins batch and positions before its MLP.
        apart = activation.shape[:2] == start.shape[:2]
        seen[name] = activation if apart else activation.reshape(*start.shape[:2], -1)

    # A hook point may call itself by another name than the one it was asked for.
    kept = [(name, partial(keep, name)) for name in dict.fromkeys(names)]
    model.bridge.run_with_hooks(
        start.to(model.device),
        fwd_hooks=[*hooks, *kept],
        return_type=None,
        logits_to_keep=1,
        use_cache=False,
        **options,
    )
    return seen


def check_resumes(model: LanguageModel) -> None:
    """Raise `NotTestableError` for a model that TransformerLens cannot run from its middle."""
    # Both run the model, so both must be known before anything is hooked or replaced.
    if not (model.n_outputs and model.resumes):
        raise NotTestableError(
            f"TransformerLens cannot run {model.name} ({model.architecture.family}) from its "
            "middle: its layers before the last are out of reach"
        )


def run_after(
    model: LanguageModel,
    resid: Resid,
    layer: int,
    names: Iterable[str] = (),
    hooks: Iterable[Hook] = (),
) -> dict[str, Tensor]:
    """`run` of the blocks after `layer` and no others, on the residual that leaves it.

    Raises `NotTestableError` for a model that TransformerLens cannot run from its middle.
    """
    check_resumes(model)
    # TransformerLens runs every block and puts the residual in at the right one.
    with ExitStack() as skipped:
        for block in range(layer + 1):
            skip = partial(_hand_on, model.n_outputs[block])
            skipped.enter_context(_replaced(model.bridge.blocks[block], skip))
        return run(model, resid, names, hooks, start_at_layer=layer + 1)


def run_from(model: LanguageModel, resid: Resid, layer: int) -> Resid:
    """Residual before the final norm, if `resid` leaves `layer`. Raises as `run_after` does."""
    last = model.architecture.n_layers - 1
    if layer == last:
        return resid
    name = f"blocks.{last}.hook_resid_post"
    return run_after(model, resid, layer, [name])[name]


def run_from_at(
    model: LanguageModel,
    resid: Resid,
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
