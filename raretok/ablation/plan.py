"""What decides the numbers of a run, and how it is cut to fit the memory."""

import ctypes
import hashlib
import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import zarr

from raretok import __version__
from raretok.ablation.batches import BATCH, SCORED
from raretok.ablation.head import POSITION_BUDGET, check_effect, short_type
from raretok.ablation.interventions import check_name
from raretok.ablation.method import TOLERANCE, check_tolerance
from raretok.ablation.sampled import TILE
from raretok.ablation.split import N_PICKED
from raretok.errors import UserError
from raretok.models.adapter import LanguageModel
from raretok.paths import digest
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions

BLOCK = 1024  # positions a step of the closed form; it cuts them further to fit the memory
STACK = 32  # contexts, at most, that run through the later blocks together
SLACK = 1.5  # freed memory lies in pieces between what is kept; measured up to 1.4
MAX_MEMORY = 2.0  # GB above the model
SMALLEST_BLOCK = 8  # positions; below, a block is all overhead
MOST_PARTS = 64  # that the neurons are cut into to save memory
# Beside the engine, what decides numbers: how models are loaded and run, what is drawn.
OTHERS = ("models/adapter", "models/loading", "models/rerun", "text/rarity", "stats/documents")
Cut = TypeVar("Cut")


@dataclass(frozen=True)
class Options:
    """What a run can be asked for, beside model, contexts and positions. Raises `UserError`."""

    mode: str = "mean"
    effect: str = "total"
    tolerance: float = TOLERANCE  # nats, of the mean effect of a neuron; 0 is exact
    resample_seed: int = 0  # of the draw under mode "resample"
    include_first: bool = False  # the first tokens of contexts count for the mean activation

    def __post_init__(self):
        check_name(self.mode)
        check_effect(self.effect)
        check_tolerance(self.tolerance)

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
    source: dict[str, Any] | None,
    asked: dict[str, Any],
) -> dict[str, Any]:
    """Everything that decides the numbers; `asked` is what a run can be asked for."""
    return (source or {}) | {
        "layer": model.architecture.n_layers - 1,
        "files_sha256": model.files_sha256,
        "contexts_sha256": digest(vars(contexts).values()),
        "positions_sha256": digest(vars(positions).values()),
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
    others = [here.parent / f"{name}.py" for name in OTHERS]
    for file in [*sorted(here.glob("*.py")), *others]:
        total.update(file.read_bytes())
    return total.hexdigest()[:16]


def layout_of(model: LanguageModel, positions: Positions, block: int, parts: int) -> dict[str, Any]:
    """How a run is cut, and the versions that made it."""
    return {
        "positions": len(positions),
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


def layer_memory(
    model: LanguageModel, contexts: Contexts, positions: Positions, layer: int, parts: int
) -> int:
    """The same of a batch of contexts, where an earlier layer is ablated."""
    n_ctx, scored = contexts.tokens.shape[1], SCORED + int(np.bincount(positions.context).max())
    sizes, stack = model.architecture, STACK // parts
    later = sizes.n_layers - 1 - layer
    head = 8 * sizes.d_model * sizes.d_vocab
    logits = 24 * scored * sizes.d_vocab
    directions = 8 * scored * N_PICKED * sizes.d_model
    graph = forward_memory(model, n_ctx, min(BATCH, stack)) * (1 + later)
    passes = forward_memory(model, n_ctx, BATCH), forward_memory(model, n_ctx, stack), graph
    return head + int(SLACK * max(*passes, logits + directions))


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
    cuts = [(BLOCK, parts) for parts in powers(1, MOST_PARTS)]
    cuts += [(BLOCK // n, MOST_PARTS) for n in powers(2, BLOCK // SMALLEST_BLOCK)]
    needed = {cut: memory_of(model, contexts.tokens.shape[1], *cut) for cut in cuts}
    smallest = f"one block of {cuts[-1][0]} positions of {model.name}"
    return first_to_fit(needed, max_memory, smallest)


def parts_to_fit(
    model: LanguageModel, contexts: Contexts, positions: Positions, layer: int, max_memory: float
) -> int:
    """Into how many parts the contexts are cut that run together. Raises `UserError`."""
    inputs = model, contexts, positions, layer
    needed = {parts: layer_memory(*inputs, parts) for parts in powers(1, STACK)}
    smallest = f"one context of {contexts.tokens.shape[1]} tokens of {model.name}"
    return first_to_fit(needed, max_memory, smallest)


def powers(first: int, last: int) -> list[int]:
    """Powers of two."""
    return [2**k for k in range(first.bit_length() - 1, last.bit_length())]


def first_to_fit(needed: dict[Cut, int], max_memory: float, smallest: str) -> Cut:
    """The first cut that needs no more bytes than there are. Raises `UserError`."""
    for cut, size in needed.items():
        if size <= max_memory * 1e9:
            return cut
    raise UserError(
        f"a memory budget of {max_memory:g} GB is too small for {smallest}: it takes "
        f"{size / 1e9:.2g} GB, raise --max-memory"
    )
