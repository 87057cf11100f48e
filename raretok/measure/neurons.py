"""The table of a run: one row a neuron, as a data frame and as a Parquet file beside the run."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr
from jaxtyping import Float

from raretok import __version__
from raretok.ablation.store import TABLE, open_run, read_record
from raretok.errors import NotTestableError
from raretok.paths import locked, one_line, replacing
from raretok.stats.jackknife import deal, jackknife
from raretok.text.rarity import STRATA

TOP = 8  # tokens that a neuron promotes, and that it suppresses
ROWS = 1024  # positions summed at a time: a run may be larger than the memory
WHERE = {
    "rare": "where the target is rare",
    "common": "where the target is common",
    "middle": "where the target is neither rare nor common",
    "all": "over all positions, each weighted by what it stands for in the text",
}
BOUNDS = {
    "": "mean change of the loss when it is ablated (positive: it helped), ",
    "_low": "lower end of its 95 % interval over documents, ",
    "_high": "upper end of its 95 % interval over documents, ",
}
OF_MODEL = {  # what needs the model and no loss
    "gate_rate": ("", "share of tokens at which its gate is positive, in a gated last MLP"),
    "W_in_norm": ("", "length of its row of W_in"),
    "W_gate_norm": ("", "length of its row of W_gate, in a gated MLP"),
    "W_out_norm": ("", "length of its row of W_out, times a multiplier of the MLP's output"),
    "b_in": ("", "its bias, where there is one"),
    "promotes": ("", f"the {TOP} tokens whose logits it raises most, straight to the unembedding"),
    "suppresses": ("", f"the {TOP} tokens whose logits it lowers most"),
}
COLUMNS = {  # name -> unit, meaning; in the order of the table
    "neuron": ("", "index in its layer"),
    "rank": ("", "place by `delta_loss_rare`, 1 the largest; before the last by `screen_rare`"),
    **{
        f"delta_loss_{name}{end}": ("nats", what + where)
        for name, where in WHERE.items()
        for end, what in BOUNDS.items()
    },
    "screen_rare": ("nats", "first-order `delta_loss_rare`, in a layer before the last"),
    "screen_common": ("nats", "first-order `delta_loss_common`, in a layer before the last"),
    "top": ("", "ablated exactly, being among the largest on the screen"),
    "random": ("", "ablated exactly, being drawn at random from the layer"),
    "sampling_error": ("nats", "standard error of its unweighted mean effect by sampled tokens"),
    "activation_mean": ("", "mean activation in the contexts of the positions: the replacement"),
    "activation_sd": ("", "standard deviation of its activation over positions, weighted"),
    "firing_rate": ("", "share of positions at which its activation is positive, weighted"),
    **OF_MODEL,
}
MEASURED = {  # columns that the table of a measurement has beside those of a run
    **{
        f"direct_{name}{end}": ("nats", f"{what}{WHERE[name]}, the final norm's scale held")
        for name in ("rare", "common")
        for end, what in BOUNDS.items()
    },
    "in_head": ("", "among the first 1 % of the layer by `delta_loss_rare`"),
    "head_share": ("", "share of halves of the documents in which it is among the first 1 %"),
    **{
        f"delta_loss_bin_{n}": ("nats", f"mean effect on the targets of frequency bin {n}")
        for n in range(1, 11)
    },
}


def neurons(run: xr.Dataset | str | Path) -> pd.DataFrame:
    """One row a neuron of a run's folder, or of what `ablate` returns or some positions of it.

    The columns are those of COLUMNS that the run has; units and meanings are in `attrs`. Intervals
    are missing where the positions come from fewer than 4 documents. Raises `UserError` for a
    folder without a finished run.
    """
    data = run if isinstance(run, xr.Dataset) else labelled(Path(run), open_run(run))
    dim = "screened" if "screened" in data.dims else "neuron"
    index = np.arange(data.sizes[dim]) if dim == "screened" else data.neuron.values
    found = {"neuron": index, "activation_mean": data.mean_post.values}
    for name in ("top", "random"):
        if name in data:
            found[name] = np.isin(index, data.neuron.values[data[name].values])
    if "screen" in data:
        found |= {f"screen_{c}": data.screen.sel(token_class=c).values for c in ("rare", "common")}
    found |= {n: data[n].values.tolist() for n in OF_MODEL if n in data}
    exact = effects_by_class(data) | activations(data)
    if "sampling_error" in data:
        exact["sampling_error"] = data.sampling_error.values
    frame = pd.DataFrame(found, index).join(pd.DataFrame(exact, data.neuron.values))
    by = frame["screen_rare" if "screen" in data else "delta_loss_rare"]
    frame["rank"] = by.rank(ascending=False, method="first").astype("Int64")
    return described(frame, COLUMNS)


def described(frame: pd.DataFrame, columns: dict[str, tuple[str, str]]) -> pd.DataFrame:
    """The columns that are known, in their order, with units and meanings in `attrs`."""
    frame = frame[[name for name in columns if name in frame]]
    named = ("unit", "meaning")
    frame.attrs = {name: dict(zip(named, columns[name], strict=True)) for name in frame}
    return frame


def effects_by_class(data: xr.Dataset) -> dict[str, Float[np.ndarray, " neuron"]]:
    """Mean loss change of each neuron in each class of positions, with its 95 % interval."""
    stratum, weight = data.stratum.values, data.weight.values
    members = {name: weight * (stratum == s) for s, name in enumerate(STRATA)} | {"all": weight}
    named = zip(members, bounds_in(data, np.stack(list(members.values()))), strict=True)
    return {
        f"delta_loss_{c}{end}": row for c, of in named for end, row in zip(BOUNDS, of, strict=True)
    }


def bounds_in(
    data: xr.Dataset, members: Float[np.ndarray, "some position"]
) -> Float[np.ndarray, "some bound neuron"]:
    """Mean loss change over some weighted positions, and the ends of its 95 % interval."""
    document = data.document.values
    try:
        rng = np.random.default_rng([data.attrs.get("seed", 0), *b"table of neurons"])
        dealt = deal(document, rng=rng)
        block, kept = dealt.of(document), dealt.kept.astype(float)
    except NotTestableError:
        block, kept = np.zeros(document.size), np.ones((1, 1))
    of = members[:, None] * (block == np.arange(kept.shape[1])[:, None])
    with np.errstate(invalid="ignore"):  # a class may have no position
        means = (kept @ summed(of, data.delta_loss)) / (kept @ of.sum(axis=-1)[..., None])
    return np.apply_along_axis(interval, 1, means)


def of_measurement(part: Callable[[str], xr.Dataset]) -> pd.DataFrame:
    """The same table of a measurement whose parts are asked for by name, direct effects beside it.

    Raises `NotTestableError` where effects or tokens were not measured.
    """
    effects, model, tokens = (part(name) for name in ("effects: stratified", "model", "tokens"))
    norms = {
        f"{name}_norm": np.linalg.norm(model[name].values, axis=1)
        for name in ("W_in", "W_gate", "W_out")
        if name in model
    }
    known = np.array(tokens.texts)
    words = {
        name: known[np.searchsorted(tokens.token.values, tokens[name].values)]
        for name in ("promotes", "suppresses")
    }
    frame = neurons(effects.assign(of_model(norms | words, effects)))
    with suppress(NotTestableError):  # measured of the lead models only
        frame = frame.assign(**direct_effects(part("interventions")))
    return frame


def direct_effects(interventions: xr.Dataset) -> dict[str, Float[np.ndarray, " neuron"]]:
    """Effects with the final norm's scale held, from their sums by document and class."""
    sums = interventions.delta_loss.values[list(interventions.interventions).index("direct")]
    weight = interventions.weight.values
    labels = {n: ("position", interventions[f"cell_{n}"].values) for n in ("document", "stratum")}
    mean = (("position", "neuron"), sums / weight[:, None])
    found = effects_by_class(
        xr.Dataset({"delta_loss": mean}, labels | {"weight": ("position", weight)})
    )
    named = {name.replace("delta_loss", "direct"): values for name, values in found.items()}
    return {name: values for name, values in named.items() if name in MEASURED}


