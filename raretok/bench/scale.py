"""What the whole study would cost for large models, on paper: sizes, work as measured, a GPU."""

from dataclasses import replace
from math import ceil, prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

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
# Of an H100 SXM (data sheet, dense). For exact effects at the head bfloat16 is too coarse.
BF16, FLOAT32, BANDWIDTH, GPU = 989e12, 67e12, 3.35e12, 80e9
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
    def widths(self) -> int:
        """Matrices of an MLP."""
        return 2 + self.gated

    def parameters(self, blocks_only: bool = False) -> int:
        """Weights, norms with them; or the matrices of the blocks alone."""
        d, layers = self.d_model, self.n_layers
        blocks = layers * (2 * d * (d + self.d_kv) + self.widths * d * self.neurons)
        rest = (2 * layers + 1) * d + (2 - self.tied) * d * self.vocabulary
        return blocks + (0 if blocks_only else rest)

    def forward(self) -> int:
        """Operations of all blocks at one token; the logits are left out."""
        return 2 * self.parameters(True) + 4 * self.n_layers * self.d_model * CONTEXT

    def kept(self) -> int:
        """Numbers that the blocks keep of a token for a backward pass."""
        return self.n_layers * (6 * self.d_model + 2 * self.d_kv + self.widths * self.neurons)

    def load(self, lead: "Load", row: cost.Row) -> "Load":
        """What a run of this model takes, from the lead model's; `row` is of its effects."""
        theirs = MODELS["SmolLM2-135M"]
        own, other = (work(row | shape._asdict())[2] for shape in (self, theirs))
        sizes = {"n_layers": self.n_layers, "d_model": self.d_model, "d_mlp": self.neurons}
        return replace(
            lead,
            sizes=replace(lead.sizes, gated=bool(self.gated), **sizes),
            token=self.forward() / theirs.forward() * lead.token,
            position=own / other * lead.position,
        )


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


def summed(done: pd.DataFrame, positions: int) -> Float[np.ndarray, " kind"]:
    """Operations and bytes at all positions; what is done once a model counts once."""
    return np.where(done.once, 1, positions) @ done[["flops", "bytes"]].to_numpy(float)


def costs(shape: Shape, row: cost.Row, positions: int = POSITIONS) -> pd.DataFrame:
    """Operations, bytes and hours of one H100 of each part of the study; `row` as measured."""
    tokens, layers = CONTEXT * positions / row["per_context"], shape.n_layers
    behind = cost.operations(row | shape._asdict()).iloc[1:]
    # Weights are read once a batch, activations written and read once.
    traffic = 2 * shape.parameters() / (BATCH * CONTEXT) + 4 * shape.kept()
    one = tokens * np.array([shape.forward(), traffic])
    # Backwards each product of scores is two; gradient times change is three operations.
    more = CLASSES * tokens * layers * (4 * shape.d_model * CONTEXT + 3 * shape.neurons)
    parts = {
        "forward pass": (*one, BF16),
        "last MLP": (*summed(behind, positions), FLOAT32),
        "screen": (*((1 + CLASSES) * one + summed(behind[:2], positions) + [more, 0]), BF16),
        # Half of the blocks follow a layer, on average; the sums at the head are below 1 % of them.
        "exact ablation": (*(EXACT * NEURONS * (layers - 1) / 2 * one), BF16),
    }
    found = pd.DataFrame(parts, index=["operations", "bytes", "peak"]).T
    busy = np.maximum(found.operations / found.peak / UTILISATION, found.bytes / BANDWIDTH)
    return found.assign(hours=busy / 3600)


def head(shape: Shape) -> int:
    """Bytes: six float32 arrays of logits; unembedding in three forms, directions in two."""
    return shape.vocabulary * (24 * SCORED + 10 * shape.d_model + 6 * shape.neurons)


def table(row: cost.Row) -> pd.DataFrame:
    """One line a model: hours of one H100, work, what is held at once and what is stored."""
    found = {}
    for name, shape in MODELS.items():
        parts, layers, n = costs(shape, row), shape.n_layers, shape.neurons
        held = np.array([2 * shape.parameters(), 2 * BATCH * CONTEXT * shape.kept(), head(shape)])
        held = held / 1e9
        stored = POSITIONS * (n + EXACT * NEURONS * (layers - 1)) * row["bytes_a_pair"] / 1e9
        sums = parts[["hours", "operations", "bytes"]].sum() / [1, 1e18, 1e15]
        last = ceil(held.sum() * 1e9 / GPU), stored
        found[name] = [shape.parameters() / 1e9, *parts.hours, *sums, *held, *last]
    work = ["EFLOP", "moved, PB", "weights, GB", "activations, GB", "head, GB", "GPUs", "store, GB"]
    index = ["parameters, 1e9", *(f"{part}, h" for part in [*parts.index, "all"]), *work]
    return pd.DataFrame(found, index=index).T


