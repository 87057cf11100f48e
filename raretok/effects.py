"""The effect of every final-MLP neuron on a drawn sample of positions, kept on disk."""

import time
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from raretok.ablation.plan import Options
from raretok.ablation.precision import TOLERANCE
from raretok.ablation.stream import MAX_MEMORY, ablate_to_disk
from raretok.parameters import check_sources, validated
from raretok.rarity import all_positions, draw_total
from raretok.study import Study


@dataclass(frozen=True)
class Measured:
    """A finished run, where it is and how long this call took."""

    folder: Path
    data: xr.Dataset
    seconds: float

    @property
    def summary(self) -> str:
        """The run in five lines."""
        lines = {
            "run": self.folder,
            "positions": self.data.sizes["position"],
            "neurons": self.data.sizes["neuron"],
            "seconds": f"{self.seconds:.1f}",
            "audit": f"largest error {self.data.audit_max_error:.1e} nats "
            f"in {self.data.audit_pairs} random pairs",
        }
        return "\n".join(f"{name:10} {value}" for name, value in lines.items())


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
    """Draw positions of a corpus and mean-ablate every neuron of the last MLP at each of them.

    What `raretok ablate` does: stratified positions (see `draw_total`) of the protocol `corrected`,
    a run in `out` or under `runs/`, resumed where it stopped unless `resume` is false.
    `max_memory` is in GB above the model. Raises `UserError`.
    """
    started = time.monotonic()
    study = Study(validated({"model": model, "corpus": corpus, "seed": seed, "device": device}))
    check_sources(study.parameters)
    everything = all_positions(study.contexts, study.classes("corrected"), "target")
    drawn = draw_total(everything, n=positions, rng=study.rng("positions of a run"))
    folder, data = ablate_to_disk(
        study.model,
        study.contexts,
        drawn,
        out,
        options=Options(mode=mode, effect=effect, tolerance=tolerance, resample_seed=seed),
        source={"corpus_sha256": study.corpus.sha256, "seed": seed},
        max_memory=max_memory,
        resume=resume,
        progress=progress,
    )
    return Measured(folder, data, time.monotonic() - started)
