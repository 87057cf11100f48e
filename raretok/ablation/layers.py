r"""Ablation of the neurons of any MLP layer: all by a first-order screen, some exactly.

Neuron i of layer l is ablated at every position of the text of a context at once: its activation
becomes its corpus mean (or zero), and the loss is measured at the scored positions. For the last
layer that is the ablation of one position at a time (raretok/ablation/run.py), since nothing after
its MLP mixes positions. The first token of a context is a marker, not text: it is left out of the
mean and stays as it is, unless `include_first` asks otherwise.
"""

import itertools
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from raretok.ablation.agreement import BOUNDS, MEASURES, rank_agreement
from raretok.ablation.batches import ScoredBatch, mean_activation, scored_batches
from raretok.ablation.head import final_head
from raretok.ablation.partial import W_out_of, capture_layer, layer_index
from raretok.ablation.run import blocks, check_contexts, provenance
from raretok.ablation.screen import screen
from raretok.ablation.split import PAIR_ERROR, token_rows
from raretok.ablation.stacked import AUDIT_PAIRS, Layer, audit, check_audit, exact
from raretok.corpus import Contexts
from raretok.errors import UserError
from raretok.models import LanguageModel
from raretok.rarity import COMMON, RARE, STRATA, Positions
from raretok.stats import DocumentSums, document_sums, resample_documents

MODES = ("mean", "zero")
CLASSES = (RARE, COMMON)
SUBSETS = ("top", "random")
SMALLEST = 3  # neurons; fewer have no rank correlation worth the name


def ablate_layer(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    *,
    layer: int,
    n_top: int = 50,
    n_random: int = 50,
    rng: np.random.Generator,
    mode: str = "mean",
    include_first: bool = False,
    pair_error: float = PAIR_ERROR,
    n_bootstrap: int = 1000,
    progress: bool = True,
) -> xr.Dataset:
    """Screen every neuron of a layer; ablate the top ones and a random subset exactly.

    Top are those with the largest first-order effect on rare positions; the random ones are drawn
    from the whole layer, top ones included. A negative `layer` counts from the end.

    Returns, in nats, `screen[token_class, screened]` for all neurons, `loss[position]` and, for the
    exact ones, `delta_loss[position, neuron]` (`neuron` is the index in the layer, `top` and
    `random` say why it is there); `agreement[token_class, subset, bound, measure]` of screen and
    exact (raretok/ablation/agreement.py; 95 %, over documents, and for the random ones over neurons
    too). Random pairs of context and neuron are run in full through hooks and their largest error
    kept in the attributes. Raises `UserError` for what cannot be served, and if it is too large.
    """
    index = check_layer(model, layer, mode)
    check_contexts(model, contexts)
    check_scored(positions)
    W_out, head = W_out_of(model, index), final_head(model)
    check_numbers(len(W_out), n_top, n_random)
    mean = mean_activation(
        model, contexts, positions, index, include_first=include_first, progress=progress
    )
    at = Layer(model, head, token_rows(head), index, W_out, mean, mode)
    batches = scored_batches(model, contexts, positions, include_first)
    sums = screened_sums(at, batches, positions, progress=progress)
    top, random = choose(sums[0], n_top, n_random, rng)
    neurons = np.union1d(top, random)
    offset = torch.from_numpy(rng.random(len(positions))).to(model.device)
    delta, loss = exact(
        at, batches, torch.from_numpy(neurons), offset, pair_error=pair_error, progress=progress
    )
    error = audit(at, batches, neurons, delta)
    check_audit(model, error)
    agreement = agreements(sums, delta, positions, neurons, (top, random), n_bootstrap, rng)
    screened = np.stack([_mean(of_class) for of_class in sums])
    made = {"include_first": int(include_first), "pair_error": pair_error}
    made |= {"audit_pairs": AUDIT_PAIRS, "audit_max_error": error}
    arrays = {
        "delta_loss": (("position", "neuron"), delta, {"units": "nats"}),
        "loss": ("position", loss, {"units": "nats"}),
        "screen": (("token_class", "screened"), screened, {"units": "nats"}),
        "mean_post": ("screened", mean.cpu().numpy()),
        "agreement": (("token_class", "subset", "bound", "measure"), agreement),
    }
    attrs = {**provenance(model), "layer": index, "mode": mode, **made}
    return xr.Dataset(arrays, labels(positions, neurons, top, random), attrs)


def labels(
    positions: Positions,
    neurons: Int[np.ndarray, " neuron"],
    top: Int[np.ndarray, " top"],
    random: Int[np.ndarray, " random"],
) -> dict[str, Any]:
    """Names on the axes of the result."""
    return {
        **{name: ("position", values) for name, values in vars(positions).items()},
        "neuron": neurons,
        "top": ("neuron", np.isin(neurons, top)),
        "random": ("neuron", np.isin(neurons, random)),
        "token_class": [STRATA[stratum] for stratum in CLASSES],
        "subset": list(SUBSETS),
        "bound": list(BOUNDS),
        "measure": list(MEASURES),
    }


