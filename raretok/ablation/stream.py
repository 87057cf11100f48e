"""`ablate` with its result on disk: bounded memory, and a killed run goes on where it stopped."""

import json
import shutil
import time
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation import gather
from raretok.ablation import run as in_memory
from raretok.ablation.audit import audit_pairs, check_model
from raretok.ablation.checkpoints import Arrays, Checkpoints
from raretok.ablation.gather import check_contexts, context_batches
from raretok.ablation.head import check_effect, final_head
from raretok.ablation.interventions import check_mode, donors
from raretok.ablation.method import Method, apply_method, make_method
from raretok.ablation.plan import (
    MAX_MEMORY,
    Options,
    cut_to_fit,
    give_back,
    layout_of,
    settings_of,
)
from raretok.ablation.precision import check_tolerance, pilot_positions
from raretok.ablation.progress import bar
from raretok.ablation.resumption import run_to_write
from raretok.ablation.scratch import Part, Scratch
from raretok.ablation.store import Run, n_blocks, open_run
from raretok.models.adapter import LanguageModel
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions


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
    progress: bool = True,
    forward: Path | None = None,
) -> tuple[Path, xr.Dataset]:
    """Ablate as `ablate` does, block by block into a run directory; it and the result.

    `out` is `runs/KEY` unless given; `source` is what else identifies the corpus (its sha256, the
    seed of the draw). An unfinished run goes on, a finished one is opened; `resume=False` starts
    again. `max_memory`, in GB above the model, decides how many positions make a block and how
    many neurons are handled together: with the blocks of `ablate` (1,024) and all neurons the
    numbers equal its numbers to the bit, else to rounding and `tolerance`. Killed and resumed on
    the same machine, a run ends with the same bytes. Another process that writes the same run is
    refused, or awaited with `wait`. `forward` is a folder of activations that runs of the same
    model, contexts and positions share; the caller removes it. A run whose audit fails is kept,
    marked and warned of.
    Raises `UserError`.
    """
    options = options or Options()
    check_contexts(model, contexts)
    check_mode(options.mode, positions.stratum, np.random.default_rng(options.resample_seed))
    check_effect(options.effect)
    check_tolerance(options.tolerance)
    final_head(model)  # refuses a model that the closed form does not hold for
    settings = settings_for(model, contexts, positions, options, source)

    @cache
    def layout() -> dict[str, Any]:
        check_model(model, contexts, positions)
        return layout_of(model, positions, *cut_to_fit(model, contexts, max_memory))

    with run_to_write(out, settings, layout, resume=resume, wait=wait) as run:
        if not run.complete:
            complete(Work(run, model, contexts, positions, options, progress, forward))
    return run.folder, open_run(run.folder)


def settings_for(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    options: Options,
    source: dict[str, Any] | None,
) -> dict[str, Any]:
    """Everything that decides the numbers of a run."""
    asked = {"layer": model.architecture.n_layers - 1, **options.asked}
    return settings_of(model, contexts, positions, source or {}, asked)


@dataclass(frozen=True)
class Rows:
    """What the ablation needs at some positions."""

    resid: Float[Tensor, "pos d_model"]
    post: Float[Tensor, "pos d_mlp"]
    target: Int[Tensor, " pos"]
    new: Float[Tensor, "pos d_mlp"]


@dataclass(frozen=True)
class Work:
    """A run under way and all it is made from."""

    run: Run
    model: LanguageModel
    contexts: Contexts
    positions: Positions
    options: Options
    progress: bool
    forward: Path | None = None

    @cached_property
    def scratch(self) -> Scratch:
        return Scratch(self.forward or self.run.scratch, len(self.positions), self.model)

    @cached_property
    def ahead(self) -> Checkpoints:
        """Blocks that other processes computed (raretok/ablation/distributed.py)."""
        cut = "-".join(str(self.run.record[name]) for name in ("key", "block", "parts"))
        return Checkpoints(self.scratch.folder / f"ahead-{cut}")

    @cached_property
    def mean(self) -> Float[Tensor, " d_mlp"]:
        return gather_to(self)

    @cached_property
    def method(self) -> Method:
        return method_for(self, self.mean)

    @cached_property
    def target(self) -> Int[Tensor, " position"]:
        return torch.from_numpy(self.positions.target)

    @cached_property
    def donor(self) -> Int[np.ndarray, " position"]:
        rng = np.random.default_rng(self.options.resample_seed)
        return donors(self.positions.stratum, rng)

    def new_post(
        self, chosen: Int[np.ndarray, " chosen"], mean: Float[Tensor, " d_mlp"]
    ) -> Float[Tensor, "*chosen d_mlp"]:
        """What replaces the activations at some positions."""
        if self.options.mode == "resample":
            return self.scratch.at("post", self.donor[chosen]).to(mean.device)
        return mean if self.options.mode == "mean" else torch.zeros_like(mean)

    def rows(self, chosen: Int[np.ndarray, " chosen"], mean: Float[Tensor, " d_mlp"]) -> Rows:
        """Residuals, activations, targets and replacements at some positions."""
        resid, post = (self.scratch.at(name, chosen) for name in ("resid", "post"))
        post = post.to(mean.device)
        new = self.new_post(chosen, mean).expand_as(post)
        return Rows(resid.to(mean.device), post, self.target[chosen].to(mean.device), new)


