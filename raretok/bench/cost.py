"""Tables, figures and sentences of the page `cost`, from the files `raretok bench` wrote."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import linregress

from raretok.paths import DATA

RESULTS, SCALING = DATA / "bench.json", DATA / "bench_scaling.json"

Row = dict[str, Any]
WAYS = {  # in the order of their time: key of a row, name
    "forward": "forward pass with its loss",
    "fast": "all neurons, fast path",
    "atp_last_layer": "AtP, last layer only",
    "atp": "AtP, all layers",
    "full": "closed form, every pair in full",
    "released": "norm and unembedding again",
    "hooks": "whole model again, by hooks",
}
SUMMARY = {  # of a row: its name in the table, and how it is shown there and in sentences
    "weights": ("weights", "{}"),
    "positions": ("positions", "{:,}"),
    "neurons": ("neurons", "{:,}"),
    "vocabulary": ("vocabulary", "{:,}"),
    "ratio_to_forward": ("fast path / forward pass", "{:.2f}"),
    "ratio_to_atp": ("fast path / AtP", "{:.2f}"),
    "ratio_to_atp_last_layer": ("fast path / AtP, last layer", "{:.2f}"),
    "speedup_vs_released": ("released way / fast path", "{:,.0f}"),
    "speedup_vs_hooks": ("hook loop / fast path", "{:,.0f}"),
    "largest_effect_nats": ("largest effect, nats", "{:.1e}"),
    "max_error_nats": ("largest error, fast path, nats", "{:.1e}"),
    "atp_max_error_nats": ("largest error, AtP, nats", "{:.1e}"),
    "reference": ("neurons checked", "{}"),
    "peak_gb": ("memory above the model, GB", "{:.2f}"),
    "run_on": ("run on", "{}"),
}
AXES = {"positions": "positions", "neurons": "neurons", "vocabulary": "vocabulary (tokens)"}


def read(path: Path = RESULTS) -> list[Row]:
    """Rows of a file that `raretok bench --json` wrote."""
    return json.loads(path.read_text())


def times_table(rows: list[Row]) -> pd.DataFrame:
    """Seconds of each way, and how often one forward pass that is."""
    found, on = {}, "{neurons} neurons, {positions:,} positions"
    for row in rows:
        for key, name in WAYS.items():
            seconds, part = row[f"seconds_{key}"], row["extrapolated"].get(key)
            found[row["shape"], name] = {
                "seconds": f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.2f}",
                "forward passes": f"{seconds / row['seconds_forward']:,.3g}",
                "timed on": on.format(**part) if part else "everything",
            }
    return pd.DataFrame.from_dict(found, orient="index").rename_axis(["shape", "way"])


def summary(row: Row) -> dict[str, str]:
    """The numbers of SUMMARY as they are shown."""
    run_on = "{device}, {threads} threads, torch {torch}".format(**row)
    row = row | {"peak_gb": row["peak_bytes"] / 1e9, "run_on": run_on}
    return {key: form.format(row[key]) for key, (_, form) in SUMMARY.items()}


def summary_table(rows: list[Row]) -> pd.DataFrame:
    """What was run, the ratios, the errors and the memory: one column a shape."""
    names = {key: name for key, (name, _) in SUMMARY.items()}
    return pd.DataFrame({row["shape"]: summary(row) for row in rows}).rename(index=names)


def relative(rows: list[Row]) -> dict[str, list[float]]:
    """Times in forward passes, in the order of WAYS, by shape."""
    return {
        f"{row['shape']}, {row['weights']}": [
            row[f"seconds_{key}"] / row["seconds_forward"] for key in WAYS
        ]
        for row in rows
    }


def operations(row: Row) -> pd.DataFrame:
    """What the fast path does at one position, from the sizes of a model alone.

    Floating-point operations, a multiplication and an addition being two. Blocks are counted with
    an MLP of two matrices and full attention, a term of one token with 15. `kind`: "forward" is
    part of a forward pass too, "floor" an exact answer for all neurons needs beside it (activations
    and residuals, the prediction, its first order in each neuron's push), and "once" is for a
    model, not for a position. Of a pair summed in full the tokens' directions are made anew.
    """
    d, n, v, layers = (row[key] for key in ("d_model", "neurons", "vocabulary", "n_layers"))
    k, more = row["tokens_summed"] + row["tokens_probed"], row["tokens_again"]
    again, in_full = (round(row[key] * n) for key in ("sampled_again", "summed_in_full"))
    blocks = layers * (2 * (4 * d * d + 2 * d * n) + 4 * d * row["context"])
    numbers = {
        "blocks of the model": (blocks, "forward"),
        "logits and their softmax": (2 * d * v + 5 * v, "forward"),
        "mean direction of the prediction": (2 * d * v, "floor"),
        "its product, and the residual's, with W_out": (6 * d * n, "floor"),
        "activations read, effects written": (10 * n, "floor"),
        "tokens summed or probed for each neuron": (15 * k * n, ""),
        "directions of all tokens (once a model)": (2 * d * n * v, "once"),
        "second order of the other tokens": (2 * n * v + 4 * d * v, ""),
        "pairs sampled again": (15 * more * again, ""),
        "pairs summed in full": ((15 + 2 * d) * v * in_full, ""),
    }
    if not row["second_order"]:
        del numbers["second order of the other tokens"]
    return pd.DataFrame.from_dict(numbers, orient="index", columns=["flops", "kind"])


def work_table(rows: list[Row]) -> pd.DataFrame:
    """Operations a position, in millions; what is done once a model is spread over positions."""
    columns = {}
    for row in rows:
        done = operations(row)
        spread = np.where(done.kind == "once", row["positions"], 1) * 1e6
        columns[row["shape"]] = (done.flops / spread).map("{:.1f}".format)
    found = pd.concat(columns, axis=1).fillna("–")
    return found.rename_axis("million operations at one position")


def floor_ratio(row: Row) -> float:
    """Least operations of an exact way, relative to those of one forward pass."""
    flops = operations(row).groupby("kind").flops.sum()
    return 1 + flops["floor"] / flops["forward"]


@dataclass(frozen=True)
class ScalingFit:
    """Seconds against one size, and the power law through them (least squares, log-log)."""

    axis: str
    size: Float[np.ndarray, " point"]
    seconds: Float[np.ndarray, " point"]
    exponent: float
    stderr: float  # from the scatter about the line
    line: Float[np.ndarray, " point"]


def fit_scaling(axis: str, records: list[Row]) -> ScalingFit:
    """The power law of one axis. Raises `ValueError` with fewer than 3 sizes."""
    points = [(r[axis], r["seconds"]) for r in records if r["axis"] == axis]
    if len(points) < 3:
        raise ValueError(f"a line and its error need 3 sizes, {axis} has {len(points)}")
    size, seconds = np.array(points, dtype=float).T
    fit = linregress(np.log(size), np.log(seconds))
    line = float(np.exp(fit.intercept)) * size**fit.slope
    return ScalingFit(axis, size, seconds, fit.slope, fit.stderr, line)


def fits(path: Path = SCALING) -> list[ScalingFit]:
    """One fit an axis."""
    records = read(path)
    return [fit_scaling(axis, records) for axis in AXES]


def base_text(path: Path = SCALING) -> str:
    """The sizes that stay while one changes: those all axes share."""
    records = read(path)
    base = {axis: next(r[axis] for r in records if r["axis"] != axis) for axis in AXES}
    sizes = ", ".join(f"{value:,} {axis}" for axis, value in base.items())
    return f"{sizes}, d_model {records[0]['d_model']:,}"


def told(rows: list[Row], found: list[ScalingFit]) -> dict[str, str]:
    """Numbers of the page's sentences, as they are shown."""
    numbers = {f"exponent_{fit.axis}": f"{fit.exponent:.2f} ± {fit.stderr:.2f}" for fit in found}
    numbers["base"] = base_text()
    for row in rows:
        said = summary(row) | {"floor": f"{floor_ratio(row):.2f}"}
        said["capture"] = f"{row['seconds_capture'] / row['seconds_forward']:.2f}"
        key = row["shape"].replace("-", "_")
        numbers |= {f"{key}_{name}": text for name, text in said.items()}
    return numbers
