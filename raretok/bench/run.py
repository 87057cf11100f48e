"""What ablating every neuron costs: all ways on the same positions, timed, checked and weighed."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from raretok.ablation.head import final_head
from raretok.bench import contenders, cost
from raretok.bench.cases import SHAPES, Case, check_case, load_case
from raretok.bench.contenders import Effects, Tokens
from raretok.bench.measure import REPEATS, PartialWay, best_of, peak_bytes, timed
from raretok.errors import UserError
from raretok.models.training import check_device
from raretok.text.streams import say, write_json

KEYS = (
    "shape",
    "positions",
    "neurons",
    "vocabulary",
    "seconds_forward",
    "seconds_fast",
    "ratio_to_forward",
    "speedup_vs_released",
    "speedup_vs_hooks",
    "ratio_to_atp",
    "atp_max_error_nats",
    "max_error_nats",
    "peak_bytes",
    "weights",
)
SUBSET = 40  # neurons of the ways that are extrapolated: two chunks of the released code
SUBSET_SECONDS = 10.0  # what one timing of such a way may take, by the number of its contexts
BATCHES = (2, 16)  # contexts at a time; each way runs with the one that suits it
REFERENCE = (64, 16)  # random neurons, and those with the largest effects
REFERENCE_WORK = 2**32  # position x neuron x vocabulary: below it every neuron is checked
SEED = 0


def bench(
    shapes: Iterable[str] = SHAPES, positions: int = 4096, *, device="cpu", out: Path | None = None
) -> list[dict[str, Any]]:
    """One row a shape, with the keys KEYS first, written to `out` as JSON if it is given.

    Bad input is refused before anything runs. Raises `UserError`.
    """
    shapes = list(shapes)
    for name in shapes:
        check_case(name, positions)
    check_device(device)
    check_writable(out)
    rows = []
    for name in shapes:
        rows.append(bench_case(load_case(name, positions, device)))
        if out:
            write_json(out, rows)
    return rows


def check_writable(out: Path | None) -> None:
    """Raise `UserError` for a file that could not be written after a long run."""
    if out is None:
        return
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UserError(f"cannot write {out}: give a file in a folder that exists and is yours")


def bench_case(case: Case) -> dict[str, Any]:
    """Memory first, while the process is fresh; then times; then errors."""
    say(f"{case.name}: {case.positions} positions, {case.weights} weights")
    model, tokens = case.model, case.tokens
    peak = peak_bytes(lambda: contenders.fast(model, tokens, min(BATCHES)), str(model.device))
    say(f"{case.name}: the fast path takes {peak / 1e9:.2f} GB above the model")
    row = sizes(case) | {"peak_bytes": peak} | timings(case) | errors(case)
    row |= ratios(row)
    return {key: row[key] for key in KEYS} | row


def sizes(case: Case) -> dict[str, Any]:
    """What was run, and on what."""
    architecture = case.model.architecture
    return {
        "shape": case.name,
        "weights": case.weights,
        "positions": case.positions,
        "neurons": architecture.d_mlp,
        "vocabulary": architecture.d_vocab,
        "d_model": architecture.d_model,
        "n_layers": architecture.n_layers,
        "context": case.tokens.shape[1],
        "device": str(case.model.device.type),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """Times relative to the fast path, or the fast path's to theirs."""
    fast = row["seconds_fast"]
    return {
        "ratio_to_forward": fast / row["seconds_forward"],
        "speedup_vs_released": row["seconds_released"] / fast,
        "speedup_vs_hooks": row["seconds_hooks"] / fast,
        "speedup_vs_full": row["seconds_full"] / fast,
        "ratio_to_atp": fast / row["seconds_atp"],
        "ratio_to_atp_last_layer": fast / row["seconds_atp_last_layer"],
    }


