"""What decides the numbers of a run, and how it is cut to fit the memory."""

import hashlib
import platform
from typing import Any

import numpy as np
import torch
import zarr

from raretok import __version__
from raretok.ablation import closed_form
from raretok.ablation import run as in_memory
from raretok.ablation.head import POSITION_BUDGET
from raretok.corpus import Contexts
from raretok.errors import UserError
from raretok.models import LanguageModel
from raretok.rarity import Positions

NUMERICS = 1  # raised whenever a change of the code changes a number
SMALLEST_BLOCK = 8  # positions; below, a block is all overhead


def settings_of(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    source: dict[str, Any],
    include_first: bool,
) -> dict[str, Any]:
    """Everything that decides the numbers."""
    return source | {
        "files_sha256": model.files_sha256,
        "contexts_sha256": digest_of(contexts),
        "positions_sha256": digest_of(positions),
        "positions": len(positions),
        "layer": model.architecture.n_layers - 1,
        "mode": "mean",
        "include_first": include_first,
        "tolerance": closed_form.TOLERANCE,
        "dtype": str(model.dtype),
        "device": model.device.type,
        "torch": torch.__version__,
        "numerics": NUMERICS,
    }


def digest_of(arrays: Contexts | Positions) -> str:
    """One sha256 over the names, types, shapes and values of a set of arrays."""
    total = hashlib.sha256()
    for name, values in vars(arrays).items():
        total.update(f"{name} {values.dtype} {values.shape}\n".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()


def layout_of(model: LanguageModel, positions: Positions, block: int) -> dict[str, Any]:
    """How a run is cut, and the versions that made it."""
    return {
        "positions": len(positions),
        "neurons": model.architecture.d_mlp,
        "block": block,
        "versions": {
            "raretok": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "zarr": zarr.__version__,
        },
    }


def memory_of(model: LanguageModel, n_ctx: int, block: int) -> int:
    """Most memory of a block, in bytes above the model; an upper bound.

    On four shapes the closed form was measured to stay below it (CPU).
    """
    sizes = model.architecture
    at_once = min(block, max(1, POSITION_BUDGET // sizes.d_vocab))
    head = 12 * sizes.d_model * sizes.d_vocab + 8 * sizes.d_mlp * sizes.d_model
    logits = at_once * sizes.d_vocab * 40 + closed_form.NEURONS * sizes.d_vocab * 16
    effects = 4 * sizes.d_mlp * (6 * block + 12 * at_once)
    width = 4 * sizes.d_mlp + 12 * sizes.d_model + 4 * sizes.n_heads * n_ctx
    forward = 4 * in_memory.BATCH * n_ctx * width
    return max(forward, head + logits + effects)


def block_size(model: LanguageModel, contexts: Contexts, max_memory: float) -> int:
    """Positions of a block that fits the memory, in GB. Raises `UserError` where none does."""
    n_ctx, block = contexts.tokens.shape[1], in_memory.BLOCK
    while block > SMALLEST_BLOCK and memory_of(model, n_ctx, block) > max_memory * 1e9:
        block //= 2
    needed = memory_of(model, n_ctx, block)
    if not needed <= max_memory * 1e9:
        raise UserError(
            f"a memory budget of {max_memory:g} GB is too small for one block of {block} "
            f"positions of {model.name}: it takes {needed / 1e9:.2g} GB, raise --max-memory"
        )
    return block
