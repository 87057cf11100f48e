"""What decides the numbers of a run, and how it is cut to fit the memory."""

import ctypes
import hashlib
import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from raretok import __version__
from raretok.ablation import run as in_memory
from raretok.ablation.gather import BATCH
from raretok.ablation.head import POSITION_BUDGET
from raretok.ablation.precision import TOLERANCE
from raretok.ablation.sampled import TILE, short_type
from raretok.errors import UserError
from raretok.models.adapter import LanguageModel
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions

MAX_MEMORY = 2.0  # GB above the model
SMALLEST_BLOCK = 8  # positions; below, a block is all overhead
MOST_PARTS = 64  # that the neurons are cut into to save memory


@dataclass(frozen=True)
class Options:
    """What a run can be asked for, beside model, contexts and positions."""

    mode: str = "mean"
    effect: str = "total"
    tolerance: float = TOLERANCE  # nats, of the mean effect of a neuron; 0 is exact
    resample_seed: int = 0  # of the draw under mode "resample"
    include_first: bool = False  # the first tokens of contexts count for the mean activation

    @property
    def asked(self) -> dict[str, Any]:
        """What of it decides the numbers."""
        asked = asdict(self)
        if self.mode != "resample":
            del asked["resample_seed"]
        return asked


def settings_of(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    source: dict[str, Any],
    asked: dict[str, Any],
) -> dict[str, Any]:
    """Everything that decides the numbers; `asked` is what a run can be asked for."""
    return source | {
        "files_sha256": model.files_sha256,
        "contexts_sha256": digest_of(contexts),
        "positions_sha256": digest_of(positions),
        "positions": len(positions),
        **asked,
        "dtype": str(model.dtype),
        "device": model.device.type,
        "products": str(short_type(model.device)),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numerics": numerics(),
    }


@cache
def numerics() -> str:
    """One sha256 over the sources that make the numbers: a run by other code is another run."""
    here = Path(__file__).parent
    total = hashlib.sha256()
    shared = ("models/adapter", "text/rarity", "stats/documents")
    others = [here.parent / f"{name}.py" for name in shared]
    for file in [*sorted(here.glob("*.py")), *others]:
        total.update(file.read_bytes())
    return total.hexdigest()[:16]


def digest_of(arrays: Contexts | Positions) -> str:
    """One sha256 over the names, types, shapes and values of a set of arrays."""
    total = hashlib.sha256()
    for name, values in vars(arrays).items():
        total.update(f"{name} {values.dtype} {values.shape}\n".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()


def layout_of(model: LanguageModel, positions: Positions, block: int, parts: int) -> dict[str, Any]:
    """How a run is cut, and the versions that made it."""
    return {
        "positions": len(positions),
        "neurons": model.architecture.d_mlp,
        "block": block,
        "parts": parts,
        "versions": {
            "raretok": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "zarr": zarr.__version__,
        },
    }


def memory_of(model: LanguageModel, n_ctx: int, block: int, parts: int) -> int:
    """Most memory of a block, in bytes above the model; an upper bound.

    On four shapes the ablation was measured to stay below it (CPU).
    """
    sizes = model.architecture
    d_part = -(-sizes.d_mlp // parts)
    at_once = min(block, max(1, POSITION_BUDGET // sizes.d_vocab))
    head = 8 * sizes.d_model * sizes.d_vocab + 8 * sizes.d_mlp * sizes.d_model
    tokens = (4 + short_type(model.device).itemsize) * sizes.d_vocab * d_part
    logits = at_once * sizes.d_vocab * 24 + TILE[model.device.type] * 12
    effects = 4 * sizes.d_mlp * (5 * block + 8 * at_once)
    forward = forward_memory(model, n_ctx, BATCH)
    # One block or the head in float64, and the logits of a context.
    audit = 24 * sizes.d_model * sizes.d_vocab + 32 * n_ctx * sizes.d_vocab
    return max(forward, audit, head + tokens + logits + effects)


def forward_memory(model: LanguageModel, n_ctx: int, n_contexts: int) -> int:
    """Most memory of a forward pass without its logits, in bytes above the model."""
    sizes = model.architecture
    width = 10 * sizes.d_mlp + 24 * sizes.d_model + 8 * sizes.n_heads * n_ctx
    return 4 * n_contexts * n_ctx * width


def give_back() -> None:
    """Return freed memory to the system: glibc keeps what a forward pass leaves in pieces."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim:
        trim(0)


def cut_to_fit(model: LanguageModel, contexts: Contexts, max_memory: float) -> tuple[int, int]:
    """Positions of a block, and parts of the layer, that fit the memory in GB.

    The layer is cut before blocks get smaller: both cost time. Raises `UserError` where no cut
    fits.
    """
    n_ctx, block, parts = contexts.tokens.shape[1], in_memory.BLOCK, 1
    while not memory_of(model, n_ctx, block, parts) <= max_memory * 1e9:
        if parts < MOST_PARTS:
            parts *= 2
        elif block > SMALLEST_BLOCK:
            block //= 2
        else:
            needed = memory_of(model, n_ctx, block, parts)
            raise UserError(
                f"a memory budget of {max_memory:g} GB is too small for one block of {block} "
                f"positions of {model.name}: it takes {needed / 1e9:.2g} GB, raise --max-memory"
            )
    return block, parts
