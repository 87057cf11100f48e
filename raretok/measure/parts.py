"""What pages need of a model, part by part: each a function from a loaded model to a dataset."""

import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from raretok import __version__
from raretok.ablation.head import short_type
from raretok.errors import UserError
from raretok.measure.attention import WHOLE as WHOLE_LAYER
from raretok.measure.attention_capture import capture_rows, choose_queries, contexts_of
from raretok.measure.cards import cards_part
from raretok.measure.find import TRAINED, UNTRAINED, Measurements
from raretok.measure.head_ablation import HeadEffects, ablate_heads, targets_of
from raretok.measure.influence import domains_part, groups_part, influence_part
from raretok.measure.layers import layer_part
from raretok.measure.parameters import PageParameters
from raretok.measure.record import in_steps, rounded
from raretok.measure.source import STRATIFIED, WHOLE, Source, gate_rate
from raretok.measure.unembedding import tokens_part, unembedding_part
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import COMMON, RARE, Positions

# Steps to a neuron's root mean square: what rounding adds to the variance over positions is
# 1 / (12 n^2) of it, 0.008 % and, for models that only stand beside others, 0.06 %.
STEPS, STEPS_FEWER = 32, 12
BITS = 6  # binary digits of sums and attention: off by 0.8 % at most, each by itself
COARSE = 4  # of sums that only means over many documents are made of: 3 %
FINE = 10  # of losses and weights: those of a 16-bit model stay as they are
INTERVENTIONS = {  # beside mean ablation
    "zero": {"mode": "zero"},
    "resample": {"mode": "resample"},
    "direct": {"effect": "direct"},  # mean ablation, the scale of the final norm held
}
QUERIES = 400  # rare queries whose rows are captured
ABLATED = 200  # rare positions at which the heads of the last two layers are mean-ablated
ABLATED_MORE = 64  # the same for the other modes
RELEASED_QUERIES = 5  # of a class and context that the released ablation is measured at
LAST = 2  # layers whose heads are ablated under every mode
EVERY_LAYER = "corrected"  # reading whose attention is kept of all layers, else of the last two

Made = dict[str, str | int | float]


def measured(asked: Measurements, name: str) -> tuple[xr.Dataset, Made]:
    """One part of a measurement, and how it was made. Raises `UserError` for an unknown name."""
    source = source_of(asked.parameters)
    kind, _, rest = name.partition(": ")
    if kind not in PARTS:
        raise UserError(f"no part {name!r} of a measurement: there are {', '.join(PARTS)}")
    data = PARTS[kind](source, asked, *rest.split(", ") if rest else [])
    return data, how_made(source)


@lru_cache(maxsize=1)  # a process holds one model at a time
def source_of(parameters: PageParameters) -> Source:
    """One loaded model for all parts that are measured in a process."""
    return Source(parameters)


def how_made(source: Source) -> Made:
    """What the numbers were made with: said, and of no part in what identifies them."""
    return {
        "processor": processor(),
        "device": source.model.device.type,
        "products": str(short_type(source.model.device)),
        "threads": torch.get_num_threads(),
        "raretok": __version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "transformer_lens": version("transformer-lens"),
        "corpus_sha256": source.corpus.sha256,
    }


def processor() -> str:
    """The processor's name where the system tells it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def model_part(source: Source, asked: Measurements | None) -> xr.Dataset:
    """Architecture, token counts, and the last MLP's weights as they act."""
    model = source.model
    W_in, W_out = (W.double().cpu().numpy() for W in (model.W_in, model.W_out))
    arrays = {"W_in": ("neuron d_model", W_in), "W_out": ("neuron d_model", W_out)}
    if model.architecture.gated:
        arrays["W_gate"] = ("neuron d_model", model.W_gate.double().cpu().numpy())
    attrs = {"architecture": asdict(model.architecture), "model": model.name}
    data = {name: (dims.split(), rounded(values, FINE)) for name, (dims, values) in arrays.items()}
    data["counts"] = ("entry", source.counts)
    data["counted"] = ("type", source.counted)
    return xr.Dataset(data, attrs=attrs | {"files_sha256": model.files_sha256})


def effects_part(source: Source, asked: Measurements, draw: str) -> xr.Dataset:
    """Loss change of mean-ablating each neuron at each position, and its activations."""
    run = source.run(draw)
    beside = {*TRAINED, UNTRAINED} - {"docs-gpt2"}  # they ship, so they must be small
    steps = STEPS_FEWER if source.parameters.model in beside else STEPS
    data = {}
    for name in ("delta_loss", "post"):
        codes, step = in_steps(run[name].values, steps)
        data |= {name: (("position", "neuron"), codes), f"{name}_step": ("neuron", step)}
    for name in ("loss", "sampling_error"):
        data[name] = (run[name].dims, rounded(run[name].values, FINE))
    data["mean_post"] = ("neuron", run.mean_post.values)
    if source.model.architecture.gated:
        rate = gate_rate(source.model, source.contexts, source.positions(draw))
        data["gate_rate"] = ("neuron", rate)
    labels = {name: (run[name].dims, run[name].values) for name in Positions.__annotations__}
    return xr.Dataset(data, labels, run.attrs)


def interventions_part(source: Source, asked: Measurements) -> xr.Dataset:
    """Sums of the effects under other interventions, by class of targets and document."""
    found = []
    for options in INTERVENTIONS.values():
        run = source.run(STRATIFIED, **options)
        weighted = run.weight.values[:, None] * run.delta_loss.values.astype(np.float64)
        labels = run.document.values, run.stratum.values
        found.append(rounded(cell_sums(weighted, *labels)[1], COARSE))
    shutil.rmtree(source.forward(STRATIFIED), ignore_errors=True)
    cells, weight = cell_sums(run.weight.values, *labels)
    return xr.Dataset(
        {
            "delta_loss": (("intervention", "cell", "neuron"), np.stack(found)),
            "weight": ("cell", weight),
            "cell_document": ("cell", cells[:, 0]),
            "cell_stratum": ("cell", cells[:, 1]),
        },
        attrs={"interventions": list(INTERVENTIONS)},
    )


