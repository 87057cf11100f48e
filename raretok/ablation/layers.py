r"""Ablation of the neurons of any MLP layer: all by a first-order screen, some exactly.

Neuron i of layer l is ablated at every position of the text of a context at once: its activation
becomes its corpus mean (or zero), and the loss is measured at the scored positions. For the last
layer that is the ablation of one position at a time (ablation/stream.py), since nothing after its
MLP mixes positions. The first token of a context is a marker, not text: it is left out of the mean
and stays as it is.
"""

import itertools
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from raretok.ablation.audit import audit_verdict
from raretok.ablation.batches import BATCH, context_batches, scored_batches
from raretok.ablation.checkpoints import Checkpoints
from raretok.ablation.gather import check_contexts, mean_activations
from raretok.ablation.head import final_head
from raretok.ablation.method import TOLERANCE, check_tolerance, pair_error
from raretok.ablation.plan import (
    MAX_MEMORY,
    STACK,
    give_back,
    layout_of,
    parts_to_fit,
    provenance,
    settings_of,
)
from raretok.ablation.screen import (
    BOUNDS,
    CLASSES,
    MEASURES,
    class_weights,
    rank_agreement,
    screened,
)
from raretok.ablation.stacked import AUDIT_LIMIT, AUDIT_PAIRS, Layer, audit, exact
from raretok.ablation.store import open_run, run_to_write
from raretok.errors import NotTestableError, UserError
from raretok.models.adapter import LanguageModel, W_out_of
from raretok.stats.documents import DocumentSums, resample_documents
from raretok.text.corpus import Contexts
from raretok.text.rarity import STRATA, Positions

MODES = ("mean", "zero")
SUBSETS = ("top", "random")
SMALLEST = 3  # neurons; fewer have no rank correlation worth the name
RESAMPLES = 1000  # of the documents, for an interval
DOCUMENTS = 3  # with positions of a class; two have but three resamples


@dataclass(frozen=True)
class LayerOptions:
    """What a run of one layer can be asked for."""

    layer: int  # negative: from the end
    n_top: int = 50
    n_random: int = 50
    mode: str = "mean"
    tolerance: float = TOLERANCE  # nats, of the mean effect of a neuron; 0 is exact
    seed: int = 0  # of the random subset, the sampled tokens and the intervals


def ablate_layer_to_disk(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    out: Path | None = None,
    *,
    options: LayerOptions,
    source: dict[str, Any] | None = None,
    max_memory: float = MAX_MEMORY,
    resume: bool = True,
) -> tuple[Path, xr.Dataset]:
    """Ablate as `ablate_layer` does, batch by batch of contexts into a run directory; both.

    `out` is `runs/KEY` unless given; `source` is what else identifies the corpus. Killed and
    resumed on the same machine, a run ends with the same bytes. `max_memory`, in GB above the
    model, decides how many contexts are run together. Raises `UserError`.
    """
    asked = {**asdict(options), "layer": checked_layer(model, contexts, positions, options)}
    settings = settings_of(model, contexts, positions, source, asked)

    def layout() -> dict[str, Any]:
        parts = parts_to_fit(model, contexts, positions, asked["layer"], max_memory)
        return layout_of(model, positions, len(positions), parts)

    with run_to_write(out, settings, layout, resume=resume) as run:
        if not run.complete:
            started, stack = time.monotonic(), STACK // run.record["parts"]
            more = {"stack": stack, "kept": run.parts}
            data = ablate_layer(model, contexts, positions, options, **more)
            run.write(data)
            audit = {name: value for name, value in data.attrs.items() if name.startswith("audit")}
            run.finish(audit, time.monotonic() - started)
    return run.folder, open_run(run.folder)


