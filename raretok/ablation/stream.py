"""`ablate` with its result on disk: bounded memory, and a killed run goes on where it stopped."""

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
from raretok.ablation.scratch import Scratch
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
    asked = {"layer": model.architecture.n_layers - 1, **options.asked}
    settings = settings_of(model, contexts, positions, source or {}, asked)

    @cache
    def layout() -> dict[str, Any]:
        check_model(model, contexts, positions)
        return layout_of(model, positions, *cut_to_fit(model, contexts, max_memory))

    with run_to_write(out, settings, layout, resume=resume, wait=wait) as run:
        if not run.complete:
            complete(Work(run, model, contexts, positions, options, progress, forward))
    return run.folder, open_run(run.folder)


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
    mean = gather_to(work)
    give_back()
    if "mean_post" not in run.steps:
        run.add_neurons("mean_post", mean.cpu().numpy())
    method = method_for(work, mean)
    fill_blocks(work, method, mean)
    described = method.described
    del method  # the audit needs memory of its own
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


def gather_to(work: Work) -> Float[Tensor, " d_mlp"]:
    """Run the contexts not yet run; the mean activations, summed in the order `ablate` sums."""
    model, contexts, positions = work.model, work.contexts, work.positions
    batches = context_batches(contexts, positions)
    total, count = np.zeros(model.architecture.d_mlp), 0
    with bar("contexts", sum(map(len, batches)), work.progress) as shown:
        for index, batch in enumerate(batches):
            scored = np.flatnonzero(np.isin(positions.context, batch))
            part = work.scratch.kept(index, scored)
            if part is None:
                first = work.options.include_first
                found = gather.run_batch(model, contexts, positions, batch, first)
                part = work.scratch.keep(index, found)
            total, count = total + part[0], count + part[1]
            shown.update(len(batch))
    return torch.from_numpy(total / count).to(model.device, torch.float32)


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


def fill_blocks(work: Work, method: Method, mean: Float[Tensor, " d_mlp"]) -> None:
    """Compute and write the blocks that are not finished."""
    size, n, run = work.run.record["block"], len(work.positions), work.run
    offset = in_memory.sampling_offsets(n)
    missing = [k for k in range(n_blocks(run.record)) if str(k) not in run.steps]
    todo = sum(min(size, n - k * size) for k in missing)
    with bar("positions", n, work.progress, initial=n - todo) as shown:
        for k in missing:
            chosen = np.arange(k * size, min((k + 1) * size, n))
            rows = work.rows(chosen, mean)
            here = offset[chosen].to(mean.device)
            found = apply_method(method, rows.resid, rows.post, rows.target, rows.new, here)
            blocks = {"delta_loss": found.delta_loss, "post": rows.post, "loss": found.loss}
            blocks = {name: values.cpu().numpy() for name, values in blocks.items()}
            run.add_block(k, blocks, found.variance.cpu().numpy(), found.summed_in_full)
            shown.update(chosen.size)


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
