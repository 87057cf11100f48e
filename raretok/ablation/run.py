"""One run: contexts and positions in, the effect of ablating every final-MLP neuron out."""

import sys
import warnings
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from raretok import __version__
from raretok.ablation.head import check_effect, final_head
from raretok.ablation.interventions import check_mode, replacement
from raretok.ablation.method import apply_method, make_method
from raretok.ablation.modules import audit
from raretok.ablation.precision import TOLERANCE, check_tolerance, pair_error, pilot_positions
from raretok.ablation.sampled import Estimate
from raretok.corpus import Contexts
from raretok.errors import UserError
from raretok.models import LanguageModel, capture
from raretok.rarity import Positions

BATCH = 8  # contexts a forward pass
BLOCK = 1024  # positions a step of the closed form; it cuts them further to fit the memory
AUDIT_PAIRS = 64
AUDIT_SEED = 0
AUDIT_LIMIT = 1e-4  # nats; rounding stays a hundred times below
SAMPLING_SEED = 0


@dataclass(frozen=True)
class Gathered:
    """What the closed form needs at the scored positions, and the mean activations."""

    resid: Float[Tensor, "position d_model"]
    post: Float[Tensor, "position d_mlp"]
    mean_post: Float[Tensor, " d_mlp"]


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


def gather(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    *,
    include_first: bool,
    progress: bool,
) -> Gathered:
    """Run the contexts that hold scored positions and keep what is needed of them."""
    resid = torch.empty(len(positions), model.architecture.d_model, device=model.device)
    post = torch.empty(len(positions), model.architecture.d_mlp, device=model.device)
    total, count = torch.zeros_like(post[0], dtype=torch.float64), 0
    batches = context_batches(contexts, positions)
    for rows in blocks(len(batches), 1, "contexts", progress):
        batch = run_batch(model, contexts, positions, batches[rows.start], include_first)
        total += batch.total
        count += batch.count
        resid[batch.scored], post[batch.scored] = batch.resid, batch.post
    return Gathered(resid, post, (total / count).to(post.dtype))


@dataclass(frozen=True)
class Batch:
    """What a few contexts give: rows of their scored positions, and their part of the mean."""

    scored: Int[np.ndarray, " scored"]  # indices into the positions of the run
    resid: Float[Tensor, "scored d_model"]
    post: Float[Tensor, "scored d_mlp"]
    total: Float[Tensor, " d_mlp"]  # float64 sum over the real tokens
    count: int


def context_batches(contexts: Contexts, positions: Positions) -> list[Int[np.ndarray, " context"]]:
    """Contexts that hold a scored position, as they are run together."""
    used = np.unique(positions.context)
    # Contexts of like length together: little padding is run.
    used = used[np.argsort(contexts.length[used], kind="stable")]
    return [used[start : start + BATCH] for start in range(0, len(used), BATCH)]


def run_batch(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    batch: Int[np.ndarray, " context"],
    include_first: bool,
) -> Batch:
    """One forward pass."""
    length = contexts.length[batch]
    captured = capture(model, torch.from_numpy(contexts.tokens[batch, : length.max()]))
    real = real_tokens(length, include_first).to(model.device)
    scored = np.flatnonzero(np.isin(positions.context, batch))
    place = np.argsort(batch)[np.searchsorted(np.sort(batch), positions.context[scored])]
    return Batch(
        scored=scored,
        resid=captured.resid[place, positions.pos[scored]],
        post=captured.post[place, positions.pos[scored]],
        total=captured.post[real].sum(dim=0, dtype=torch.float64),
        count=int(real.sum()),
    )


def check_contexts(model: LanguageModel, contexts: Contexts) -> None:
    """Raise `UserError` for contexts longer than the model reads."""
    if contexts.tokens.shape[1] > model.architecture.n_ctx:
        raise UserError(
            f"contexts of {contexts.tokens.shape[1]} tokens do not fit {model.name}, which reads "
            f"{model.architecture.n_ctx}: choose a smaller n_ctx"
        )


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


def real_tokens(length: Int[np.ndarray, " batch"], include_first: bool) -> Tensor:
    """True where a token is text: not padding and, unless asked for, not the first one."""
    pos = np.arange(length.max())
    return torch.from_numpy((pos < length[:, None]) & (pos >= (0 if include_first else 1)))


def blocks(n: int, size: int, unit: str, progress: bool) -> tqdm:
    """Slices of at most `size`, with a progress bar on stderr if it is a terminal."""
    slices = [slice(start, start + size) for start in range(0, n, size)]
    hidden = None if progress else True  # None: shown on a terminal only
    return tqdm(slices, desc=unit, unit="block", file=sys.stderr, disable=hidden)


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
