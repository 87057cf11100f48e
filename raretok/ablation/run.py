"""One run: contexts and positions in, the effect of ablating every final-MLP neuron out."""

import sys
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from raretok import __version__
from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import FinalHead, check_effect, clean_loss, final_head
from raretok.ablation.interventions import check_mode, replacement
from raretok.ablation.modules import audit
from raretok.corpus import Contexts
from raretok.errors import UserError
from raretok.models import LanguageModel, capture
from raretok.rarity import Positions

BATCH = 16  # contexts a forward pass
BLOCK = 1024  # positions a step of the closed form; it cuts them further to fit the memory
AUDIT_PAIRS = 64
AUDIT_SEED = 0
AUDIT_LIMIT = 1e-4  # nats; rounding stays a hundred times below


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
    include_first: bool = False,
    progress: bool = True,
) -> xr.Dataset:
    """Ablate each neuron of the last MLP at each scored position.

    An activation becomes its mean, zero, or under `resample`, which needs `rng`, that of another
    scored position of the same stratum (raretok/ablation/interventions.py). `effect="direct"` keeps
    the scale of the final norm at its unablated value.

    Returns `delta_loss[position, neuron]` and `loss[position]` in nats, `post[position, neuron]`
    and `mean_post[neuron]`, labelled by position. The mean runs over all real positions of the
    contexts that hold a scored one; `include_first` adds their first tokens, as the released code
    does. A random sample is recomputed by brute force and its largest error kept in the attributes.
    Raises `UserError` for contexts longer than the model reads, a mode or effect that is unknown
    or cannot be served, and where the closed form does not hold or fails that audit.
    """
    check_mode(mode, positions.stratum, rng)
    check_effect(effect)
    check_contexts(model, contexts)
    head = final_head(model)
    gathered = gather(model, contexts, positions, include_first=include_first, progress=progress)
    target = torch.from_numpy(positions.target).to(model.device)
    resid, post = gathered.resid, gathered.post
    new = replacement(mode, post, gathered.mean_post, positions.stratum, rng).expand_as(post)
    delta, loss = torch.empty_like(post), torch.empty_like(post[:, 0])
    for rows in blocks(len(positions), BLOCK, "neurons", progress):
        delta[rows], loss[rows] = effects(
            head, resid[rows], post[rows], target[rows], new[rows], effect
        )
    error = audit(
        model,
        resid,
        post,
        target,
        new,
        delta,
        effect=effect,
        n_pairs=AUDIT_PAIRS,
        rng=np.random.default_rng(AUDIT_SEED),
    )
    check_audit(model, error)
    made = {"mode": mode, "effect": effect, "audit_pairs": AUDIT_PAIRS, "audit_max_error": error}
    return labelled(model, positions, gathered, delta, loss, made)


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


def effects(
    head: FinalHead,
    resid: Float[Tensor, "pos d_model"],
    post: Float[Tensor, "pos d_mlp"],
    target: Int[Tensor, " pos"],
    new: Float[Tensor, "*pos d_mlp"],
    effect: str = "total",
) -> tuple[Float[Tensor, "pos d_mlp"], Float[Tensor, " pos"]]:
    """Loss change of each neuron whose activation becomes `new`, and loss, in nats."""
    loss = clean_loss(head, resid, target)
    return delta_loss(head, resid, post, target, new, effect=effect), loss


def check_contexts(model: LanguageModel, contexts: Contexts) -> None:
    """Raise `UserError` for contexts longer than the model reads."""
    if contexts.tokens.shape[1] > model.architecture.n_ctx:
        raise UserError(
            f"contexts of {contexts.tokens.shape[1]} tokens do not fit {model.name}, which reads "
            f"{model.architecture.n_ctx}: choose a smaller n_ctx"
        )


def check_audit(model: LanguageModel, error: float) -> None:
    """Raise `UserError` for an error, in nats, that rounding does not explain."""
    if not error <= AUDIT_LIMIT:
        raise UserError(
            f"the closed form is wrong for {model.name}: up to {error:.1g} nats off the real "
            f"modules in {AUDIT_PAIRS} random pairs; its {model.architecture.family} architecture "
            "is not supported"
        )


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
    delta: Float[Tensor, "position d_mlp"],
    loss: Float[Tensor, " position"],
    made: dict[str, str | int | float],
) -> xr.Dataset:
    """The result with names on its axes and how it was made, in the attributes."""
    effect = ("position", "neuron")
    return xr.Dataset(
        data_vars={
            "delta_loss": (effect, delta.cpu().numpy(), {"units": "nats"}),
            "post": (effect, gathered.post.cpu().numpy()),
            "loss": ("position", loss.cpu().numpy(), {"units": "nats"}),
            "mean_post": ("neuron", gathered.mean_post.cpu().numpy()),
        },
        coords={name: ("position", values) for name, values in vars(positions).items()},
        attrs={
            **provenance(model),
            **made,
        },
    )


def provenance(model: LanguageModel) -> dict[str, str | int]:
    """What a result was made with."""
    return {
        "model": model.name,
        "files_sha256": model.files_sha256,
        "family": model.architecture.family,
        "layer": model.architecture.n_layers - 1,
        "mode": "mean",
        "effect": "total",
        "basis": "raw",
        "raretok": __version__,
        "torch": torch.__version__,
    }
