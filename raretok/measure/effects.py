"""What `raretok ablate` does: the effect of a layer's neurons at drawn positions, kept on disk."""

from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from raretok.ablation import layers
from raretok.ablation.head import final_head, sandwich_of
from raretok.ablation.layers import LayerOptions, ablate_layer_to_disk
from raretok.ablation.method import TOLERANCE
from raretok.ablation.plan import MAX_MEMORY, Options
from raretok.ablation.store import TABLE, is_run
from raretok.ablation.stream import ablate_to_disk
from raretok.errors import UserError
from raretok.measure.neurons import labelled, of_model, write_table
from raretok.measure.parameters import check_sources, validated
from raretok.measure.source import Source, gate_rate
from raretok.measure.unembedding import texts, types_of, written_most
from raretok.models.adapter import LanguageModel, W_out_of
from raretok.paths import check_writable, one_line
from raretok.text.rarity import Positions, all_positions, draw_total


def ablate(
    model: str | Path = "docs-gpt2",
    corpus: str | Path = "docs",
    positions: int = 4096,
    *,
    revision: str = "",
    layer: int = -1,
    mode: str = "mean",
    effect: str = "total",
    tolerance: float = TOLERANCE,
    seed: int = 0,
    out: str | Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    max_memory: float = MAX_MEMORY,
    resume: bool = True,
) -> xr.Dataset:
    """Loss change, in nats, of ablating every neuron of the last MLP at positions of a corpus.

    `delta_loss[position, neuron]` is read from disk as it is used; each position has its document,
    token and class (`target_class`), each neuron what `neurons` makes a table of. Positions are
    stratified (see `draw_total`) as the reading `corrected` has them: `weight` says how many of the
    text each stands for. The run is kept in `out`, else under `runs/`, with `neurons.parquet`, and
    resumed where it stopped unless `resume` is false; `encoding["source"]` says where it lies.
    `max_memory` is in GB above the model. Of an earlier `layer` (negative: from the end) all
    neurons are screened, and the top ones and a random subset are ablated (ablation/layers.py).
    Raises `UserError`.
    """
    options = Options(mode=mode, effect=effect, tolerance=tolerance, resample_seed=seed)
    out = check_out(out)
    asked = {"model": str(model), "revision": revision, "corpus": str(corpus)}
    source = Source(validated({**asked, "seed": seed, "device": device, "dtype": dtype}))
    check_sources(source.parameters)
    everything = all_positions(source.contexts, source.classes("corrected"), "target")
    drawn = draw_total(everything, n=positions, rng=source.parameters.rng("positions of a run"))
    index = source.model.index(layer)
    where = {
        "source": {"corpus_sha256": source.corpus.sha256, "seed": seed},
        "max_memory": max_memory,
        "resume": resume,
    }
    inputs = source.model, source.contexts, drawn, out
    if index < source.model.architecture.n_layers - 1:
        if effect != "total":
            raise UserError(
                f"effect {effect!r} holds the final norm's scale, which a layer before the last "
                "acts through in later layers too: choose total"
            )
        n_exact = min(LayerOptions.n_top, W_out_of(source.model, index).shape[0])
        numbers = {"n_top": n_exact, "n_random": n_exact}
        of_layer = LayerOptions(index, **numbers, mode=mode, tolerance=tolerance, seed=seed)
        folder, data = ablate_layer_to_disk(*inputs, options=of_layer, **where)
    else:
        folder, data = ablate_to_disk(*inputs, options=options, **where)
    return with_table(source, folder, data, index)


def check_out(out: str | Path | None) -> Path | None:
    """The folder of the run. Raises `UserError` where no run is or can be begun."""
    if out is None:
        return None
    folder = Path(out)
    with one_line(folder):
        if not is_run(folder):
            check_writable(folder)
    return folder


def with_table(source: Source, folder: Path, data: xr.Dataset, layer: int) -> xr.Dataset:
    """A finished run with its labels; its table is written where it is not there."""
    words = texts(source.model, data.target.values)
    data = labelled(folder, data).assign_coords(target_text=("position", words))
    if "promotes" in data:
        return data
    columns = weights_of(source.model, layer)
    if source.model.architecture.gated and layer == source.model.architecture.n_layers - 1:
        columns["gate_rate"] = gate_rate(source.model, source.contexts, Positions.of(data))
    data = data.assign(of_model(columns, data)).assign_attrs(
        corpus=source.corpus.name, revision=source.parameters.revision
    )
    write_table(folder, data)
    return data


def weights_of(model: LanguageModel, layer: int) -> dict[str, np.ndarray]:
    """Of every neuron of a layer: its lengths, its bias, and the tokens it writes to."""
    mlp, W_out = model.bridge.blocks[layer].mlp, W_out_of(model, layer)
    found = {"W_out_norm": W_out.float().norm(dim=1)}
    for name in ("W_in", "W_gate"):
        if (W := getattr(mlp, name, None)) is not None:
            found[f"{name}_norm"] = W.detach().float().norm(dim=0)
    if (bias := getattr(mlp, "b_in", None)) is not None:
        found["b_in"] = bias.detach().float()
    numbers = {name: values.cpu().numpy() for name, values in found.items()}
    return numbers | top_tokens(model, layer, W_out)


def top_tokens(
    model: LanguageModel, layer: int, W_out: Float[Tensor, "neuron d_model"]
) -> dict[str, np.ndarray]:
    """Texts of the tokens whose logits each neuron raises and lowers most, strongest first."""
    head, sandwich = final_head(model), sandwich_of(model, layer=layer)
    W_out = W_out if sandwich is None else W_out * sandwich.gain
    found = written_most(head.centring(W_out), types_of(model, head))
    return {name: texts(model, ids) for name, (ids, _) in found.items()}


def summary(data: xr.Dataset, seconds: float) -> str:
    """What `ablate` returned, and how long it took, in a few lines."""
    folder = Path(data.encoding["source"]).parent
    lines = {
        "run": folder,
        "table": folder / TABLE,
        "positions": data.sizes["position"],
        "neurons": data.sizes["neuron"],
        "seconds": f"{seconds:.1f}",
    }
    if "agreement" not in data:
        passed = "" if data.audit_passed else "THE AUDIT FAILED: "
        lines |= {
            "tokens": f"{data.n_head} summed, {data.n_tail} sampled of the rest, "
            f"{100 * data.summed_in_full:.2g} % of the pairs in full",
            "error": f"{float(data.sampling_error.max()):.1e} nats at most, one standard "
            "error of a neuron's mean effect",
            "audit": f"{passed}largest error {data.audit_max_error:.1e} nats "
            f"in {data.audit_pairs} random pairs",
        }
    said = [f"{name:10} {value}" for name, value in lines.items()]
    return "\n".join([*said, layers.summary(data)] if "agreement" in data else said)
