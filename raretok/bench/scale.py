"""What the whole study would cost for large models, on paper: sizes, work as measured, a GPU."""

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from raretok.bench import cost
from raretok.measure.record import Folder
from raretok.paths import DATA

if TYPE_CHECKING:
    from raretok.measure.cost import Load

POSITIONS, CONTEXT = 100_000, 256
CLASSES, NEURONS = 2, 100  # rare and common; neurons of a layer ablated exactly
PART = "effects: stratified"
EXACT = 40 / 600  # of the contexts, as measure/layers.py ablates and screens
BATCH, SCORED = 8, 256  # contexts and scored positions together, as in raretok/ablation
# Of an H100 SXM (data sheet, dense), whose memory is read faster than either is reached. For exact
# effects at the head bfloat16 is too coarse.
BF16, FLOAT32, GPU = 989e12, 67e12, 80e9
ABLATION = 8e9  # bytes that a measurement keeps the ablation to, as measure/source.py does
UTILISATION = 0.4  # Llama 3 405B was trained at 38 to 43 % of BF16 (arXiv 2407.21783, table 4)


class Shape(NamedTuple):
    """Sizes as a row of the bench has them: no biases; `d_kv` of all key heads."""

    d_model: int
    n_layers: int
    neurons: int
    vocabulary: int
    d_kv: int
    tied: bool = False
    gated: bool = True

    @property
    def blocks(self) -> int:
        """Weights of the matrices of all blocks."""
        widths = 2 * (self.d_model + self.d_kv) + (2 + self.gated) * self.neurons
        return self.n_layers * self.d_model * widths

    @property
    def parameters(self) -> int:
        """All weights, norms with them."""
        rest = 2 * self.n_layers + 1 + (2 - self.tied) * self.vocabulary
        return self.blocks + self.d_model * rest

    @property
    def forward(self) -> int:
        """Operations of all blocks at one token; the logits are left out."""
        return 2 * self.blocks + 4 * self.n_layers * self.d_model * CONTEXT

    @property
    def kept(self) -> int:
        """Bytes that the blocks keep of a batch for a backward pass, in bfloat16."""
        widths = 6 * self.d_model + 2 * self.d_kv + (2 + self.gated) * self.neurons
        return 2 * BATCH * CONTEXT * self.n_layers * widths

    @property
    def head(self) -> int:
        """Bytes: six float32 arrays of logits; unembedding in three forms, directions in two."""
        return self.vocabulary * (24 * SCORED + 10 * self.d_model + 6 * self.neurons)

    def load(self, lead: "Load", row: cost.Row) -> "Load":
        """What a run of this model takes, from the lead model's; `row` is of its effects."""
        theirs = MODELS["SmolLM2-135M"]
        own, other = (work(row | one._asdict())["rest"] for one in (self, theirs))
        sizes = {"n_layers": self.n_layers, "d_model": self.d_model, "d_mlp": self.neurons}
        sizes = replace(lead.sizes, gated=bool(self.gated), **sizes)
        token, position = lead.token * self.forward / theirs.forward, lead.position * own / other
        return replace(lead, sizes=sizes, token=token, position=position)


def shapes(where: str) -> dict[str, Shape]:
    """Public models that the `page` or the `table` shows.

    Where queries are not as wide as the model, d_kv makes up for it.
    """
    rows = pd.read_csv(DATA / "sizes.csv", index_col="model")
    shown = rows[rows.pop(where) == 1][list(Shape._fields)]
    return {row[0]: Shape(*map(int, row[1:])) for row in shown.itertuples()}


MODELS, PUBLISHED = shapes("page"), shapes("table")


def measured(part: str = PART) -> cost.Row:
    """A part of SmolLM2's measurement, as a row of the bench. Raises `UserError` if damaged."""
    folder = Folder(DATA / "measurements" / "smollm2-135m-q4")
    entry, data = folder.record()["parts"][part], folder.read(part)
    row = cost.read()[0] | data.attrs | entry["made"] | {"positions": data.sizes["position"]}
    row |= {"tokens_summed": row["n_head"] + row["n_tail"], "tokens_probed": row["n_probe"]}
    row["per_context"] = row["positions"] / np.unique(data.context).size
    return row | {"bytes_a_pair": entry["bytes"] / data.delta_loss.size}


def work(row: cost.Row) -> pd.Series:
    """Operations at all positions: of a forward `pass`, of its `blocks`, and of the `rest`."""
    done = cost.operations(row)
    total = done.flops * np.where(done.kind == "once", 1, row["positions"])
    forward = total[done.kind == "forward"].sum()
    return pd.Series({"pass": forward, "blocks": total.iloc[0], "rest": total.iloc[1:].sum()})


