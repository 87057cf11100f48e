"""Running a model again from one of its layers, with other head outputs in that layer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.partial import check_resumes, run_from
from raretok.models.adapter import LanguageModel

Queries = Int[Tensor, " query"]
Resid = Float[Tensor, "query d_model"]
HeadOutputs = Float[Tensor, "query head d_head"]
Hook = tuple[str, Callable[..., Tensor | None]]


@dataclass(frozen=True)
class Ended:
    """Where a run ended: what the last MLP and the final norm saw."""

    post: Float[Tensor, "batch pos d_mlp"]
    resid: Float[Tensor, "batch pos d_model"]

    def at(self, place: Queries, pos: Queries) -> "Ended":
        """The rows of some positions, as a batch of one position each."""
        return Ended(self.post[place, pos][:, None], self.resid[place, pos][:, None])


class CleanPass:
    """One forward pass, kept so that its later layers can be run again."""

    def __init__(
        self, model: LanguageModel, tokens: Int[Tensor, "batch pos"], layers: list[int]
    ) -> None:
        """Keep the residual before, and the head outputs in, each of `layers`.

        Raises `NotTestableError` for a model that cannot be run from its middle.
        """
        check_resumes(model)
        self.model = model
        self.resid: dict[int, Float[Tensor, "batch pos d_model"]] = {}
        self.z: dict[int, Float[Tensor, "batch pos head d_head"]] = {}
        hooks = [(f"blocks.{n}.hook_resid_pre", keeper(self.resid, n)) for n in layers]
        hooks += [(f"blocks.{n}.attn.hook_z", keeper(self.z, n)) for n in layers]
        self.ended = ended(model, lambda: watch(model, tokens, {}), hooks)

    def again(self, layer: int, z: Float[Tensor, "batch pos head d_head"]) -> Ended:
        """Run from `layer` on, its heads writing `z`."""
        run = partial(run_from, self.model, self.resid[layer], layer - 1)
        return ended(self.model, run, [written(layer, z)])

    def with_rows(self, layer: int, z: HeadOutputs, place: Queries, pos: Queries) -> Ended:
        """Run from `layer` on, its heads writing `z` at single positions; what these end with."""
        rows = through_layer(self.model, layer, self.resid[layer][place, pos], z)
        if layer == self.model.architecture.n_layers - 1:
            return rows
        resid = self.resid[layer + 1].clone()
        resid[place, pos] = rows.resid[:, 0]
        return ended(self.model, partial(run_from, self.model, resid, layer), []).at(place, pos)


def through_layer(model: LanguageModel, layer: int, resid: Resid, z: HeadOutputs) -> Ended:
    """One layer at single positions: given its `z`, it reads no other position.

    `resid` is that after the layer; `post` is the last MLP's, so it counts in the last layer only.
    """
    return ended(
        model,
        lambda: model.bridge(resid[:, None], start_at_layer=layer, return_type=None),
        [written(layer, z[:, None])],
        layer,
    )


def row_loss(model: LanguageModel, resid: Resid, target: Queries) -> Float[Tensor, " query"]:
    """Loss of each target, nats, from the residual before the final norm."""
    logits = model.bridge.unembed(model.bridge.ln_final(resid)).float()
    logits = model.architecture.logit_scale * logits
    softcap = model.architecture.softcap
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return torch.nn.functional.cross_entropy(logits, target.to(logits.device), reduction="none")


def ended(
    model: LanguageModel, run: Callable[[], Any], hooks: list[Hook], layer: int | None = None
) -> Ended:
    """The last MLP's activations, and the residual after the last or another layer, in a run."""
    last = model.architecture.n_layers - 1
    end: dict[str, Tensor] = {}
    hooks = [
        *hooks,
        (model.hook_post(), keeper(end, "post")),
        (f"blocks.{last if layer is None else layer}.hook_resid_post", keeper(end, "resid")),
    ]
    with model.bridge.hooks(fwd_hooks=hooks):
        run()
    return Ended(end["post"], end["resid"])


def watch(model: LanguageModel, tokens: Int[Tensor, "batch pos"], seen_by: dict[str, Any]) -> None:
    """One forward pass in which hooks see activations, by the names of these."""
    options = {"return_type": None, "logits_to_keep": 1, "use_cache": False}
    with torch.no_grad():
        hooks = list(seen_by.items())
        model.bridge.run_with_hooks(tokens.to(model.device), fwd_hooks=hooks, **options)


def keeper(store: dict, key: Any) -> Callable[..., None]:
    """A hook that stores what it sees."""

    def keep(activation: Tensor, hook: Any) -> None:
        store[key] = activation.detach()

    return keep


def written(layer: int, z: Float[Tensor, "batch pos head d_head"]) -> Hook:
    """A hook that lets the heads of a layer write `z`."""
    return (f"blocks.{layer}.attn.hook_z", lambda activation, hook: z)
