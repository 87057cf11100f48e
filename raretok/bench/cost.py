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
# Ways in the order of their time: key of a row, name, whether its time is extrapolated.
WAYS = {
    "forward": ("forward pass with its loss", False),
    "fast": ("all neurons, fast path", False),
    "atp_last_layer": ("AtP, last layer only", False),
    "atp": ("AtP, all layers", False),
    "full": ("closed form, every pair in full", True),
    "released": ("norm and unembedding again", True),
    "hooks": ("whole model again, by hooks", True),
}
SUMMARY = {  # of a row, as the table shows it
    "weights": "{weights}",
    "positions": "{positions:,}",
    "neurons": "{neurons:,}",
    "vocabulary": "{vocabulary:,}",
    "fast path / forward pass": "{ratio_to_forward:.2f}",
    "fast path / AtP": "{ratio_to_atp:.2f}",
    "fast path / AtP, last layer": "{ratio_to_atp_last_layer:.2f}",
    "released way / fast path": "{speedup_vs_released:,.0f}",
    "hook loop / fast path": "{speedup_vs_hooks:,.0f}",
    "largest effect, nats": "{largest_effect_nats:.1e}",
    "largest error, fast path, nats": "{max_error_nats:.1e}",
    "largest error, AtP, nats": "{atp_max_error_nats:.1e}",
    "neurons checked": "{reference}",
    "memory above the model, GB": "{peak_gb:.2f}",
    "run on": "{device}, {threads} threads, torch {torch}",
}
TOLD = {  # of a row, in sentences
    "ratio": "{ratio_to_forward:.2f}",
    "floor": "{floor:.2f}",
    "capture": "{capture:.2f}",
    "released": "{speedup_vs_released:,.0f}",
    "hooks": "{speedup_vs_hooks:,.0f}",
    "atp": "{ratio_to_atp:.2f}",
    "atp_last": "{ratio_to_atp_last_layer:.2f}",
    "error": "{max_error_nats:.0e}",
    "atp_error": "{atp_max_error_nats:.0e}",
    "largest": "{largest_effect_nats:.0e}",
    "checked": "{reference}",
}
AXES = {"positions": "positions", "neurons": "neurons", "vocabulary": "vocabulary (tokens)"}
FLOAT = 4  # bytes of a float32


def read(path: Path = RESULTS) -> list[Row]:
    """Rows of a file that `raretok bench --json` wrote."""
    return json.loads(path.read_text())


def times_table(rows: list[Row]) -> pd.DataFrame:
    """Seconds of each way, and how often one forward pass that is."""
    found = {}
    for row in rows:
        for key, (name, extrapolated) in WAYS.items():
            seconds, part = row[f"seconds_{key}"], row["extrapolated"].get(key)
            on = "{neurons} neurons, {positions:,} positions".format(**part) if extrapolated else ""
            found[row["shape"], name] = {
                "seconds": f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.2f}",
                "forward passes": f"{seconds / row['seconds_forward']:,.3g}",
                "timed on": on or "everything",
            }
    return pd.DataFrame.from_dict(found, orient="index").rename_axis(["shape", "way"])


def summary_table(rows: list[Row]) -> pd.DataFrame:
    """What was run, the ratios, the errors and the memory: one column a shape."""
    given = {row["shape"]: row | {"peak_gb": row["peak_bytes"] / 1e9} for row in rows}
    return pd.DataFrame(
        {
            shape: {name: text.format(**row) for name, text in SUMMARY.items()}
            for shape, row in given.items()
        }
    )


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

    Floating-point operations, a multiplication and an addition being two, and bytes read and
    written at least once; weights that positions share are left out. Blocks are counted with an
    MLP of two matrices and full attention, a term of one token with 15. `forward`: part of a
    forward pass, too; `floor`: an exact answer for all neurons needs it (activations and residuals,
    the prediction, its first order in each neuron's push); `once`: for a model, not for a position.
    Of a pair summed in full the directions of the tokens are made anew.
    """
    d, n, v, layers = (row[key] for key in ("d_model", "neurons", "vocabulary", "n_layers"))
    blocks = layers * (2 * (4 * d * d + 2 * d * n) + 4 * d * row["context"])
    k, more = row["tokens_summed"] + row["tokens_probed"], row["tokens_again"]
    again, in_full = (round(row[key] * n) for key in ("sampled_again", "summed_in_full"))
    numbers = {
        "blocks of the model": (blocks, layers * (6 * d + 2 * n), "forward"),
        "logits and their softmax": (2 * d * v + 5 * v, 3 * v, "forward"),
        "mean direction of the prediction": (2 * d * v, v, "floor"),
        "its product, and the residual's, with W_out": (6 * d * n, 3 * n, "floor"),
        "activations read, effects written": (10 * n, 2 * n, "floor"),
        "tokens summed or probed for each neuron": (15 * k * n, k * n, ""),
        "directions of all tokens": (2 * d * n * v, n * v, "once"),
        "second order of the other tokens": (2 * n * v + 4 * d * v, v / 2, ""),
        "pairs sampled again": (15 * more * again, 3 * more * again, ""),
        "pairs summed in full": ((15 + 2 * d) * v * in_full, 5 * v * in_full, ""),
    }
    if not row["second_order"]:
        del numbers["second order of the other tokens"]
    found = pd.DataFrame.from_dict(numbers, orient="index", columns=["flops", "bytes", "kind"])
    kinds = {name: found.kind == name for name in ("forward", "floor", "once")}
    return found.assign(**kinds, bytes=FLOAT * found.bytes).assign(
        floor=kinds["forward"] | kinds["floor"]
    )


def work_table(rows: list[Row]) -> pd.DataFrame:
    """Operations and bytes a position; what is done once a model is spread over positions."""
    columns = {}
    for row in rows:
        done = operations(row)
        done[["flops", "bytes"]] /= np.where(done.once, row["positions"], 1)[:, None] * 1e6
        done.index += np.where(done.once, " (once a model)", "")
        columns[row["shape"], "MFLOP"] = done.flops.map("{:.1f}".format)
        columns[row["shape"], "MB"] = done.bytes.map("{:.2f}".format)
    return pd.concat(columns, axis=1).fillna("–").rename_axis("operation, at one position")


def floor_ratio(row: Row) -> float:
    """Least operations of an exact way, relative to those of one forward pass."""
    done = operations(row)
    return done.flops[done.floor].sum() / done.flops[done.forward].sum()


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
    return [fit_scaling(axis, records) for axis in dict.fromkeys(r["axis"] for r in records)]


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
        capture = row["seconds_capture"] / row["seconds_forward"]
        row, key = row | {"floor": floor_ratio(row), "capture": capture}, row["shape"]
        key = key.replace("-", "_")
        numbers |= {f"{key}_{name}": text.format(**row) for name, text in TOLD.items()}
    return numbers