def complete(work: Work) -> None:
    """Compute what is missing of a run, audit it and seal it."""
    started, run, options = time.monotonic(), work.run, work.options
    if "labels" not in run.steps:
        made = {"mode": options.mode, "effect": options.effect, "tolerance": options.tolerance}
        run.add_labels(work.positions, in_memory.provenance(work.model) | made)
    mean = work.mean
    give_back()
    if "mean_post" not in run.steps:
        run.add_neurons("mean_post", mean.cpu().numpy())
    described = fill_blocks(work)
    vars(work).pop("method", None)  # the audit needs memory of its own
    variance, in_full = run.sums()
    if "sampling_error" not in run.steps:
        error = in_memory.sampling_error(variance, len(work.positions))
        run.add_neurons("sampling_error", error)
    audit = in_memory.audit_record(
        work.model,
        described,
        *audit_stored(work, mean),
        options.tolerance,
        len(work.positions),
        in_full,
    )
    run.finish(audit, time.monotonic() - started)
    shutil.rmtree(work.ahead.folder, ignore_errors=True)


def gather_to(work: Work) -> Float[Tensor, " d_mlp"]:
    """Run the contexts not yet run; the mean activations, summed in the order `ablate` sums."""
    batches = context_batches(work.contexts, work.positions)
    total, count = np.zeros(work.model.architecture.d_mlp), 0
    with bar("contexts", sum(map(len, batches)), work.progress) as shown:
        for index, batch in enumerate(batches):
            part = run_batch(work, index, batch)
            total, count = total + part[0], count + part[1]
            shown.update(len(batch))
    return torch.from_numpy(total / count).to(work.model.device, torch.float32)


def run_batch(work: Work, index: int, batch: Int[np.ndarray, " context"]) -> Part:
    """Run a batch of contexts, unless it was; its part of the mean activations."""
    scored = np.flatnonzero(np.isin(work.positions.context, batch))
    part = work.scratch.kept(index, scored)
    if part is None:
        inputs = work.model, work.contexts, work.positions
        found = gather.run_batch(*inputs, batch, work.options.include_first)
        part = work.scratch.keep(index, found)
    return part


def method_for(work: Work, mean: Float[Tensor, " d_mlp"]) -> Method:
    """The method `ablate` would choose; it depends on the pilot positions alone."""
    n, options = len(work.positions), work.options
    pilot = work.rows(pilot_positions(n).numpy(), mean)
    head = final_head(work.model)
    return make_method(
        head,
        pilot.resid,
        pilot.new - pilot.post,
        pilot.target,
        output=head.mlp_output(pilot.post),
        tolerance=options.tolerance,
        n_positions=n,
        effect=options.effect,
        n_parts=work.run.record["parts"],
    )


def fill_blocks(work: Work) -> dict[str, int]:
    """Write the blocks that are not finished; how they were computed."""
    n, run = len(work.positions), work.run
    missing = [k for k in range(n_blocks(run.record)) if str(k) not in run.steps]
    todo = sum(positions_of(work, k).size for k in missing)
    plans = []
    with bar("positions", n, work.progress, initial=n - todo) as shown:
        for k in missing:
            block = work.ahead.read(str(k)) or compute_block(work, k)
            post = work.scratch.at("post", positions_of(work, k)).numpy()
            values = {"delta_loss": block["delta_loss"], "post": post, "loss": block["loss"]}
            run.add_block(k, values, block["variance"], int(block["summed_in_full"]))
            plans.append(json.loads(str(block["plan"])))
            shown.update(len(post))
    if not plans:
        return work.method.described
    return {name: max(plan[name] for plan in plans) for name in plans[0]}


def positions_of(work: Work, k: int) -> Int[np.ndarray, " chosen"]:
    """The positions of a block."""
    size = work.run.record["block"]
    return np.arange(k * size, min((k + 1) * size, len(work.positions)))


def compute_block(work: Work, k: int) -> Arrays:
    """The numbers of one block, and the plan they were computed by."""
    chosen = positions_of(work, k)
    rows = work.rows(chosen, work.mean)
    here = in_memory.sampling_offsets(len(work.positions))[chosen].to(work.mean.device)
    found = apply_method(work.method, rows.resid, rows.post, rows.target, rows.new, here)
    return {
        "delta_loss": found.delta_loss.cpu().numpy(),
        "loss": found.loss.cpu().numpy(),
        "variance": found.variance.cpu().numpy(),
        "summed_in_full": np.array(found.summed_in_full),
        "plan": np.array(json.dumps(work.method.described)),
    }


def audit_stored(work: Work, mean: Float[Tensor, " d_mlp"]) -> tuple[float, int]:
    """Largest error, in nats, of the audited pairs as they are on disk, and their number."""
    stored = zarr.open_group(work.run.data, mode="r")["delta_loss"]

    def new(rows: Int[np.ndarray, " pair"], neuron: Int[np.ndarray, " pair"]) -> np.ndarray:
        replaced = work.rows(rows, mean).new
        return replaced[torch.arange(rows.size), torch.from_numpy(neuron)].cpu().numpy()

    return audit_pairs(
        work.model,
        work.contexts,
        work.positions,
        lambda rows, neuron: stored.get_coordinate_selection((rows, neuron)),
        new,
        effect=work.options.effect,
    )
