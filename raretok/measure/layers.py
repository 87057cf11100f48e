"""First-order influence of the last MLPs, layer by layer, and how far it can be trusted."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float

from raretok.ablation.batches import ScoredBatch, context_batches, scored_batches
from raretok.ablation.checkpoints import Arrays, Checkpoints, shown
from raretok.ablation.gather import mean_activations
from raretok.ablation.head import final_head
from raretok.ablation.layers import LayerOptions, ablate_layer
from raretok.ablation.screen import class_weights, screen
from raretok.ablation.stacked import Layer
from raretok.errors import NotTestableError
from raretok.measure.attention_capture import contexts_of
from raretok.measure.find import Measurements
from raretok.measure.influence import PRECISE, Blocks, blocks_of, counted_in
from raretok.measure.record import rounded
from raretok.measure.source import STRATIFIED, Source
from raretok.models.adapter import W_out_of
from raretok.models.rerun import capture_layers
from raretok.text.rarity import MIDDLE, Positions

DEEPEST = 4  # layers, counted from the last, that are screened in one pass
SCREENED = 600  # rare positions at which every neuron is screened
MEANS = 100  # contexts that mean activations are taken over
ABLATED = 40  # rare positions at which some neurons are ablated exactly
TOP, RANDOM = 15, 15  # neurons that are
EFFECTS = ("total", "unmediated")


def layer_part(source: Source, asked: Measurements | None, layer: str) -> xr.Dataset:
    """Influence of each neuron of a layer (-1 the last), by class and block of documents.

    `total`: through the layers after it too; `unmediated`: of what it writes to the final norm.
    Beside it the rank agreement of the screen with exact ablation of some neurons.
    Raises `NotTestableError` for a layer that the model does not have.
    """
    model, n_layers = source.model, source.model.architecture.n_layers
    if -int(layer) > n_layers:
        raise NotTestableError(f"layer {layer} is deeper than the model: it has {n_layers} layers")
    positions = scored(source, SCREENED)
    folder = source.under_way("layers", vars(positions).values())
    block = blocks_of(positions, source.parameters.rng("blocks of layers"))
    sums = screened_blocks(source, positions, block, int(layer), folder)
    weights = [np.bincount(block, one, block.max() + 1) for one in class_weights(positions)]
    options = LayerOptions(int(layer), n_top=TOP, n_random=RANDOM, seed=source.parameters.seed)
    kept = Checkpoints(folder / f"exact{layer}")
    exact = ablate_layer(model, source.contexts, scored(source, ABLATED), options, kept=kept)
    if -int(layer) == min(DEEPEST, n_layers):
        shutil.rmtree(folder)
    wide = ("token_class", "block", "neuron")
    return xr.Dataset(
        {
            **{name: (wide, rounded(values, PRECISE)) for name, values in sums.items()},
            "weight": (("token_class", "block"), np.stack(weights)),
            "agreement": (exact.agreement.dims, exact.agreement.values),
            **{name: ((), value) for name, value in counted_in(positions).items()},
            "audit_max_error": ((), exact.audit_max_error),
        }
    )


def scored(source: Source, n_rare: int) -> Positions:
    """Rare and common positions of contexts that hold so many rare ones."""
    positions = source.positions(STRATIFIED)
    used = contexts_of(positions, n_rare, rng=source.parameters.rng("contexts of layers"))
    return positions[np.isin(positions.context, used) & (positions.stratum != MIDDLE)]


def screened_blocks(
    source: Source, positions: Positions, block: Blocks, layer: int, folder: Path
) -> dict[str, Float[np.ndarray, "token_class block neuron"]]:
    """First-order effects of every neuron of a layer, summed by class and block of documents.

    The last layers are screened in one pass, and what `folder` keeps is not computed again.
    """
    kept, model = Checkpoints(folder), source.model
    layers = list(range(model.architecture.n_layers))[-DEEPEST:]
    if len({len(W_out_of(model, n)) for n in layers}) > 1:
        raise NotTestableError(f"the last {len(layers)} layers of {model.name} differ in width")
    rng = source.parameters.rng("means of layers")
    used = rng.permutation(np.unique(positions.context))[:MEANS]
    few = positions[np.isin(positions.context, used)]
    of_means = context_batches(model, source.contexts, few)
    means = mean_activations(model, of_means, layers, kept=kept)
    head, weight = final_head(model), class_weights(positions)
    at = [Layer(model, head, n, mean) for n, mean in zip(layers, means, strict=True)]
    batches = scored_batches(model, source.contexts, positions)
    of_context = np.zeros(positions.context.max() + 1, dtype=np.int64)
    of_context[positions.context] = block
    shape = (len(weight), block.max() + 1, model.W_out.shape[0])
    found = {name: np.zeros(shape) for name in EFFECTS}
    for k, batch in enumerate(shown(batches, "screen")):
        make = partial(screened_layers, at, batch, weight[:, batch.rows])
        part = kept.part(f"screen-{k}", make)
        for name, sums in found.items():
            for place, context in enumerate(batch.contexts):
                sums[:, of_context[context]] += part[name][layer][:, place]
    return found


def screened_layers(
    at: list[Layer], batch: ScoredBatch, weight: Float[np.ndarray, "token_class scored"]
) -> Arrays:
    """Every layer's screen of one batch, from one run of the model."""
    seen = capture_layers(at[0].model, batch.tokens, [one.index for one in at])
    found = [screen(one, batch, weight, captured) for one, captured in zip(at, seen, strict=True)]
    return {name: np.stack([one[name] for one in found]) for name in EFFECTS}