def timings(case: Case) -> dict[str, Any]:
    """Seconds of every way over all positions and neurons; best of interleaved repeats."""
    model, tokens = case.model, case.tokens
    device = str(model.device)
    whole = {
        "bridge": contenders.bridge_forward,
        "plain": contenders.plain_forward,
        "capture": contenders.gather,
        "fast": contenders.fast,
        "atp": contenders.attribution,
        "atp_last_layer": partial(contenders.attribution, all_layers=False),
    }
    batch = {name: quickest_batch(model, tokens, run, device) for name, run in whole.items()}
    say(f"{case.name}: contexts at a time: {batch}")
    tasks = {name: partial(run, model, tokens, batch[name]) for name, run in whole.items()}
    parts = [*partial_ways(case, batch["bridge"], device)]
    for part in parts:
        tasks |= part.tasks
    seconds = best_of(tasks, device, case.name)
    found = {f"seconds_{name}": seconds[name] for name in whole}
    found |= {f"seconds_{part.name}": part.extrapolated(seconds) for part in parts}
    forward = min(("bridge", "plain"), key=seconds.__getitem__)
    return found | {
        "seconds_forward": seconds[forward],
        "forward": forward,
        "batch": batch,
        "repeats": REPEATS,
        "extrapolated": {part.name: part.told for part in parts},
    }


def partial_ways(case: Case, batch: int, device: str) -> Iterable[PartialWay]:
    """The three slow ways, on as many contexts as SUBSET_SECONDS allow."""
    model, tokens = case.model, case.tokens
    d_mlp = model.architecture.d_mlp
    drawn = np.random.default_rng(SEED).permutation(d_mlp)[:SUBSET]
    neurons = torch.from_numpy(drawn).to(model.device)
    mean = contenders.gather(model, tokens[:1], 1).mean
    ways = {
        "full": contenders.full,
        "released": contenders.released,
        "hooks": partial(contenders.hook_loop, batch=batch),
    }
    for name, way in ways.items():
        run = partial(way, model, mean=mean)
        once = timed(partial(run, tokens[:1], neurons), device)
        n = max(1, min(len(tokens), int(SUBSET_SECONDS / once)))
        yield PartialWay(name, run, tokens[:n], neurons, len(tokens), d_mlp)


def quickest_batch(model: Any, tokens: Tokens, run: Callable[..., Any], device: str) -> int:
    """Contexts at a time that suit a way best, by one trial each after a first short run."""
    some = tokens[: max(BATCHES)]
    choices = sorted({min(batch, len(some)) for batch in BATCHES})
    if len(choices) == 1:
        return choices[0]
    run(model, tokens[:1], 1)
    return min(choices, key=lambda b: timed(lambda: run(model, some, b), device))


def errors(case: Case) -> dict[str, Any]:
    """Largest errors of a neuron's mean effect, in nats, against float64 over the vocabulary."""
    model = case.model
    scored = contenders.gather(model, case.tokens, min(BATCHES))
    run = contenders.fast_effects(final_head(model), scored)
    first_order = contenders.attribution(model, case.tokens, min(BATCHES), all_layers=False)[0]
    chosen, told = reference_neurons(case, run.effects)
    say(f"{case.name}: float64 reference, {told}")
    exact = contenders.reference_effects(model, scored, chosen)
    return {
        "max_error_nats": largest(run.effects[chosen] - exact),
        "atp_max_error_nats": largest(first_order[chosen] - exact),
        "largest_effect_nats": largest(exact),
        **run.work,
        "reference": told,
    }


def reference_neurons(case: Case, effect: Effects) -> tuple[Int[Tensor, " chosen"], str]:
    """Neurons whose effects are checked, and how they were chosen."""
    d_mlp = len(effect)
    if case.positions * d_mlp * case.model.architecture.d_vocab <= REFERENCE_WORK:
        return torch.arange(d_mlp, device=effect.device), "all neurons"
    n_random, n_largest = REFERENCE
    drawn = np.random.default_rng(SEED + 1).permutation(d_mlp)[:n_random]
    top = effect.abs().topk(n_largest).indices
    chosen = torch.cat([torch.from_numpy(drawn).to(effect.device), top]).unique()
    return chosen, f"{n_random} random neurons, {n_largest} with the largest effects"


def largest(values: Effects) -> float:
    return float(values.abs().max())


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows as they are printed: one column a shape, as the page `cost` has them."""
    seconds = cost.times_table(rows)["seconds"].unstack("shape").add_suffix(", s", axis=0)
    return pd.concat([cost.summary_table(rows), seconds])