def summary(data: xr.Dataset) -> str:
    """The result in a few lines: how well the screen ranks, and the audit."""
    lines = [
        f"layer      {data.layer}, {data.sizes['screened']} neurons screened, "
        f"{data.sizes['neuron']} ablated exactly ({int(data.top.sum())} top, "
        f"{int(data.random.sum())} random)"
    ]
    for name, subset in itertools.product(data.token_class.values, SUBSETS):
        value, low, high = data.agreement.sel(
            token_class=name, subset=subset, measure=MEASURES[0]
        ).values
        lines.append(
            f"agreement  {name} positions, {subset} neurons: Spearman {value:.3f} "
            f"[{low:.3f}, {high:.3f}]"
        )
    lines.append(
        f"audit      largest error {data.audit_max_error:.1e} nats in {data.audit_pairs} random "
        "pairs of context and neuron"
    )
    return "\n".join(lines)


def check_layer(model: LanguageModel, layer: int, mode: str) -> int:
    """The layer counted from the first. Raises `UserError` where it cannot be ablated."""
    index = layer_index(model, layer)
    if mode not in MODES:
        raise UserError(
            f"mode {mode!r} does not serve the layers before the last, whose neurons are ablated "
            f"at every position at once: choose one of {', '.join(MODES)}"
        )
    reason = model.architecture.closed_form_refusal
    if reason:
        raise UserError(
            f"neurons of layer {index} of {model.name} cannot be ablated in one step: {reason}; "
            "choose a model without it"
        )
    return index


def check_numbers(d_mlp: int, n_top: int, n_random: int) -> None:
    """Raise `UserError` for numbers of neurons that are not there or too few to rank."""
    for name, number in (("n_top", n_top), ("n_random", n_random)):
        if not SMALLEST <= number <= d_mlp:
            raise UserError(
                f"{name} must lie between {SMALLEST} and the {d_mlp} neurons of the layer, "
                f"got {number}"
            )


def check_scored(positions: Positions) -> None:
    """Raise `UserError` unless both classes are scored, in two documents or more."""
    for stratum in CLASSES:
        if not (positions.stratum == stratum).any():
            raise UserError(f"no {STRATA[stratum]} position is scored: score more positions")
    n_documents = np.unique(positions.document).size
    if n_documents < 2:
        raise UserError(
            f"an interval over documents needs 2, got {n_documents}: score more positions"
        )


def class_weights(positions: Positions) -> Float[np.ndarray, "token_class position"]:
    """Weight of each position in the mean of each of CLASSES: zero outside the class."""
    return np.stack([positions.weight * (positions.stratum == stratum) for stratum in CLASSES])


def screened_sums(
    at: Layer, batches: list[ScoredBatch], positions: Positions, *, progress: bool
) -> list[DocumentSums]:
    """First-order effects of every neuron, summed by document, for each of CLASSES."""
    weight = class_weights(positions)
    documents, document = np.unique(positions.document, return_inverse=True)
    total = np.zeros((len(CLASSES), documents.size, len(at.W_out)))
    for step in blocks(len(batches), 1, "screen", progress):
        batch = batches[step.start]
        captured = capture_layer(at.model, batch.tokens, at.index)
        weighted = torch.from_numpy(weight[:, batch.rows]).to(captured.post)
        parts = screen(at.model, at.head, at.rows, at.index, batch, captured, at.value, weighted)
        of_context = np.empty(len(batch.contexts), dtype=np.int64)
        of_context[batch.place.cpu().numpy()] = document[batch.rows]
        for stratum, part in enumerate(parts.double().cpu().numpy()):
            np.add.at(total[stratum], of_context, part)
    size = [np.bincount(document, w, minlength=documents.size) for w in weight]
    return [DocumentSums(*pair) for pair in zip(total, size, strict=True)]


def _mean(sums: DocumentSums) -> Float[np.ndarray, " neuron"]:
    return sums.value.sum(axis=0) / sums.weight.sum()


def choose(
    sums: DocumentSums, n_top: int, n_random: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " top"], Int[np.ndarray, " random"]]:
    """Neurons with the largest screened effects, and others drawn from the whole layer."""
    top = np.argsort(-np.abs(_mean(sums)), kind="stable")[:n_top]
    return top, rng.choice(sums.value.shape[1], size=n_random, replace=False)


def agreements(
    sums: list[DocumentSums],
    delta: Float[np.ndarray, "position neuron"],
    positions: Positions,
    neurons: Int[np.ndarray, " neuron"],
    subsets: tuple[Int[np.ndarray, " top"], Int[np.ndarray, " random"]],
    n_bootstrap: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "token_class subset bound measure"]:
    """Rank agreement of screen and exact for each of CLASSES, over the top and the random ones."""
    documents, document = np.unique(positions.document, return_inverse=True)
    counts = resample_documents(documents.size, n_bootstrap, rng=rng)
    found = []
    for screened, weight in zip(sums, class_weights(positions), strict=True):
        exactly = document_sums(delta.astype(np.float64), document, weight, documents.size)
        for subset, resampling in zip(subsets, (None, rng), strict=True):
            pair = (
                DocumentSums(screened.value[:, subset], screened.weight),
                DocumentSums(exactly.value[:, np.searchsorted(neurons, subset)], exactly.weight),
            )
            found.append(rank_agreement(*pair, counts, rng=resampling))
    return np.stack(found).reshape(len(CLASSES), len(subsets), len(BOUNDS), len(MEASURES))