def ablate_layer(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    options: LayerOptions,
    *,
    kept: Checkpoints,
    stack: int = STACK,
) -> xr.Dataset:
    """Screen every neuron of a layer; ablate the top ones and a random subset exactly.

    Top are those with the largest first-order effect on rare positions; the random ones are drawn
    from the whole layer, top ones included. At most `stack` contexts go through the later blocks
    together. What is `kept` is not computed again.

    Returns, in nats, `screen[token_class, screened]` for all neurons, `loss[position]` and, for the
    exact ones, `delta_loss[position, neuron]` (`neuron` is the index in the layer, `top` and
    `random` say why it is there); `agreement[token_class, subset, bound, measure]` of screen and
    exact (raretok/ablation/screen.py; 95 %, over documents, and for the random ones over neurons
    too). Random pairs of context and neuron are run in full through hooks and their largest error
    kept in the attributes; `audit_passed` is 0, with a warning, where that is more than the method
    explains. Raises `UserError` for what cannot be served.
    """
    index = checked_layer(model, contexts, positions, options)
    rng, n = np.random.default_rng(options.seed), len(positions)
    inputs, head = (model, contexts, positions), final_head(model)
    mean = mean_activations(model, context_batches(*inputs), [index], kept=kept)[0]
    give_back()
    at = Layer(model, head, index, mean, options.mode, stack)
    batches = scored_batches(*inputs, size=min(BATCH, stack))
    sums = screened(at, batches, positions, kept)
    screens = np.stack([one.value.sum(axis=0) / one.weight.sum() for one in sums])
    give_back()
    top = np.argsort(-np.abs(screens[0]), kind="stable")[: options.n_top]
    random = rng.choice(len(mean), size=options.n_random, replace=False)
    neurons, limit = np.union1d(top, random), pair_error(options.tolerance, n)
    delta, loss = exact(at, batches, neurons, rng.random(n), pair_error=limit, kept=kept)
    arrays = {
        "delta_loss": (("position", "neuron"), delta, {"units": "nats"}),
        "loss": ("position", loss, {"units": "nats"}),
        "screen": (("token_class", "screened"), screens, {"units": "nats"}),
        "mean_post": ("screened", mean.cpu().numpy()),
        "agreement": (
            ("token_class", "subset", "bound", "measure"),
            agreements(sums, delta, positions, neurons, (top, random), rng),
        ),
    }
    error = audit(at, batches, neurons, delta)
    made = {**provenance(model), **asdict(options), "layer": index}
    made |= audit_verdict(model, error, AUDIT_PAIRS, options.tolerance, n, AUDIT_LIMIT)
    return xr.Dataset(arrays, labels(positions, neurons, top, random), made)


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
    failed = "" if data.audit_passed else "THE AUDIT FAILED: "
    lines.append(
        f"audit      {failed}largest error {data.audit_max_error:.1e} nats in {data.audit_pairs} "
        "random pairs of context and neuron"
    )
    return "\n".join(lines)


def checked_layer(
    model: LanguageModel, contexts: Contexts, positions: Positions, options: LayerOptions
) -> int:
    """The layer counted from the first. Raises `UserError` where it cannot be ablated as asked."""
    check_contexts(model, contexts)
    check_scored(positions)
    index = model.index(options.layer)
    if options.mode not in MODES:
        raise UserError(
            f"mode {options.mode!r} does not serve the layers before the last, whose neurons are "
            f"ablated at every position at once: choose one of {', '.join(MODES)}"
        )
    check_tolerance(options.tolerance)
    reason = model.architecture.earlier_layers_refusal
    if reason:
        raise NotTestableError(
            f"neurons of layer {index} of {model.name} cannot be ablated in one step: {reason}; "
            "choose a model without it"
        )
    d_mlp = len(W_out_of(model, index))
    for name in ("n_top", "n_random"):
        if not SMALLEST <= (number := getattr(options, name)) <= d_mlp:
            raise UserError(
                f"{name} must lie between {SMALLEST} and the {d_mlp} neurons of the layer, "
                f"got {number}"
            )
    return index


def check_scored(positions: Positions) -> None:
    """Raise `UserError` unless both classes are scored in DOCUMENTS or more."""
    for stratum in CLASSES:
        n_documents = np.unique(positions.document[positions.stratum == stratum]).size
        if n_documents < DOCUMENTS:
            raise UserError(
                f"an interval over documents needs {DOCUMENTS} with {STRATA[stratum]} positions, "
                f"got {n_documents}: score more positions"
            )


def agreements(
    screens: list[DocumentSums],
    delta: Float[np.ndarray, "position neuron"],
    positions: Positions,
    neurons: Int[np.ndarray, " neuron"],
    subsets: tuple[Int[np.ndarray, " top"], Int[np.ndarray, " random"]],
    rng: np.random.Generator,
) -> Float[np.ndarray, "token_class subset bound measure"]:
    """Rank agreement of screen and exact for each of CLASSES, over the top and the random ones."""
    documents, document = np.unique(positions.document, return_inverse=True)
    counts = resample_documents(documents.size, RESAMPLES, rng=rng)
    found = []
    for of_class, weight in zip(screens, class_weights(positions), strict=True):
        sums = np.zeros((documents.size, neurons.size))
        np.add.at(sums, document, weight[:, None] * delta)
        exactly = DocumentSums(sums, of_class.weight)
        for subset, resampling in zip(subsets, (None, rng), strict=True):
            pair = (
                DocumentSums(one.value[:, some], one.weight)
                for one, some in ((of_class, subset), (exactly, np.searchsorted(neurons, subset)))
            )
            found.append(rank_agreement(*pair, counts, rng=resampling))
    return np.stack(found).reshape(len(CLASSES), len(subsets), len(BOUNDS), len(MEASURES))
