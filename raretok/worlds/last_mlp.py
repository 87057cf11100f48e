"""What the last MLP reads at some positions, with and without each head that it can hear.

Everything before the last MLP stays as it is when its neurons are edited, so one capture serves
every planted world: activations of edited neurons follow from it exactly, without a forward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.gather import context_batches
from raretok.models.adapter import LanguageModel
from raretok.stats.documents import ratio_mean
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions

HEARD_LAYERS = 2  # whose heads are ablated: the paper's claims are about the last two layers

Hook = tuple[str, Callable[..., Any]]


@dataclass(frozen=True)
class Branch:
    """One map from the MLP's input to its neurons; a gated MLP has two, the gate first."""

    weight: Float[np.ndarray, "neuron d_model"]
    bias: Float[np.ndarray, " neuron"]

    def __getitem__(self, neurons) -> "Branch":
        return Branch(self.weight[neurons], self.bias[neurons])

    def __call__(self, x: Float[np.ndarray, "*position d_model"]) -> Tensor:
        return torch.from_numpy(x) @ torch.from_numpy(self.weight.T) + torch.from_numpy(self.bias)


@dataclass(frozen=True)
class LastMLP:
    """The last MLP at some positions."""

    positions: Positions
    x: Float[np.ndarray, "position d_model"]  # its input
    post: Float[np.ndarray, "position neuron"]
    resid: Float[np.ndarray, "position d_model"]  # before the final norm
    branches: tuple[Branch, ...]
    W_out: Float[np.ndarray, "neuron d_model"]
    act: Callable[[Tensor], Tensor]
    heads: tuple[tuple[int, int], ...]  # layer and head of each one ablated
    heard_at: Int[np.ndarray, " heard"]  # the positions for which that was run
    x_without: Float[np.ndarray, "head heard d_model"]  # input with one head's output at its mean

    @property
    def W_in(self) -> Float[np.ndarray, "neuron d_model"]:
        return self.branches[-1].weight

    @cached_property
    def mean_post(self) -> Float[np.ndarray, " neuron"]:
        """Mean activations over the text: positions weighted by what they stand for."""
        return ratio_mean(self.post, self.positions.weight).astype(np.float32)

    @cached_property
    def post_without(self) -> Float[np.ndarray, "head heard neuron"]:
        return self.activations(self.x_without, self.branches)

    def activations(
        self, x: Float[np.ndarray, "*position d_model"], branches: tuple[Branch, ...]
    ) -> Float[np.ndarray, "*position member"]:
        """Input of W_out for neurons that read through these branches."""
        pre, *linear = (branch(x) for branch in branches)
        post = self.act(pre)
        for factor in linear:
            post = post * factor
        return post.numpy()


def read_last_mlp(
    model: LanguageModel, contexts: Contexts, positions: Positions, n_heard: int = 40
) -> LastMLP:
    """Run the contexts of these positions, and the first `n_heard` of them without each head."""
    layer = model.architecture.n_layers - 1
    points = [f"blocks.{layer}.{name}" for name in ("mlp.hook_in", "mlp.hook_post")]
    points.append(f"blocks.{layer}.hook_resid_post")
    heads = heard_heads(model)
    outputs = {layer: f"blocks.{layer}.attn.hook_z" for layer, _ in heads}
    points += outputs.values()
    x, post, resid, *z = capture_points(model, contexts, positions, points)
    mean = {layer: one.mean(axis=0) for layer, one in zip(outputs, z, strict=True)}
    few = np.unique(positions.context)[:n_heard]
    heard_at = np.flatnonzero(np.isin(positions.context, few))
    without = np.empty((len(heads), heard_at.size, x.shape[1]), dtype=np.float32)
    for row, (layer, head) in enumerate(heads):
        hook = (outputs[layer], silence(head, mean[layer][head]))
        without[row] = capture_points(model, contexts, positions[heard_at], points[:1], [hook])[0]
    return LastMLP(
        positions,
        x,
        post,
        resid,
        branches_of(model),
        model.W_out.float().cpu().numpy(),
        activation_of(model),
        heads,
        heard_at,
        without,
    )


def heard_heads(model: LanguageModel) -> tuple[tuple[int, int], ...]:
    """Heads of the last two layers that the last MLP can hear.

    In a parallel block the MLP reads what its own layer's attention has not yet written to.
    """
    n_layers = model.architecture.n_layers
    layers = range(max(0, n_layers - HEARD_LAYERS), n_layers - model.architecture.parallel)
    return tuple((layer, head) for layer in layers for head in range(model.architecture.n_heads))


def branches_of(model: LanguageModel) -> tuple[Branch, ...]:
    """The maps into the last MLP's neurons, as float32 arrays."""
    mlp = model.last_block.mlp
    names = ("gate", "in") if model.architecture.gated else ("in",)
    found = []
    for name in names:
        weight = getattr(mlp, f"W_{name}").detach().float().cpu().numpy().T
        bias = getattr(mlp, f"b_{name}", None)
        zero = np.zeros(len(weight), dtype=np.float32)
        found.append(Branch(weight, zero if bias is None else bias.detach().float().cpu().numpy()))
    return tuple(found)


def activation_of(model: LanguageModel) -> Callable[[Tensor], Tensor]:
    """The nonlinearity of the last MLP."""
    inner = model.last_block.mlp.original_component
    return inner.act if hasattr(inner, "act") else inner.act_fn


def silence(head: int, mean: Float[np.ndarray, " d_head"]) -> Callable[..., Tensor]:
    """A hook that holds one head's output at its mean.

    Not at the first token, where a head can look at nothing but itself.
    """

    def hook(z: Tensor, hook: Any) -> Tensor:
        z = z.clone()
        z[:, 1:, head] = torch.from_numpy(mean).to(z)
        return z

    return hook


def capture_points(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    points: list[str],
    hooks: list[Hook] = [],  # noqa: B006  (never written to)
) -> list[Float[np.ndarray, "position *width"]]:
    """Activations of some hook points at these positions; `hooks` act in the same pass."""
    kept: dict[str, list[Tensor]] = {name: [] for name in points}
    order = []
    for batch in context_batches(contexts, positions):
        scored = np.flatnonzero(np.isin(positions.context, batch))
        place = np.argsort(batch)[np.searchsorted(np.sort(batch), positions.context[scored])]
        at = (torch.from_numpy(place), torch.from_numpy(positions.pos[scored]))
        order.append(scored)

        def keeper(name: str, at=at) -> Hook:
            return name, lambda activation, hook: kept[name].append(activation[at].detach())

        tokens = torch.from_numpy(contexts.tokens[batch, : positions.pos[scored].max() + 1])
        with torch.no_grad():
            model.bridge.run_with_hooks(
                tokens.to(model.device),
                fwd_hooks=[*hooks, *(keeper(name) for name in points)],
                return_type=None,
                logits_to_keep=1,
                use_cache=False,
            )
    back = np.argsort(np.concatenate(order))
    return [torch.cat(kept[name]).float().cpu().numpy()[back] for name in points]
