"""Ablation of the last MLP's neurons, on disk: bounded memory, and a killed run goes on."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import torch
import xarray as xr
import zarr
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation import audit, gather
from raretok.ablation.audit import audit_verdict, check_model
from raretok.ablation.batches import ScoredBatch, context_batches
from raretok.ablation.checkpoints import Arrays, Checkpoints, shown
from raretok.ablation.gather import Scratch, check_contexts
from raretok.ablation.head import final_head
from raretok.ablation.interventions import check_mode, donors
from raretok.ablation.method import Method, apply_method, make_method, pilot_positions
from raretok.ablation.plan import (
    MAX_MEMORY,
    Options,
    cut_to_fit,
    give_back,
    layout_of,
    provenance,
    settings_of,
)
from raretok.ablation.sampled import sampling_offsets
from raretok.ablation.store import Run, open_run, run_to_write
from raretok.models.adapter import LanguageModel
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions

SUMMED = ("variance", "summed_in_full", "plan")  # what a run needs of a block beside its numbers


def ablate_to_disk(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    out: Path | None = None,
    *,
    options: Options | None = None,
    source: dict[str, Any] | None = None,
    max_memory: float = MAX_MEMORY,
    resume: bool = True,
    wait: bool = False,
    forward: Path | None = None,
) -> tuple[Path, xr.Dataset]:
    """Ablate each neuron of the last MLP at each scored position; a run directory and the result.

    The result has `delta_loss[position, neuron]` and `loss[position]` in nats, `post[position,
    neuron]` and `mean_post[neuron]`, labelled by position, and `sampling_error[neuron]`, the
    standard error of the mean effect that the sampling leaves. The mean runs over all real
    positions of the contexts that hold a scored one. A random sample is recomputed by brute force
    and its largest error kept in the attributes; a run whose audit fails is kept, marked and warned
    of.

    `out` is `runs/KEY` unless given; `source` is what else identifies the corpus (its sha256, the
    seed of the draw). An unfinished run goes on, a finished one is opened; `resume=False` starts
    again. `max_memory`, in GB above the model, decides how many positions make a block and how
    many neurons are handled together, which changes rounding only. Killed and resumed on the same
    machine, a run ends with the same bytes. Another process that writes the same run is refused, or
    awaited with `wait`. `forward` is a folder of activations that runs of the same model, contexts
    and positions share; the caller removes it. Raises `UserError`.
    """
    options = options or Options()
    check_contexts(model, contexts)
    check_mode(options.mode, positions.stratum)
    final_head(model)  # refuses a model that the closed form does not hold for
    settings = settings_of(model, contexts, positions, source, options.asked)

    @cache
    def layout() -> dict[str, Any]:
        check_model(model, contexts, positions)
        return layout_of(model, positions, *cut_to_fit(model, contexts, max_memory))

    with run_to_write(out, settings, layout, resume=resume, wait=wait) as run:
        if not run.complete:
            complete(Work(run, model, contexts, positions, options, forward))
    return run.folder, open_run(run.folder)


@dataclass(frozen=True)
class Work:
    """A run under way and all it is made from."""

    run: Run
    model: LanguageModel
    contexts: Contexts
    positions: Positions
    options: Options
    forward: Path | None = None

    @cached_property
    def scratch(self) -> Scratch:
        return Scratch(self.forward or self.run.scratch, len(self.positions), self.model)

    @cached_property
    def blocks(self) -> Checkpoints:
        """Blocks, this process's and others' (raretok/ablation/distributed.py)."""
        cut = "-".join(str(self.run.record[name]) for name in ("key", "block", "parts"))
        return Checkpoints((self.forward or self.run.scratch) / f"blocks-{cut}")

    @cached_property
    def batches(self) -> list[ScoredBatch]:
        return context_batches(self.model, self.contexts, self.positions)

    @cached_property
    def mean(self) -> Float[Tensor, " d_mlp"]:
        """The mean activations; the contexts not yet run are run."""
        total, count = np.zeros(self.model.architecture.d_mlp), 0
        for index in shown(range(len(self.batches)), "contexts"):
            part = run_batch(self, index)
            total, count = total + part["total"], count + int(part["count"])
        return torch.from_numpy(total / count).to(self.model.device, torch.float32)

    @cached_property
    def method(self) -> Method:
        """The method, by what the pilot positions need."""
        n, options = len(self.positions), self.options
        asked = {"tolerance": options.tolerance, "effect": options.effect, "n_positions": n}
        pilot = self.rows(pilot_positions(n).numpy())
        parts = self.run.record["parts"]
        return make_method(final_head(self.model), *pilot, **asked, n_parts=parts)

    @cached_property
    def donor(self) -> Int[np.ndarray, " position"]:
        rng = np.random.default_rng(self.options.resample_seed)
        return donors(self.positions.stratum, rng)

    def rows(self, chosen: Int[np.ndarray, " chosen"]) -> tuple[Tensor, ...]:
        """Residuals, activations, targets, and what replaces the activations at some positions."""
        resid, post = (self.scratch.at(name, chosen).to(self.mean) for name in ("resid", "post"))
        target = torch.from_numpy(self.positions.target[chosen]).to(self.mean.device)
        if self.options.mode == "resample":
            return resid, post, target, self.scratch.at("post", self.donor[chosen]).to(self.mean)
        new = self.mean if self.options.mode == "mean" else torch.zeros_like(self.mean)
        return resid, post, target, new.expand_as(post)


def complete(work: Work) -> None:
    """Compute what is missing of a run, write it, audit it and seal it."""
    started, run, n = time.monotonic(), work.run, len(work.positions)
    d_mlp = len(work.mean)
    give_back()
    blocks = [
        {name: values for name, values in block_of(work, k).items() if name in SUMMED}
        for k in shown(range(run.n_blocks), "blocks")
    ]
    vars(work).pop("method", None)  # the audit needs memory of its own
    variance, in_full = (sum(part[name] for part in blocks) for name in SUMMED[:2])
    run.write(result_of(work, np.sqrt(variance) / n))
    plans = [json.loads(str(part["plan"])) for part in blocks]
    found = {name: max(plan[name] for plan in plans) for name in plans[0]}
    found["summed_in_full"] = int(in_full) / (n * d_mlp)
    found |= audit_verdict(work.model, *audit_stored(work), work.options.tolerance, n)
    run.finish(found, time.monotonic() - started)
    shutil.rmtree(work.blocks.folder, ignore_errors=True)


def result_of(work: Work, sampling_error: Float[np.ndarray, " d_mlp"]) -> xr.Dataset:
    """The numbers of a run, those of a block read from disk when they are asked for."""
    run, pairs, d_mlp = work.run, ("position", "neuron"), sampling_error.size
    delta_loss = by_block(run, lambda k: block_of(work, k)["delta_loss"], d_mlp)
    loss = by_block(run, lambda k: block_of(work, k)["loss"])
    post = by_block(run, lambda k: work.scratch.at("post", run.rows(k)).numpy(), d_mlp)
    arrays = {
        "delta_loss": (pairs, delta_loss, {"units": "nats"}),
        "post": (pairs, post),
        "loss": ("position", loss, {"units": "nats"}),
        "mean_post": ("neuron", work.mean.cpu().numpy()),
        "sampling_error": ("neuron", sampling_error, {"units": "nats"}),
    }
    labels = {name: ("position", values) for name, values in vars(work.positions).items()}
    asked = {name: getattr(work.options, name) for name in ("mode", "effect", "tolerance")}
    return xr.Dataset(arrays, labels, provenance(work.model) | asked)


def by_block(run: Run, read: Callable[[int], np.ndarray], *width: int) -> dask.array.Array:
    """What `read` gives for each block of positions, in one array that is not in memory."""
    shapes = [(run.rows(k).size, *width) for k in range(run.n_blocks)]
    blocks = [
        dask.array.from_delayed(dask.delayed(read)(k), shape, np.float32)
        for k, shape in enumerate(shapes)
    ]
    return dask.array.concatenate(blocks)


def run_batch(work: Work, index: int) -> Arrays:
    """Run a batch of contexts, unless it was; its part of the mean activations."""
    batch = work.batches[index]
    part = work.scratch.kept(index, batch.rows)
    if part is None:
        found = gather.run_batch(work.model, batch, work.options.include_first)
        part = work.scratch.keep(index, batch.rows, found)
    return part


def block_of(work: Work, k: int) -> Arrays:
    """The numbers of a block, computed unless they were."""
    return work.blocks.part(str(k), partial(compute_block, work, k))


def compute_block(work: Work, k: int) -> Arrays:
    """The numbers of one block, and the plan they were computed by."""
    rows = work.run.rows(k)
    offset = sampling_offsets(len(work.positions))[rows].to(work.mean.device)
    found = apply_method(work.method, *work.rows(rows), offset)
    return {
        "delta_loss": found.delta_loss.cpu().numpy(),
        "loss": found.loss.cpu().numpy(),
        "variance": found.variance.cpu().numpy(),
        "summed_in_full": np.array(found.summed_in_full),
        "plan": np.array(json.dumps(work.method.described)),
    }


def audit_stored(work: Work) -> tuple[float, int]:
    """Largest error, in nats, of the audited pairs as they are on disk, and their number."""
    sizes = {"n_pairs": audit.PAIRS, "n_contexts": audit.CONTEXTS}
    rows, neuron = audit.pairs_to_check(work.positions, len(work.mean), **sizes)
    new = work.rows(rows)[-1][torch.arange(rows.size), torch.from_numpy(neuron)].cpu().numpy()
    effects = zarr.open_group(work.run.data, mode="r")["delta_loss"]
    stored = effects.get_coordinate_selection((rows, neuron)).astype(np.float64)
    inputs = work.model, work.contexts, work.positions[rows]
    own = audit.own_delta_loss(*inputs, neuron, new, effect=work.options.effect)
    return float(np.abs(stored - own).max()), rows.size