def cell_sums(
    values: Float[np.ndarray, "position *rest"], *labels: Int[np.ndarray, " position"]
) -> tuple[Int[np.ndarray, "cell label"], Float[np.ndarray, "cell *rest"]]:
    """The different cells, positions with the same labels, in order; the sum of values in each."""
    present, of = np.unique(np.stack(labels, axis=1), axis=0, return_inverse=True)
    order = np.argsort(of.ravel(), kind="stable")
    starts = np.searchsorted(of.ravel()[order], np.arange(len(present)))
    return present, np.add.reduceat(values[order].astype(np.float64), starts, axis=0)


def attention_part(source: Source, asked: Measurements, protocol: str) -> xr.Dataset:
    """Attention rows of rare and common queries, in contexts of the protocol's draw.

    Matched on position and document where the protocol matches its controls too.
    """
    reading, rng = PROTOCOLS[protocol], source.parameters.rng(f"queries {protocol}")
    source.model.check_heads(range(source.model.architecture.n_layers))
    scored = source.positions(reading.draw)
    stratum = source.classes(protocol).stratum(getattr(scored, reading.by))
    drawn = Positions(**{**vars(scored), "stratum": stratum})
    used = contexts_of(drawn, QUERIES, rng=rng)
    everything = source.everything(protocol)
    pool = everything[np.isin(everything.context, used)]
    queries = choose_queries(pool, reading.matched, rng=rng)
    rows = capture_rows(source.model, source.contexts, queries)
    layers = slice(None if protocol == EVERY_LAYER else -LAST, None)
    wide = ("layer", "query", "head")
    return xr.Dataset(
        {
            "edges": ("edge", rows.edges),
            "keys": (("query", "category"), rows.keys),
            "mass": ((*wide, "category"), rounded(rows.mass[layers], BITS)),
            "gini": (wide, rounded(rows.gini[layers], FINE)),
            "gini_rest": (wide, rounded(rows.gini_rest[layers], FINE)),
        },
        {name: ("query", values) for name, values in vars(queries).items()},
    )


def heads_part(source: Source, asked: Measurements | None, draw: str, mode: str) -> xr.Dataset:
    """What ablating heads, and whole layers, of the last two layers does; sums by cell."""
    architecture, positions = source.model.architecture, source.positions(draw)
    layers = range(max(0, architecture.n_layers - LAST), architecture.n_layers)
    source.model.check_heads(layers)
    targets = targets_of(architecture, layers)
    n_rare = ABLATED if mode == "mean" else ABLATED_MORE
    rng = source.parameters.rng(f"heads {draw} {mode}")
    used = np.unique(positions.context)
    if draw != WHOLE:
        used = contexts_of(positions, n_rare, rng=source.parameters.rng(f"heads {n_rare}"))
    chosen = np.flatnonzero(np.isin(positions.context, used))
    more = {"per_context": RELEASED_QUERIES} if draw == WHOLE else {}
    drawn = positions[chosen]
    found = ablate_heads(source.model, source.contexts, drawn, targets, mode, rng=rng, **more)
    return head_sums(found, source.strata(found.positions, draw))


def head_sums(found: HeadEffects, strata: dict[str, Int[np.ndarray, " position"]]) -> xr.Dataset:
    """Sums over the positions of each document and class, classes under every protocol."""
    # Common positions are asked of the released ablation alone.
    asked = (RARE, COMMON) if len(strata) == 1 else (RARE,)
    kept = np.any([np.isin(s, asked) for s in strata.values()], axis=0)
    labels = found.positions.document[kept], *(s[kept] for s in strata.values())
    whole = [i for i, target in enumerate(found.targets) if target[1] == WHOLE_LAYER]
    change, post = found.change[:, kept], found.post[kept]
    present, count = cell_sums(np.ones(kept.sum()), *labels)
    by_cell = ("cell", "neuron")
    targets = np.array(found.targets)

    def sums(values: Float[np.ndarray, "position neuron"]) -> Float[np.ndarray, "cell neuron"]:
        return rounded(cell_sums(np.abs(values), *labels)[1], BITS)

    return xr.Dataset(
        {
            "change": (("target", *by_cell), np.stack([sums(one) for one in change])),
            "before": (by_cell, sums(post)),
            "after": (("layer", *by_cell), np.stack([sums(post + change[i]) for i in whole])),
            "count": ("cell", count),
            "cell_document": ("cell", present[:, 0]),
            **{f"cell_{name}": ("cell", present[:, 1 + i]) for i, name in enumerate(strata)},
            "delta_loss": (("target", "position"), rounded(found.delta_loss, FINE)),
        },
        {
            **{name: ("position", values) for name, values in vars(found.positions).items()},
            "target_layer": ("target", targets[:, 0]),
            "target_head": ("target", targets[:, 1]),
            "layer": targets[whole, 0].tolist(),
        },
    )


PARTS: dict[str, Callable[..., xr.Dataset]] = {
    "model": model_part,
    "effects": effects_part,
    "interventions": interventions_part,
    "attention": attention_part,
    "heads": heads_part,
    "layer": layer_part,
    "groups": groups_part,
    "unembedding": unembedding_part,
    "tokens": tokens_part,
    "domains": domains_part,
    "influence": influence_part,
    "cards": cards_part,
}
