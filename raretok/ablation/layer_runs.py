"""`ablate_layer` with its result on disk: bounded memory, and a killed run goes on."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from raretok.ablation.batches import SCORED
from raretok.ablation.checkpoints import Checkpoints
from raretok.ablation.gather import BATCH, check_contexts
from raretok.ablation.layers import LayerOptions, ablate_layer, check_options, check_scored
from raretok.ablation.plan import MAX_MEMORY, forward_memory, layout_of, settings_of
from raretok.ablation.resumption import run_to_write
from raretok.ablation.split import N_PICKED
from raretok.ablation.stacked import STACK
from raretok.ablation.store import Run, open_run
from raretok.errors import UserError
from raretok.models.adapter import LanguageModel
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions

SLACK = 1.5  # freed memory lies in pieces between what is kept; measured up to 1.4


def ablate_layer_to_disk(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    out: Path | None = None,
    *,
    options: LayerOptions,
    source: dict[str, Any] | None = None,
    max_memory: float = MAX_MEMORY,
    resume: bool = True,
    progress: bool = True,
) -> tuple[Path, xr.Dataset]:
    """Ablate as `ablate_layer` does, batch by batch of contexts into a run directory; both.

    `out` is `runs/KEY` unless given; `source` is what else identifies the corpus. Killed and
    resumed on the same machine, a run ends with the same bytes. `max_memory`, in GB above the
    model, decides how many contexts are run together. Raises `UserError`.
    """
    check_contexts(model, contexts)
    check_scored(positions)
    asked = {**asdict(options), "layer": check_options(model, options)}
    settings = settings_of(model, contexts, positions, source or {}, asked)

    def layout() -> dict[str, Any]:
        parts = parts_to_fit(model, contexts, positions, asked["layer"], max_memory)
        return layout_of(model, positions, len(positions), parts)

    with run_to_write(out, settings, layout, resume=resume) as run:
        if not run.complete:
            complete(run, model, contexts, positions, options, progress)
    return run.folder, open_run(run.folder)


def complete(
    run: Run,
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    options: LayerOptions,
    progress: bool,
) -> None:
    """Compute what is missing of a run and seal it."""
    started = time.monotonic()
    data = ablate_layer(
        model,
        contexts,
        positions,
        options,
        stack=STACK // run.record["parts"],
        checkpoints=Checkpoints(run.scratch),
        progress=progress,
    )
    if "whole" not in run.steps:
        run.add_whole(data)
    audit = {name: value for name, value in data.attrs.items() if name.startswith("audit")}
    run.finish(audit, time.monotonic() - started)


def layer_memory(
    model: LanguageModel, contexts: Contexts, positions: Positions, layer: int, parts: int
) -> int:
    """Most memory of a batch of contexts, in bytes above the model; an upper bound (CPU)."""
    n_ctx, scored = contexts.tokens.shape[1], SCORED + int(np.bincount(positions.context).max())
    sizes, stack = model.architecture, STACK // parts
    later = sizes.n_layers - 1 - layer
    head = 8 * sizes.d_model * sizes.d_vocab
    logits = 24 * scored * sizes.d_vocab
    directions = 8 * scored * N_PICKED * sizes.d_model
    graph = forward_memory(model, n_ctx, min(BATCH, stack)) * (1 + later)
    passes = forward_memory(model, n_ctx, BATCH), forward_memory(model, n_ctx, stack), graph
    return head + int(SLACK * max(*passes, logits + directions))


def parts_to_fit(
    model: LanguageModel, contexts: Contexts, positions: Positions, layer: int, max_memory: float
) -> int:
    """Into how many parts the contexts are cut that run together. Raises `UserError`."""
    parts = 1
    while not layer_memory(model, contexts, positions, layer, parts) <= max_memory * 1e9:
        if parts == STACK:
            needed = layer_memory(model, contexts, positions, layer, parts)
            raise UserError(
                f"a memory budget of {max_memory:g} GB is too small for one context of "
                f"{contexts.tokens.shape[1]} tokens of {model.name}: it takes {needed / 1e9:.2g} "
                "GB, raise --max-memory"
            )
        parts *= 2
    return parts
