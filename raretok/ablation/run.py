"""What every way to make a run shares: its constants, its record of errors, its provenance."""

import warnings

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raretok import __version__
from raretok.ablation.audit import LIMIT
from raretok.ablation.precision import pair_error
from raretok.models.adapter import LanguageModel

BLOCK = 1024  # positions a step of the closed form; it cuts them further to fit the memory
SAMPLING_SEED = 0


def sampling_offsets(n_positions: int) -> Float[Tensor, " position"]:
    """What is random in the sampling of tokens: the same for a position whatever its block."""
    return torch.from_numpy(np.random.default_rng(SAMPLING_SEED).random(n_positions))


def audit_record(
    model: LanguageModel,
    described: dict[str, int],
    error: float,
    n_checked: int,
    tolerance: float,
    n_positions: int,
    summed_in_full: int,
) -> dict[str, str | int | float]:
    """What a run says of its accuracy; warns where the audit found more than the method explains.

    A pair may be off by rounding and, on the fast path, by what its neighbours average out.
    """
    limit = LIMIT + 10 * pair_error(tolerance, n_positions)
    n_pairs = n_positions * model.architecture.d_mlp
    return {
        **described,
        "summed_in_full": summed_in_full / n_pairs,
        **audit_verdict(model, error, limit, n_checked),
    }


def audit_verdict(
    model: LanguageModel, error: float, limit: float, n_pairs: int
) -> dict[str, int | float]:
    """Largest error of the audited pairs against what is allowed, in nats; warns of a failure."""
    passed = bool(error <= limit)
    if not passed:
        warnings.warn(
            f"THE AUDIT FAILED: the effects are up to {error:.1g} nats off the own forward pass of "
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
