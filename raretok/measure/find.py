"""Where pages get measurements from: the shipped one, one kept under `runs/`, or a new one."""

import sys
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from raretok.measure.parameters import PageParameters
from raretok.measure.record import FORMAT, Folder, digest, file_name, seal_of
from raretok.models import files as model_files
from raretok.paths import DATA, RUNS, locked, one_line
from raretok.text.docstrings import held_out_sha256

SHIPPED = DATA / "measurements"
COUNTS_FILE = "unigram_counts.npy"
# Weights that ship without a measurement: no page shows them yet.
REPLICATES = (*(f"docs-gpt2-seed{n}" for n in range(1, 5)), "docs-llama", "docs-pythia")
DECIDE = ("rare_percentile", "n_ctx", "n_positions", "seed")  # parameters that decide a measurement


def settings_of(parameters: PageParameters) -> dict[str, Any]:
    """Everything that decides a measurement, and nothing of the machine that makes it."""
    name = parameters.model
    untrained = name.endswith(model_files.TWIN)
    folder = model_files.model_folder(name, parameters.revision or None)
    seed = model_files.twin_seed(folder) if untrained else None
    counts = Path(parameters.unigram) if parameters.unigram else folder / COUNTS_FILE
    text = None if parameters.corpus == "docs" else Path(parameters.corpus)
    return {
        "format": FORMAT,
        "model_sha256": model_files.files_digest(folder, seed),
        "corpus_sha256": file_sha256(text) if text else held_out_sha256(),
        "counts_sha256": file_sha256(counts) if counts.is_file() else "of the corpus",
        **parameters.model_dump(include=set(DECIDE)),
    }


def file_sha256(path: Path) -> str:
    return digest([np.fromfile(path, np.uint8)])


@dataclass(frozen=True)
class Measurements:
    """The parts that one model's pages read."""

    parameters: PageParameters
    shipped: Path | None = SHIPPED  # None: measure even what ships
    loud: bool = False  # say on stderr what is being measured

    @cached_property
    def twin(self) -> "Measurements":
        """Those of the untrained network."""
        return replace(self, parameters=self.parameters.twin)

    @cached_property
    def settings(self) -> dict[str, Any]:
        return settings_of(self.parameters)

    @cached_property
    def key(self) -> str:
        return seal_of(self.settings)[:16]

    @property
    def label(self) -> str:
        """The model as a folder is named."""
        return Path(self.parameters.model).name.replace("@", "-")

    @property
    def kept(self) -> Folder:
        return Folder(RUNS / f"measured-{self.key}")

    @cached_property
    def ready(self) -> Folder | None:
        """The shipped measurement, where it is of these very settings.

        Raises `UserError` where the one that ships for them is missing, damaged or of other files.
        """
        if self.shipped is None:
            return None
        folder = Folder(self.shipped / self.label)
        if not (folder.there or self.should_ship):
            return None
        record = folder.record()
        if record["key"] == self.key:
            return folder
        if self.should_ship:
            theirs = record["settings"]
            different = [n for n in self.settings if theirs.get(n) != self.settings[n]]
            raise folder.refused(f"it is of another {', '.join(different)}")
        return None

    @property
    def should_ship(self) -> bool:
        """Whether this is a shipped model with the parameters of the book."""
        name = self.parameters.model.removesuffix(model_files.TWIN)
        fixed = {*DECIDE, "corpus", "unigram", "revision", "group_percent"}
        asked = self.parameters.model_dump(include=fixed)
        book = PageParameters().model_dump(include=set(asked))
        known = (model_files.SHIPPED / name / "config.json").is_file()
        return asked == book and known and name not in REPLICATES

    def part(self, name: str) -> xr.Dataset:
        """One part, measured and kept where it is not there.

        Raises `UserError` for a measurement that is damaged, foreign or incomplete.
        """
        if self.ready and self.has(self.ready, name):
            return self.ready.read(name).assign_attrs(measurement=self.name)
        if self.ready and self.should_ship:
            raise self.ready.refused(f"it has no part {name!r}")
        if not self.has(self.kept, name):
            self.measure(name)
        return self.kept.read(name).assign_attrs(measurement=self.name)

    @property
    def name(self) -> str:
        """How pages and ledger name it."""
        return f"{self.label}/{self.key}"

    def has(self, folder: Folder, name: str) -> bool:
        return folder.there and name in folder.record()["parts"]

    def measure(self, name: str) -> None:
        """Measure one part into `runs/`; another process that asks for it waits."""
        from raretok.measure.parts import measured  # needs torch, which no page imports

        folder = self.kept
        # A lock a part: one part may ask for another.
        lock = folder.path / "locks" / file_name(name)
        with one_line(folder.path), locked(lock, wait=True):
            if not self.has(folder, name):
                if self.loud:
                    print(f"measuring {name} of {self.label}", file=sys.stderr, flush=True)
                started = time.monotonic()
                data, made = measured(self, name)
                made["seconds"] = round(time.monotonic() - started, 1)
                with locked(folder.path, wait=True):
                    folder.begin(self.label, self.settings)
                    folder.keep(name, data, made)
