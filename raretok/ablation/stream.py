"""`ablate` with its result on disk: bounded memory, and a killed run goes on where it stopped."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from raretok.ablation import run as in_memory
from raretok.ablation.head import FinalHead, final_head
from raretok.ablation.modules import delta_loss_modules, real_modules
from raretok.ablation.plan import block_size, layout_of, settings_of
from raretok.ablation.records import is_run, key_of, locked, one_line, remove_run
from raretok.ablation.scratch import Scratch
from raretok.ablation.store import Run, create_run, n_blocks, open_run, read_run
from raretok.corpus import Contexts
from raretok.errors import UserError
from raretok.models import LanguageModel
from raretok.rarity import Positions

RUNS = Path(__file__).parents[2] / "runs"
MAX_MEMORY = 2.0  # GB above the model


def ablate_to_disk(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    out: Path | None = None,
    *,
    source: dict[str, Any] | None = None,
    include_first: bool = False,
    max_memory: float = MAX_MEMORY,
    resume: bool = True,
    progress: bool = True,
) -> tuple[Path, xr.Dataset]:
    """Mean-ablate as `ablate` does, block by block into a run directory; it and the result.

    `out` is `runs/KEY` unless given; `source` is what else identifies the corpus (its sha256, the
    seed of the draw). An unfinished run goes on, a finished one is opened; `resume=False` starts
    again. `max_memory`, in GB above the model, decides how many positions make a block: with the
    blocks of `ablate` (1,024) the numbers equal its numbers to the bit, else to rounding. Killed
    and resumed on the same machine, a run ends with the same bytes. Raises `UserError`.
    """
    in_memory.check_contexts(model, contexts)
    settings = settings_of(model, contexts, positions, source or {}, include_first)
    folder = out or RUNS / key_of(settings)
    block = block_size(model, contexts, max_memory)
    is_run(folder)  # refused before anything is written
    with one_line(folder), locked(folder):
        begun = is_run(folder)
        if begun and not resume:
            remove_run(folder)
        if begun and resume:
            run = resumed(folder, settings, block)
        else:
            run = create_run(folder, settings, layout_of(model, positions, block))
        if not run.complete:
            complete(run, model, contexts, positions, include_first, progress)
        shutil.rmtree(run.scratch, ignore_errors=True)
    return folder, open_run(folder)


def resumed(folder: Path, settings: dict[str, Any], block: int) -> Run:
    """The run in a directory, checked and ready to go on. Raises `UserError`."""
    run = read_run(folder)
    theirs = run.record["settings"]
    different = [n for n in sorted({*theirs, *settings}) if theirs.get(n) != settings.get(n)]
    if different:
        name = different[0]
        raise UserError(
            f"{folder} is a run with other settings ({', '.join(different)}): {name} is "
            f"{theirs.get(name)}, not {settings.get(name)}; give another directory or --fresh"
        )
    if run.record["block"] > block:
        raise UserError(
            f"{folder} is cut into blocks of {run.record['block']} positions and this memory "
            f"budget allows {block}: raise --max-memory or use --fresh"
        )
    run.check()
    if not run.complete:
        run.discard_unfinished()
    return run


def complete(
    run: Run,
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    include_first: bool,
    progress: bool,
) -> None:
    """Compute what is missing of a run, audit it and seal it."""
    started, head = time.monotonic(), final_head(model)
    if "labels" not in run.steps:
        run.add_labels(positions, in_memory.provenance(model))
    scratch = Scratch(run.scratch, len(positions), model)
    mean = gather_to(scratch, model, contexts, positions, include_first, progress)
    if "mean" not in run.steps:
        run.add_mean(mean.cpu().numpy())
    fill_blocks(run, scratch, head, positions, mean, progress)
    error = audit_stored(run, scratch, model, positions, mean)
    in_memory.check_audit(model, error)
    seconds = {"seconds_of_last_session": round(time.monotonic() - started, 3)}
    (run.folder / "timings.json").write_text(json.dumps(seconds) + "\n")
    run.finish({"audit_pairs": in_memory.AUDIT_PAIRS, "audit_max_error": error})


def gather_to(
    scratch: Scratch,
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    include_first: bool,
    progress: bool,
) -> Float[Tensor, " d_mlp"]:
    """Run the contexts not yet run; the mean activations, summed in the order `ablate` sums."""
    batches = in_memory.context_batches(contexts, positions)
    total, count = np.zeros(model.architecture.d_mlp), 0
    with bar("contexts", sum(map(len, batches)), progress) as shown:
        for index, batch in enumerate(batches):
            scored = np.flatnonzero(np.isin(positions.context, batch))
            part = scratch.kept(index, scored)
            if part is None:
                found = in_memory.run_batch(model, contexts, positions, batch, include_first)
                part = scratch.keep(index, found)
            total, count = total + part[0], count + part[1]
            shown.update(len(batch))
    return torch.from_numpy(total / count).to(model.device, torch.float32)


def fill_blocks(
    run: Run,
    scratch: Scratch,
    head: FinalHead,
    positions: Positions,
    mean: Float[Tensor, " d_mlp"],
    progress: bool,
) -> None:
    """Compute and write the blocks that are not finished."""
    device, size, n = mean.device, run.record["block"], len(positions)
    missing = [k for k in range(n_blocks(run.record)) if str(k) not in run.steps]
    todo = sum(min(size, n - k * size) for k in missing)
    with bar("positions", n, progress, initial=n - todo) as shown:
        for k in missing:
            rows = slice(k * size, min((k + 1) * size, n))
            resid, post = scratch.rows(rows)
            target = torch.from_numpy(positions.target[rows]).to(device)
            delta, loss = in_memory.effects(head, resid.to(device), post.to(device), target, mean)
            blocks = {"delta_loss": delta.cpu(), "post": post, "loss": loss.cpu()}
            run.add_block(k, {name: values.numpy() for name, values in blocks.items()})
            shown.update(rows.stop - rows.start)


def audit_stored(
    run: Run,
    scratch: Scratch,
    model: LanguageModel,
    positions: Positions,
    mean: Float[Tensor, " d_mlp"],
) -> float:
    """Largest error, in nats, of the pairs that `ablate` would check, as they are on disk."""
    rng, n_pairs = np.random.default_rng(in_memory.AUDIT_SEED), in_memory.AUDIT_PAIRS
    pos = rng.integers(len(positions), size=n_pairs)
    neuron = rng.integers(len(mean), size=n_pairs)
    rows = [scratch.rows(slice(p, p + 1)) for p in pos.tolist()]
    resid, post = (torch.cat(parts).to(model.device) for parts in zip(*rows, strict=True))
    target = torch.from_numpy(positions.target[pos]).to(model.device)
    chosen = torch.from_numpy(neuron).to(model.device)
    exact = delta_loss_modules(real_modules(model), resid, post, target, chosen, mean[chosen])
    stored = zarr.open_group(run.data, mode="r")["delta_loss"]
    found = np.array([stored[int(p), int(i)] for p, i in zip(pos, neuron, strict=True)])
    return float(np.abs(found.astype(np.float64) - exact.cpu().numpy()).max())


def bar(unit: str, total: int, progress: bool, initial: int = 0) -> tqdm:
    """Rate and time left on stderr, if it is a terminal."""
    hidden = None if progress else True
    return tqdm(
        desc=unit, total=total, initial=initial, unit=unit[:-1], file=sys.stderr, disable=hidden
    )
