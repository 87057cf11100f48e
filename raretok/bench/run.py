"""What ablating every neuron costs: all ways on the same positions, timed, checked and weighed."""

import math
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

from raretok.ablation.gather import Gathered
from raretok.ablation.head import FinalHead, final_head
from raretok.bench import contenders, cost
from raretok.bench.cases import SEED, SHAPES, Case, check_case, load_case, peak_bytes, timed
from raretok.bench.contenders import Effects, fast_effects
from raretok.errors import UserError, say
from raretok.models.training import check_device
from raretok.paths import write_json

REPEATS = 3
REPEAT_SECONDS = 120.0  # a task that has taken as long is not repeated
SUBSET = 40  # neurons of the ways that are extrapolated: two chunks of the released code
SUBSET_SECONDS = 10.0  # what one timing of such a way may take, by the number of its contexts
BATCH = {"cpu": 2, "cuda": 16}  # contexts at a time
REFERENCE = (64, 16)  # random neurons, and those with the largest effects
REFERENCE_WORK = 2**32  # position x neuron x vocabulary: below it every neuron is checked
WHOLE = {  # ways that run whole: of a model, contexts, and how many of them at a time
    "bridge": contenders.bridge_forward,
    "plain": contenders.plain_forward,
    "capture": contenders.gather,
    "fast": contenders.fast,
    "atp": contenders.attribution,
    "atp_last_layer": partial(contenders.attribution, all_layers=False),
}
SLOW = {"full": contenders.full, "released": contenders.released, "hooks": contenders.hook_loop}
# Sizes of the heads that scaling times: one changes, the others stay at BASE.
D_MODEL = 512
BASE = {"positions": 512, "neurons": 2_048, "vocabulary": 16_384}
GRID = {
    "positions": (128, 256, 512, 1_024, 2_048),
    "neurons": (512, 1_024, 2_048, 4_096, 8_192),
    "vocabulary": (4_096, 8_192, 16_384, 32_768, 65_536),
}


def bench(
    shapes: Iterable[str] = SHAPES, positions: int = 4096, *, device="cpu", out: Path | None = None
) -> list[cost.Row]:
    """One row a shape, written to `out` as JSON if it is given.

    Bad input is refused before anything runs. Raises `UserError`.
    """
    shapes = list(shapes)
    for name in shapes:
        check_case(name, positions)
    check_asked(device, out)
    rows = []
    for name in shapes:
        rows.append(bench_case(load_case(name, positions, device)))
        if out:
            write_json(out, rows)
    return rows


def check_asked(device: str, out: Path | None) -> None:
    """Raise `UserError` for a device or a file that could not be used after a long run."""
    check_device(device)
    if out and (out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK)):
        raise UserError(f"cannot write {out}: give a file in a folder that exists and is yours")


def bench_case(case: Case) -> cost.Row:
    """Memory first, while the process is fresh; then times; then errors."""
    say(f"{case.name}: {case.positions} positions, {case.weights} weights")
    model, tokens, batch = case.model, case.tokens, BATCH[case.model.device.type]
    peak = peak_bytes(lambda: contenders.fast(model, tokens, batch), model.device)
    say(f"{case.name}: the fast path takes {peak / 1e9:.2f} GB above the model")
    row = {
        "shape": case.name,
        "weights": case.weights,
        "positions": case.positions,
        "neurons": model.architecture.d_mlp,
        "vocabulary": model.architecture.d_vocab,
        "d_model": model.architecture.d_model,
        "n_layers": model.architecture.n_layers,
        "context": tokens.shape[1],
        "device": model.device.type,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "peak_bytes": peak,
    }
    row |= timings(case, batch) | errors(case, batch)
    for way in ("forward", "atp", "atp_last_layer"):
        row[f"ratio_to_{way}"] = row["seconds_fast"] / row[f"seconds_{way}"]
    for way in SLOW:
        row[f"speedup_vs_{way}"] = row[f"seconds_{way}"] / row["seconds_fast"]
    return row


def timings(case: Case, batch: int) -> dict[str, Any]:
    """Seconds of every way over all positions and neurons; best of interleaved repeats.

    The slow ways run with some neurons on some contexts, and with none on the same: what does not
    grow with the neurons is counted once.
    """
    model, tokens, d_mlp = case.model, case.tokens, case.model.architecture.d_mlp
    tasks = {name: partial(run, model, tokens, batch) for name, run in WHOLE.items()}
    drawn = np.random.default_rng(SEED).permutation(d_mlp)[:SUBSET]
    neurons = torch.from_numpy(drawn).to(model.device)
    mean, parts = contenders.gather(model, tokens[:1], 1).mean, {}
    for name, way in SLOW.items():
        run = partial(way, model, mean=mean, batch=batch)
        once = timed(partial(run, tokens[:1], neurons), model.device)
        part = parts[name] = tokens[: max(1, int(SUBSET_SECONDS / once))]
        tasks |= {f"{name}, none": partial(run, part, neurons[:0])}
        tasks |= {f"{name}, some": partial(run, part, neurons)}
    seconds = best_of(tasks, model.device, case.name)
    found = {f"seconds_{name}": seconds[name] for name in WHOLE}
    for name, part in parts.items():
        pair, times = (seconds[f"{name}, none"], seconds[f"{name}, some"]), len(tokens) / len(part)
        found[f"seconds_{name}"] = whole_time(*pair, d_mlp / len(neurons), times)
    forward = min(("bridge", "plain"), key=seconds.__getitem__)
    told = {
        name: {"neurons": len(neurons), "positions": part[:, 1:].numel()}
        for name, part in parts.items()
    }
    found |= {"seconds_forward": seconds[forward], "forward": forward}
    return found | {"batch": batch, "repeats": REPEATS, "extrapolated": told}