def hours(shape: Shape, row: cost.Row, positions: int = POSITIONS) -> pd.Series:
    """Hours of one H100 for each part of the study; `row` as measured."""
    forward = CONTEXT * positions / row["per_context"] * shape.forward / BF16
    effects = work(row | shape._asdict() | {"positions": positions})["rest"] / FLOAT32
    # Half of the blocks follow a layer, on average. Logits are below 5 % of the passes.
    again = EXACT * NEURONS * (shape.n_layers - 1) / 2
    parts = {"last MLP": forward + effects, "screen": (1 + CLASSES) * forward}
    return pd.Series(parts | {"exact ablation": again * forward}) / UTILISATION / 3600


def table(row: cost.Row) -> pd.DataFrame:
    """One line a model: hours of one H100, the cards that hold it, and what is stored."""
    found = {}
    for name, shape in MODELS.items():
        parts, held = hours(shape, row), 2 * shape.parameters + shape.kept + shape.head
        pairs = POSITIONS * (shape.neurons + EXACT * NEURONS * (shape.n_layers - 1))
        found[name] = {"parameters (1e9)": shape.parameters / 1e9, **parts.add_suffix(" (h)")}
        found[name] |= {"in all (h)": parts.sum(), "cards": ceil(held / GPU)}
        found[name] |= {"store (GB)": pairs * row["bytes_a_pair"] / 1e9}
    return pd.DataFrame(found).T


def published() -> str:
    """What `raretok run` takes of public models, as Markdown: extrapolated, none was run."""
    from raretok.measure.cost import lead as measured_lead  # needs torch, which no page imports

    row, (lead, made) = measured(), measured_lead()
    threads, n = cost.read()[0]["threads"], row["positions"]
    said = "Extrapolated: none of these was run. Each part takes what it took of SmolLM2, as often "
    said += "as its operations are those of SmolLM2; the memory is of float32 weights. The last "
    said += (
        f"MLP is ablated at the book's {n:,} positions; {{ref}}`cost` counts {POSITIONS:,}, and "
    )
    said += "every layer.\n\n"
    said += f"| model | parameters | last MLP, CPU ({threads} threads) | all parts, CPU "
    said += "| last MLP, H100 | memory |\n|---" + "|---:" * 5 + "|"
    for name, shape in PUBLISHED.items():
        load, size = shape.load(lead, row), shape.parameters
        last, every = (
            few(one / 3600) for one in (load.seconds(PART), sum(map(load.seconds, made)))
        )
        card = few(3600 * hours(shape, row, n)["last MLP"])
        held = few((4 * size + min(shape.head, ABLATION)) / 1e9)
        said += f"\n| {name} | {few(size / 1e9)}e9 | {last} h | {every} h | {card} s | {held} GB |"
    return said


def checks() -> pd.DataFrame:
    """Seconds measured, and predicted from the rates at which the bench ran the shipped model."""
    docs, *rows = cost.read()
    took = {"pass": docs["seconds_forward"], "blocks": docs["seconds_capture"]}
    took["rest"] = docs["seconds_fast"] - docs["seconds_capture"]
    rate, found = pd.Series(took) / work(docs), {}  # seconds of an operation
    for row in rows:
        one, name = rate * work(row), row["shape"]
        found[name, "fast path"] = row["seconds_fast"], one["blocks"] + one["rest"]
        found[name, "AtP, all layers"] = row["seconds_atp"], 2 * one["pass"]
        found[name, "whole model again"] = row["seconds_hooks"], row["neurons"] * one["pass"]
    shape = MODELS["SmolLM2-135M"]
    for part in (PART, "effects: whole contexts"):
        row = measured(part)
        tokens = CONTEXT * row["positions"] / row["per_context"]
        rest = work(row | shape._asdict())["rest"] * rate["rest"]
        fast = tokens * shape.forward * rate["blocks"] + rest
        found["SmolLM2-135M", part] = row["seconds"], fast
    table = pd.DataFrame(found, index=["measured (s)", "predicted (s)"]).T
    return table.assign(ratio=table["predicted (s)"] / table["measured (s)"])


def few(x: float | int) -> str:
    """Three digits at most."""
    return f"{float(f'{x:.3g}'):,g}"


def told(row: cost.Row, study: pd.DataFrame, checked: pd.DataFrame) -> dict[str, str]:
    """Numbers of the sentences, as they are shown; those of one model are of the largest."""
    largest = study.iloc[-1]
    said = {"positions": POSITIONS, "neurons": NEURONS, "exact": 100 * EXACT, "gpu": GPU / 1e9}
    said |= {"context": CONTEXT, "per_context": row["per_context"], "use": 100 * UTILISATION}
    said |= {"hours": largest["in all (h)"], "cards": largest["cards"], "book": row["positions"]}
    said |= {"low": checked.ratio.min(), "high": checked.ratio.max(), "slower": BF16 / FLOAT32}
    return {f"scale_{name}": few(value) for name, value in said.items()}
