"""One run: contexts and positions in, the effect of ablating every final-MLP neuron out."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from raretok import __version__
from raretok.ablation.gather import Gathered, check_contexts, gather
from raretok.ablation.head import check_effect, final_head
from raretok.ablation.interventions import check_mode, replacement
from raretok.ablation.method import apply_method, make_method
from raretok.ablation.modules import audit
from raretok.ablation.precision import TOLERANCE, check_tolerance, pair_error, pilot_positions
from raretok.ablation.progress import blocks
from raretok.ablation.sampled import Estimate
from raretok.corpus import Contexts
from raretok.models import LanguageModel
from raretok.rarity import Positions

BLOCK = 1024  # positions a step of the closed form; it cuts them further to fit the memory
AUDIT_PAIRS = 64
AUDIT_SEED = 0
AUDIT_LIMIT = 1e-4  # nats; rounding stays a hundred times below
SAMPLING_SEED = 0


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
    progress: bool = True,
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
    check_mode(mode, positions.stratum, rng)
    check_effect(effect)
    check_tolerance(tolerance)
    check_contexts(model, contexts)
    head = final_head(model)
    gathered = gather(model, contexts, positions, include_first=include_first, progress=progress)
    target = torch.from_numpy(positions.target).to(model.device)
    resid, post = gathered.resid, gathered.post
    new = replacement(mode, post, gathered.mean_post, positions.stratum, rng).expand_as(post)
    pilot = pilot_positions(len(positions)).to(model.device)
    method = make_method(
        head,
        resid[pilot],
        new[pilot] - post[pilot],
        target[pilot],
        tolerance=tolerance,
        n_positions=len(positions),
        effect=effect,
    )
    found = Found.empty(post)
    offset = sampling_offsets(len(positions)).to(model.device)
    for rows in blocks(len(positions), BLOCK, "neurons", progress):
        found.add(
            rows,
            apply_method(method, resid[rows], post[rows], target[rows], new[rows], offset[rows]),
        )
    described = method.described
    del method  # the audit needs memory of its own
    error = audit(
        model,
        resid,
        post,
        target,
        new,
        found.delta_loss,
        effect=effect,
        n_pairs=AUDIT_PAIRS,
        rng=np.random.default_rng(AUDIT_SEED),
    )
    made = {"mode": mode, "effect": effect, "tolerance": tolerance} | audit_record(
        model, described, error, tolerance, len(positions), found.summed_in_full
    )
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


def sampling_offsets(n_positions: int) -> Float[Tensor, " position"]:
    """What is random in the sampling of tokens: the same for a position whatever its block."""
    return torch.from_numpy(np.random.default_rng(SAMPLING_SEED).random(n_positions))


def audit_record(
    model: LanguageModel,
    described: dict[str, int],
    error: float,
    tolerance: float,
    n_positions: int,
    summed_in_full: int,
) -> dict[str, str | int | float]:
    """What a run says of its accuracy; warns where the audit found more than the method explains.

    A pair may be off by rounding and, on the fast path, by what its neighbours average out.
    """
    limit = AUDIT_LIMIT + 10 * pair_error(tolerance, n_positions)
    n_pairs = n_positions * model.architecture.d_mlp
    return {
        **described,
        "summed_in_full": summed_in_full / n_pairs,
        **audit_verdict(model, error, limit, AUDIT_PAIRS),
    }


def audit_verdict(
    model: LanguageModel, error: float, limit: float, n_pairs: int
) -> dict[str, int | float]:
    """Largest error of the audited pairs against what is allowed, in nats; warns of a failure."""
    passed = bool(error <= limit)
    if not passed:
        warnings.warn(
            f"THE AUDIT FAILED: the effects are up to {error:.1g} nats off the real modules of "
            f"{model.name} in {n_pairs} random pairs, {limit:.1g} are allowed; do not use this "
            f"run, its {model.architecture.family} architecture may not be supported",
            stacklevel=2,
        )
    return {
        "audit_pairs": n_pairs,
        "audit_limit": limit,
        "audit_max_error": error,
        "audit_passed": int(passed),
    }


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
            "mean_post": ("neuron", gathered.mean_post.cpu().numpy()),
            "sampling_error": (
                "neuron",
                sampling_error(found.variance.cpu().numpy(), len(positions)),
                {"units": "nats"},
            ),
        },
        coords={name: ("position", values) for name, values in vars(positions).items()},
        attrs=provenance(model) | made,
    )


def sampling_error(
    variance: Float[np.ndarray, " neuron"], n_positions: int
) -> Float[np.ndarray, " neuron"]:
    """Standard error of the mean effect of each neuron, nats, from its variance over positions."""
    return np.sqrt(variance) / n_positions


def provenance(model: LanguageModel) -> dict[str, str | int]:
    """What a result was made with."""
    return {
        "model": model.name,
        "files_sha256": model.files_sha256,
        "family": model.architecture.family,
        "layer": model.architecture.n_layers - 1,
        "basis": "raw",
        "raretok": __version__,
        "torch": torch.__version__,
    }
