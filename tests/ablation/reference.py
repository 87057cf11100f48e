"""What the tests of the engine compare: scored positions, the slow reference, a run in memory."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from raretok.ablation import audit, plan
from raretok.ablation.audit import audit_verdict, check_model
from raretok.ablation.checkpoints import Checkpoints
from raretok.ablation.gather import Gathered, check_contexts, gather
from raretok.ablation.head import check_effect, final_head
from raretok.ablation.interventions import check_mode, donors
from raretok.ablation.layers import ablate_layer
from raretok.ablation.method import (
    TOLERANCE,
    apply_method,
    check_tolerance,
    make_method,
    pilot_positions,
)
from raretok.ablation.plan import provenance
from raretok.ablation.sampled import Estimate, sampling_offsets
from raretok.models.adapter import LanguageModel
from raretok.models.rerun import capture
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions
from tests.ablation.modules import delta_loss_modules, real_modules


def at_scored_positions(model, tokens):
    """Residuals, activations, targets and mean activations at all positions but the last."""
    captured = capture(model, tokens)
    return SimpleNamespace(
        resid=captured.resid[:, :-1].flatten(0, 1),
        post=captured.post[:, :-1].flatten(0, 1),
        target=tokens[:, 1:].flatten(),
        mean=captured.post.mean(dim=(0, 1)),
    )


def brute_force(model, scored, effect="total"):
    """Every pair, one by one, through float64 copies of the model's modules."""
    n_pos, d_mlp = scored.post.shape
    pos = torch.arange(n_pos).repeat_interleave(d_mlp)
    neuron = torch.arange(d_mlp).repeat(n_pos)
    pairs = delta_loss_modules(
        real_modules(model),
        scored.resid[pos],
        scored.post[pos],
        scored.target[pos],
        neuron,
        scored.mean[neuron],
        effect=effect,
    )
    return pairs.view(n_pos, d_mlp)


def largest(difference):
    return float(difference.abs().max())


def ablate(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    *,
    mode: str = "mean",
    rng: np.random.Generator | None = None,
    effect: str = "total",
    tolerance: float = TOLERANCE,
    include_first: bool = False,
) -> xr.Dataset:
    """Ablate each neuron of the last MLP at each scored position.

    An activation becomes its mean, zero, or under `resample`, which needs `rng`, that of another
    scored position of the same stratum (raretok/ablation/interventions.py). `effect="direct"` keeps
    the scale of the final norm at its unablated value. `tolerance`, in nats, is the error that the
    mean effect of a neuron over the positions may have; 0 sums over the whole vocabulary.

    Returns `delta_loss[position, neuron]` and `loss[position]` in nats, `post[position, neuron]`
    and `mean_post[neuron]`, labelled by position, and `sampling_error[neuron]`, the standard error
    of the mean effect that the sampling leaves. The mean runs over all real positions of the
    contexts that hold a scored one; `include_first` adds their first tokens, as the released code
    does. A random sample is recomputed by brute force and its largest error kept in the attributes;
    `audit_passed` is 0, with a warning, where that is more than the method explains.
    Raises `UserError` for contexts longer than the model reads, a mode, effect or tolerance that
    is unknown or cannot be served, and where the closed form does not hold.
    """
    check_mode(mode, positions.stratum)
    check_effect(effect)
    check_tolerance(tolerance)
    check_contexts(model, contexts)
    head = final_head(model)
    check_model(model, contexts, positions)
    gathered = gather(model, contexts, positions, include_first=include_first)
    resid, post, target = gathered.rows(slice(None))
    new = gathered.mean if mode == "mean" else torch.zeros_like(gathered.mean)
    new = post[donors(positions.stratum, rng)] if mode == "resample" else new.expand_as(post)
    pilot = pilot_positions(len(positions)).to(model.device)
    method = make_method(
        head,
        resid[pilot],
        post[pilot],
        target[pilot],
        new[pilot],
        tolerance=tolerance,
        n_positions=len(positions),
        effect=effect,
    )
    found = Found.empty(post)
    offset = sampling_offsets(len(positions)).to(model.device)
    for start in range(0, len(positions), plan.BLOCK):
        rows = slice(start, start + plan.BLOCK)
        found.add(
            rows,
            apply_method(method, resid[rows], post[rows], target[rows], new[rows], offset[rows]),
        )
    sizes = {"n_pairs": audit.PAIRS, "n_contexts": audit.CONTEXTS}
    checked, neuron = audit.pairs_to_check(positions, post.shape[1], **sizes)
    pairs = positions[checked], neuron, new[checked, neuron].cpu().numpy()
    exact = audit.own_delta_loss(model, contexts, *pairs, effect=effect)
    error = found.delta_loss[checked, neuron].cpu().numpy().astype(np.float64) - exact
    made = {"mode": mode, "effect": effect, "tolerance": tolerance} | method.described
    made["summed_in_full"] = found.summed_in_full / post.numel()
    n_pairs, largest_error = checked.size, float(np.abs(error).max())
    made |= audit_verdict(model, largest_error, n_pairs, tolerance, len(positions))
    return labelled(model, positions, gathered, found, made)


@dataclass
class Found:
    """The effects of a run, filled block by block."""

    delta_loss: Float[Tensor, "position d_mlp"]
    loss: Float[Tensor, " position"]
    variance: Float[Tensor, " d_mlp"]  # of delta_loss, summed over positions
    summed_in_full: int = 0

    @classmethod
    def empty(cls, post: Float[Tensor, "position d_mlp"]) -> "Found":
        nothing = torch.zeros_like(post[0], dtype=torch.float64)
        return cls(torch.empty_like(post), torch.empty_like(post[:, 0]), nothing)

    def add(self, rows: slice, block: Estimate) -> None:
        self.delta_loss[rows], self.loss[rows] = block.delta_loss, block.loss
        self.variance += block.variance
        self.summed_in_full += block.summed_in_full


def layer_alone(*inputs, **options) -> xr.Dataset:
    """`ablate_layer` of which nothing is kept."""
    with tempfile.TemporaryDirectory() as folder:
        return ablate_layer(*inputs, kept=Checkpoints(Path(folder)), **options)


def labelled(
    model: LanguageModel,
    positions: Positions,
    gathered: Gathered,
    found: Found,
    made: dict[str, str | int | float],
) -> xr.Dataset:
    """The result with names on its axes and how it was made, in the attributes."""
    effect = ("position", "neuron")
    return xr.Dataset(
        data_vars={
            "delta_loss": (effect, found.delta_loss.cpu().numpy(), {"units": "nats"}),
            "post": (effect, gathered.post.cpu().numpy()),
            "loss": ("position", found.loss.cpu().numpy(), {"units": "nats"}),
            "mean_post": ("neuron", gathered.mean.cpu().numpy()),
            "sampling_error": (
                "neuron",
                np.sqrt(found.variance.cpu().numpy()) / len(positions),
                {"units": "nats"},
            ),
        },
        coords={name: ("position", values) for name, values in vars(positions).items()},
        attrs=provenance(model) | made,
    )
