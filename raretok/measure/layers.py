"""First-order influence of the neurons of a layer before the last, and how far it can be trusted."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from raretok.ablation.batches import mean_activation, scored_batches
from raretok.ablation.checkpoints import Checkpoints
from raretok.ablation.head import final_head
from raretok.ablation.layers import LayerOptions, ablate_layer
from raretok.ablation.partial import W_out_of
from raretok.ablation.screen import screened_documents
from raretok.ablation.split import token_rows
from raretok.ablation.stacked import Layer
from raretok.errors import NotTestableError
from raretok.measure.attention_capture import contexts_of
from raretok.measure.influence import PRECISE, blocks_of, counted_in
from raretok.measure.record import digest, rounded
from raretok.measure.source import STRATIFIED, Source
from raretok.paths import RUNS
from raretok.stats.documents import DocumentSums
from raretok.text.rarity import MIDDLE, Positions

if TYPE_CHECKING:
    from raretok.measure.find import Measurements

SCREENED = 800  # rare positions at which every neuron is screened
ABLATED = 60  # rare positions at which some are ablated exactly
TOP, RANDOM = 20, 20  # neurons that are
EFFECTS = ("total", "unmediated")


def layer_part(source: Source, asked: "Measurements | None", layer: str) -> xr.Dataset:
    """Influence of each neuron of a layer (-1 the last), by class and block of documents.

    `total`: through the layers after it too; `unmediated`: of what it writes to the final norm.
    Beside it the rank agreement of the screen with exact ablation of some neurons at some positions.
    Raises `NotTestableError` for a layer that the model does not have.
    """
    model, n_layers = source.model, source.model.architecture.n_layers
    if -int(layer) > n_layers:
        raise NotTestableError(f"layer {layer} is deeper than the model: it has {n_layers} layers")
    positions = scored(source, SCREENED)
    of = digest([*vars(positions).values(), source.contexts.tokens])
    folder = RUNS / f"layer{layer}-{model.files_sha256[:8]}-{of[:8]}"
    screens = {name: screen(source, positions, int(layer), name, folder) for name in EFFECTS}
    block = blocks_of(positions, source.rng("blocks of layers"))
    document = np.unique(positions.document, return_index=True)[1]
    totals = {name: by_block(sums, block[document]) for name, sums in screens.items()}
    weight = np.stack(
        [np.bincount(block[document], one.weight, block.max() + 1) for one in screens["total"]]
    )
    options = LayerOptions(int(layer), n_top=TOP, n_random=RANDOM, seed=source.parameters.seed)
    few = scored(source, ABLATED)
    exact = ablate_layer(
        model, source.contexts, few, options, checkpoints=Checkpoints(folder / "exact")
    )
    shutil.rmtree(folder, ignore_errors=True)
    wide = ("token_class", "block", "neuron")
    return xr.Dataset(
        {
            **{name: (wide, rounded(sums, PRECISE)) for name, sums in totals.items()},
            "weight": (("token_class", "block"), weight),
            "agreement": (exact.agreement.dims, exact.agreement.values),
            **{name: ((), value) for name, value in counted_in(positions).items()},
            "audit_max_error": ((), exact.audit_max_error),
        }
    )


def scored(source: Source, n_rare: int) -> Positions:
    """Rare and common positions of contexts that hold so many rare ones."""
    positions = source.positions(STRATIFIED)
    used = contexts_of(positions, n_rare, rng=source.rng("contexts of layers"))
    return positions[np.isin(positions.context, used) & (positions.stratum != MIDDLE)]


def screen(
    source: Source, positions: Positions, layer: int, effect: str, folder: Path
) -> list[DocumentSums]:
    """First-order effects of every neuron, summed by document, for either class."""
    model, kept = source.model, Checkpoints(folder)
    index = layer % model.architecture.n_layers
    W_out, head = W_out_of(model, index), final_head(model)
    where = {"include_first": False, "kept": kept, "progress": True}
    mean = mean_activation(model, source.contexts, positions, index, **where)
    at = Layer(model, head, token_rows(head), index, W_out, mean, "mean")
    batches = scored_batches(model, source.contexts, positions, False)
    return screened_documents(
        at, batches, positions, np.arange(len(W_out)), kept, effect=effect, progress=True
    )


def by_block(
    sums: list[DocumentSums], block: Int[np.ndarray, " document"]
) -> Float[np.ndarray, "token_class block neuron"]:
    """Sums over the documents of each block."""
    member = np.eye(int(block.max()) + 1)[block].T
    return np.stack([member @ one.value for one in sums])