def published() -> str:
    """What `raretok run` takes of public models, as Markdown: extrapolated, none was run."""
    from raretok.measure.cost import lead as measured_lead  # needs torch, which no page imports

    row, (lead, made) = measured(), measured_lead()
    threads = cost.read()[0]["threads"]
    titles = ("model", "parameters", f"last MLP, CPU ({threads} threads)", "all parts, CPU")
    lines = ["| " + " | ".join([*titles, "last MLP, H100", "memory"]) + " |"]
    lines.append("|---" + "|---:" * 5 + "|")
    for name, shape in PUBLISHED.items():
        load = shape.load(lead, row)
        seconds = load.seconds(PART), sum(map(load.seconds, made))
        hours = [f"{few(one / 3600)} h" for one in seconds]
        card = costs(shape, row, row["positions"]).hours[["forward pass", "last MLP"]].sum()
        size = shape.parameters()
        held = 4 * size + min(head(shape), ABLATION)
        cells = [f"{few(size / 1e9)}e9", *hours, f"{few(3600 * card)} s", f"{few(held / 1e9)} GB"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    said = "Extrapolated: none of these was run. Each part takes what it took of SmolLM2, as often "
    said += "as its operations are those of SmolLM2; the memory is of float32 weights.\n"
    return "\n".join([said, *lines])


def work(row: cost.Row) -> tuple[float, float, float]:
    """Operations at all positions of a forward pass, of the blocks, and of what follows these."""
    done = cost.operations(row)
    parts = (done[done.forward], done.iloc[:1], done.iloc[1:])
    return tuple(float(summed(part, row["positions"])[0]) for part in parts)


def checks() -> pd.DataFrame:
    """Seconds measured, and predicted from the rates at which the bench ran the shipped model."""
    docs, *rows = cost.read()
    rest = docs["seconds_fast"] - docs["seconds_capture"]
    pass_, blocks, behind = work(docs)
    # Seconds of an operation of the blocks, of what follows, and of a pass with its logits.
    of_blocks, of_rest = docs["seconds_capture"] / blocks, rest / behind
    of_pass, found = docs["seconds_forward"] / pass_, {}
    for row in rows:
        (pass_, blocks, behind), name = work(row), row["shape"]
        growth = prod((row[fit.axis] / docs[fit.axis]) ** fit.exponent for fit in cost.fits())
        first, forward = blocks * of_blocks, pass_ * of_pass
        found[name, "fast path"] = row["seconds_fast"], first + behind * of_rest
        found[name, "fast path, by exponents"] = row["seconds_fast"], first + growth * rest
        found[name, "AtP, all layers"] = row["seconds_atp"], 2 * forward
        found[name, "whole model again"] = row["seconds_hooks"], row["neurons"] * forward
    shape = MODELS["SmolLM2-135M"]
    for part in (PART, "effects: whole contexts"):
        row = measured(part)
        tokens = CONTEXT * row["positions"] / row["per_context"]
        fast = tokens * shape.forward() * of_blocks + work(row | shape._asdict())[2] * of_rest
        found["SmolLM2-135M", part] = row["seconds"], fast
    table = pd.DataFrame(found, index=["measured, s", "predicted, s"]).T
    return table.assign(ratio=table["predicted, s"] / table["measured, s"])


def few(x: float | int) -> str:
    """Three digits at most."""
    return f"{float(f'{x:.3g}'):,g}"


def told(row: cost.Row, study: pd.DataFrame, checked: pd.DataFrame) -> dict[str, str]:
    """Numbers of the sentences, as they are shown; those of one model are of the largest."""
    parts = study.filter(like=", h").drop(columns="all, h").iloc[-1]
    said = {"positions": POSITIONS, "context": CONTEXT, "neurons": NEURONS, "hours": parts.sum()}
    said |= {"per_context": row["per_context"], "exact": 100 * EXACT, "use": 100 * UTILISATION}
    said |= {"low": checked.ratio.min(), "high": checked.ratio.max(), "gpus": study.GPUs.iloc[-1]}
    said |= {"rest": parts.sum() - parts.max(), "slower": BF16 / FLOAT32}
    return {f"scale_{k}": few(x) for k, x in said.items()} | {"scale_part": parts.idxmax()[:-3]}
