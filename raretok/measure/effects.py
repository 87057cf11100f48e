"""What `raretok ablate` does: the effect of a layer's neurons at drawn positions, kept on disk."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from raretok.ablation import layers
from raretok.ablation.head import check_effect
from raretok.ablation.interventions import check_name
from raretok.ablation.layer_runs import ablate_layer_to_disk
from raretok.ablation.layers import LayerOptions
from raretok.ablation.partial import W_out_of, layer_index
from raretok.ablation.plan import MAX_MEMORY, Options
from raretok.ablation.precision import TOLERANCE, check_tolerance
from raretok.ablation.stream import ablate_to_disk
from raretok.errors import UserError
from raretok.measure.parameters import check_sources, validated
from raretok.measure.source import Source
from raretok.text.rarity import all_positions, draw_total


@dataclass(frozen=True)
class Measured:
    """A finished run, where it is and how long this call took."""

    folder: Path
    data: xr.Dataset
    seconds: float

    @property
    def summary(self) -> str:
        """The run in a few lines."""
        lines = {
            "run": self.folder,
            "positions": self.data.sizes["position"],
            "neurons": self.data.sizes["neuron"],
            "seconds": f"{self.seconds:.1f}",
        }
        if "agreement" in self.data:
            return "\n".join([*map(_line, lines, lines.values()), layers.summary(self.data)])
        lines["tokens"] = (
            f"{self.data.n_head} summed, {self.data.n_tail} sampled of the rest, "
            f"{100 * self.data.summed_in_full:.2g} % of the pairs in full"
        )
        lines["error"] = f"{float(self.data.sampling_error.max()):.1e} nats at most, one standard "
        lines["error"] += "error of a neuron's mean effect"
        passed = "" if self.data.audit_passed else "THE AUDIT FAILED: "
        lines["audit"] = f"{passed}largest error {self.data.audit_max_error:.1e} nats "
        lines["audit"] += f"in {self.data.audit_pairs} random pairs"
        return "\n".join(map(_line, lines, lines.values()))


def _line(name: str, value: Any) -> str:
    return f"{name:10} {value}"


def measure(
    model: str = "docs-gpt2",
    corpus: str = "docs",
    positions: int = 4096,
    *,
    layer: int = -1,
    mode: str = "mean",
    effect: str = "total",
    tolerance: float = TOLERANCE,
    seed: int = 0,
    out: Path | None = None,
    device: str = "cpu",
    max_memory: float = MAX_MEMORY,
    resume: bool = True,
    progress: bool = True,
) -> Measured:
    """Draw positions of a corpus and ablate every neuron of the last MLP at each of them.

    What `raretok ablate` does: stratified positions (see `draw_total`) of the protocol `corrected`,
    a run in `out` or under `runs/`, resumed where it stopped unless `resume` is false.
    `max_memory` is in GB above the model. Of an earlier `layer` (negative: from the end) all
    neurons are screened, and the top ones and a random subset are ablated (ablation/layers.py).
    Raises `UserError`.
    """
    started = time.monotonic()
    check_name(mode)
    check_effect(effect)
    check_tolerance(tolerance)
    source = Source(validated({"model": model, "corpus": corpus, "seed": seed, "device": device}))
    check_sources(source.parameters)
    everything = all_positions(source.contexts, source.classes("corrected"), "target")
    drawn = draw_total(everything, n=positions, rng=source.rng("positions of a run"))
    index = layer_index(source.model, layer)
    where = {
        "source": {"corpus_sha256": source.corpus.sha256, "seed": seed},
        "max_memory": max_memory,
        "resume": resume,
        "progress": progress,
    }
    inputs = source.model, source.contexts, drawn, out
    if index < source.model.architecture.n_layers - 1:
        check_total(effect)
        n_exact = min(LayerOptions.n_top, W_out_of(source.model, index).shape[0])
        numbers = {"n_top": n_exact, "n_random": n_exact}
        of_layer = LayerOptions(index, **numbers, mode=mode, tolerance=tolerance, seed=seed)
        folder, data = ablate_layer_to_disk(*inputs, options=of_layer, **where)
    else:
        options = Options(mode=mode, effect=effect, tolerance=tolerance, resample_seed=seed)
        folder, data = ablate_to_disk(*inputs, options=options, **where)
    return Measured(folder, data, time.monotonic() - started)


def check_total(effect: str) -> None:
    """Raise `UserError` for an effect that a layer before the last does not have."""
    if effect != "total":
        raise UserError(
            f"effect {effect!r} holds the final norm's scale, which a layer before the last acts "
            "through in later layers too: choose total"
        )