def interval(values: Float[np.ndarray, " left_out"]) -> tuple[float, float, float]:
    """Value and ends of its 95 % interval; no numbers for ends that cannot be had."""
    try:
        return astuple(jackknife(values)) if values.size > 1 else (values[0], np.nan, np.nan)
    except NotTestableError:
        return float(values[0]), np.nan, np.nan


def activations(data: xr.Dataset) -> dict[str, Float[np.ndarray, " neuron"]]:
    """How activations scatter and how often they are positive, over weighted positions."""
    if "post" not in data:
        return {}
    share = data.weight.values / data.weight.values.sum()
    mean, square = (summed(share, data.post, of) for of in (np.asarray, np.square))
    found = {"activation_sd": np.sqrt(np.maximum(square - mean**2, 0))}
    return found | {"firing_rate": summed(share, data.post, lambda post: post > 0)}


def summed(
    weight: Float[np.ndarray, "*group position"],
    values: xr.DataArray,
    of: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Float[np.ndarray, "*group neuron"]:
    """Weighted sums over positions, in float64."""
    some = [slice(start, start + ROWS) for start in range(0, len(values), ROWS)]
    return sum(weight[..., rows] @ of(values[rows].values.astype(np.float64)) for rows in some)


def labelled(folder: Path, data: xr.Dataset) -> xr.Dataset:
    """A run with names on its axes, where it comes from, and what its table says of the model."""
    record, kept = read_record(folder), {}
    given = ("corpus_sha256", "contexts_sha256", "seed")
    asked = {name: record["settings"][name] for name in given if name in record["settings"]}
    data = data.assign_attrs(run=record["key"], **asked)
    neuron = data.neuron.values  # of the last layer, all of them
    classes = np.array(STRATA)[data.stratum.values]
    data = data.assign_coords(neuron=neuron, target_class=("position", classes))
    try:
        table = pq.read_table(folder / TABLE)
        made = json.loads(table.schema.metadata[b"raretok"])
        if (made["run"], made["raretok"]) == (record["key"], __version__):
            data = data.assign_attrs({n: made[n] for n in ("corpus", "revision")})
            kept = {n: table[n].to_pylist() for n in OF_MODEL if n in table.column_names}
    except (OSError, ValueError, KeyError, TypeError):  # none, or none of this run: made anew
        pass
    return data.assign(of_model({n: np.array(values) for n, values in kept.items()}, data))


def of_model(columns: dict[str, np.ndarray], data: xr.Dataset) -> dict[str, tuple]:
    """What belongs to the model's weights, as variables of a run."""
    dim = "screened" if "screened" in data.dims else "neuron"
    return {n: ((dim, "place")[: values.ndim], values) for n, values in columns.items()}


def write_table(folder: Path, data: xr.Dataset) -> None:
    """Write the table of a run beside it, whole or not at all; equal runs give equal bytes."""
    frame = neurons(data)
    table = with_units(frame, data.attrs | {"raretok": __version__})
    with one_line(folder), locked(folder, wait=True), replacing(folder / TABLE) as draft:
        pq.write_table(table, draft)


def with_units(frame: pd.DataFrame, made: dict[str, Any]) -> pa.Table:
    """A table for Parquet; its schema says what it was made from, and the units of its columns."""
    made = made | {"columns": frame.attrs}
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return table.replace_schema_metadata({"raretok": json.dumps(made, sort_keys=True)})


def column_table(columns: dict[str, tuple[str, str]] = COLUMNS) -> str:
    """What the columns mean, as a Markdown table; the ends of intervals go without saying."""
    shown = [name for name in columns if not name.endswith(("_low", "_high"))]
    units = {name: f", in {columns[name][0]}" if columns[name][0] else "" for name in shown}
    rows = [f"| `{name}` | {columns[name][1]}{units[name]} |" for name in shown]
    return "\n".join(["| column | meaning |", "|---|---|", *rows])