def whole_time(none: float, some: float, neurons: float, contexts: float) -> float:
    """Seconds for all, from those for no and some neurons; all are so many times the subset."""
    return (none + max(some - none, 0.0) * neurons) * contexts


def best_of(
    tasks: dict[str, Callable[[], Any]], device: torch.device, label: str
) -> dict[str, float]:
    """Shortest time of each task. Rounds over all tasks, so that a busy moment hits all alike."""
    best, spent = dict.fromkeys(tasks, math.inf), dict.fromkeys(tasks, 0.0)
    for repeat in range(REPEATS):
        for name, run in tasks.items():
            if repeat and spent[name] >= REPEAT_SECONDS:
                continue
            seconds = timed(run, device)
            best[name], spent[name] = min(best[name], seconds), spent[name] + seconds
            say(f"{label}: {name} {seconds:.2f} s ({repeat + 1} of {REPEATS})")
    return best


def errors(case: Case, batch: int) -> dict[str, Any]:
    """Largest errors of a neuron's mean effect, in nats, against float64 over the vocabulary."""
    model = case.model
    scored = contenders.gather(model, case.tokens, batch)
    run = fast_effects(final_head(model), scored)
    first_order = contenders.attribution(model, case.tokens, batch, all_layers=False)[0]
    chosen, told = reference_neurons(case, run.effects)
    say(f"{case.name}: float64 reference, {told}")
    exact = contenders.reference_effects(model, scored, chosen)
    differences = {
        "max_error_nats": run.effects[chosen] - exact,
        "atp_max_error_nats": first_order[chosen] - exact,
        "largest_effect_nats": exact,
    }
    found = {name: float(values.abs().max()) for name, values in differences.items()}
    return found | run.work | {"reference": told}


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


def table(rows: list[cost.Row]) -> pd.DataFrame:
    """The rows as they are printed: one column a shape, as the page `cost` has them."""
    seconds = cost.times_table(rows)["seconds"].unstack("shape").add_suffix(", s", axis=0)
    return pd.concat([cost.summary_table(rows), seconds])


def scaling(*, device: str = "cpu", out: Path | None = None) -> list[cost.Row]:
    """Seconds of the fast path, the capture left out, on heads of random weights.

    One record a point of GRID: `axis` (the size that changes), the three sizes and `seconds`; the
    points of an axis are timed in turn. Written to `out` as JSON if given. Raises `UserError`.
    """
    check_asked(device, out)
    records = []
    for axis, values in GRID.items():
        points = {f"{value} {axis}": BASE | {axis: value} for value in values}
        heads = {name: synthetic(**size, device=device) for name, size in points.items()}
        tasks = {name: partial(fast_effects, *head) for name, head in heads.items()}
        seconds = best_of(tasks, torch.device(device), "scaling")
        more = {"d_model": D_MODEL, "device": device}
        records += [
            {"axis": axis, **size, "seconds": seconds[name], **more}
            for name, size in points.items()
        ]
    if out:
        write_json(out, records)
    return records


def synthetic(
    positions: int, neurons: int, vocabulary: int, device: str = "cpu"
) -> tuple[FinalHead, Gathered]:
    """A head with random weights and random activations, at the scale of a trained model's.

    Logits of unit spread times 3 give a prediction with a long tail, activations are sparse as
    after a GELU.
    """
    draw = torch.Generator().manual_seed(SEED)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw).to(device)

    W_out = normal(neurons, D_MODEL) / D_MODEL**0.5
    W_out = W_out - W_out.mean(dim=1, keepdim=True)
    head = FinalHead(
        W_out=W_out,
        W_out_sq=W_out.square().sum(dim=1),
        G=normal(D_MODEL, vocabulary) * 3 / D_MODEL**0.5,
        logit_bias=torch.zeros(vocabulary, device=device),
        eps=1e-5,
        centred=True,
    )
    post = 0.3 * normal(positions, neurons).relu()
    target = torch.randint(vocabulary, (positions,), generator=draw).to(device)
    return head, Gathered(10 * normal(positions, D_MODEL), post, target, post.mean(dim=0))
