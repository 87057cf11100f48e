"""Where pages get measurements from: the shipped one, one kept under `runs/`, or a new one."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from raretok.errors import NotTestableError, UserError, say
from raretok.measure.parameters import PageParameters
from raretok.measure.record import FORMAT, Folder, file_name
from raretok.models import files as model_files
from raretok.paths import DATA, RUNS, digest, key_of, locked, one_line
from raretok.text.corpus import corpus_file
from raretok.text.docstrings import held_out_sha256
from raretok.text.shelf import record_of, shelved

SHIPPED = DATA / "measurements"
LEAD = "smollm2-135m-q4"  # the book's first model
TRAINED = (  # runs of `raretok train` on the same tokens: the units of replication
    "docs-gpt2",
    *(f"docs-gpt2-seed{n}" for n in range(1, 5)),
    "docs-llama",
    "docs-pythia",
)
WITHOUT = "docs-gpt2-without-mathematics"  # trained on all domains but one
UNTRAINED = f"docs-gpt2{model_files.TWIN}"
HISTORY = "docs-pythia"  # whose checkpoints are measured
DEEP = (LEAD, "docs-gpt2", "docs-llama", "docs-pythia")  # of which the pages beyond the paper are
# Models whose measurement ships whole: of the others what the forest plots need.
WHOLE = (LEAD, "docs-gpt2")
STEP_POSITIONS = 400  # scored positions of each class at a checkpoint
DECIDE = ("rare_percentile", "n_ctx", "n_positions", "seed")  # parameters that decide a measurement


def settings_of(parameters: PageParameters) -> dict[str, Any]:
    """Everything that decides a measurement, and nothing of the machine that makes it."""
    sha256, own = model_files.identified(parameters.model, parameters.revision or None)
    n, given = parameters.n_documents, parameters.unigram
    counts = file_digest(own) if own.is_file() else "of the corpus"
    if given:
        file = Path(given).expanduser()
        as_counts = file.suffix.lower() in (".npy", ".npz") and file.is_file()
        counts = file_digest(file) if as_counts else text_sha256(given, n)
    return {
        "format": FORMAT,
        "model_sha256": sha256,
        "corpus_sha256": text_sha256(parameters.corpus, n),
        "counts_sha256": counts,
        **parameters.model_dump(include=set(DECIDE)),
        # Left out where it is the default, as in measurements made before it could be chosen.
        **parameters.model_dump(include={"packed", "dtype"}, exclude_defaults=True),
    }


def revisions_of(model: str) -> list[str]:
    """Checkpoints of a shipped model that were measured, by step."""
    folder = model_files.shipped_folder(model)
    known = model_files.source_record(folder).get("revisions", {}) if folder else {}
    return sorted(known, key=step_of)


def step_of(revision: str) -> int:
    """Number of a revision such as step1000. Raises `UserError` for another one."""
    found = re.fullmatch(r"step(\d+)", revision)
    if not found:
        raise UserError(f"{revision!r} is no checkpoint: write them as step0,step1000")
    return int(found[1])


def step_parameters(model: str, revision: str, **more: Any) -> PageParameters:
    """What a checkpoint is measured with: the same positions at every step."""
    return PageParameters(model=model, revision=revision, n_positions=STEP_POSITIONS, **more)


def text_sha256(corpus: str, n_documents: int) -> str:
    """What identifies a text: of those that ship, or are measured to ship, their record says."""
    if corpus == "docs":
        return held_out_sha256()
    if corpus in shelved():
        return record_of(corpus)["sha256"]
    return file_digest(corpus_file(corpus, n_documents))


def file_digest(path: Path) -> str:
    """What a file is named by in measurements that ship; no sha256 of its bytes alone."""
    return digest([np.fromfile(path, np.uint8)])


@dataclass(frozen=True)
class Measurements:
    """The parts that one model's pages read."""

    parameters: PageParameters
    shipped: Path | None = SHIPPED  # None: measure even what ships
    loud: bool = False  # say on stderr what is being measured
    only_shipped: bool = False  # what does not ship is a gap, and never measured

    @cached_property
    def settings(self) -> dict[str, Any]:
        return settings_of(self.parameters)

    @cached_property
    def key(self) -> str:
        return key_of(self.settings)

    @property
    def label(self) -> str:
        """The model, with its revision and a text of the shelf, as a folder is named."""
        revision, corpus = self.parameters.revision, self.parameters.corpus
        name = Path(self.parameters.model).name + (f"-{revision}" if revision else "")
        name += f"-{corpus}" if corpus in shelved() else ""
        return re.sub(r"[@:/]", "-", name)

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
        """Whether all of this ships: a lead model with the parameters of the book."""
        fixed = {*DECIDE, "corpus", "unigram", "revision", "group_percent", "dtype", "packed"}
        changed = self.parameters.model_dump(include=fixed, exclude_defaults=True)
        return not changed and self.parameters.model in WHOLE

    def part(self, name: str) -> xr.Dataset:
        """One part, measured and kept where it is not there.

        Raises `UserError` for a measurement that is damaged, foreign or incomplete.
        """
        if self.ready and (self.should_ship or self.has(self.ready, name)):
            return self.ready.read(name).assign_attrs(measurement=self.name)
        if self.only_shipped:
            raise NotTestableError(f"{name} of {self.label} was not measured")
        if not self.has(self.kept, name):
            self.measure(name)
        return self.kept.read(name).assign_attrs(measurement=self.name)

    @property
    def name(self) -> str:
        """How pages and ledger name it."""
        return f"{self.label}/{self.key}"

    def has(self, folder: Folder | None, name: str) -> bool:
        return folder is not None and folder.there and name in folder.record()["parts"]

    def there(self, name: str) -> bool:
        """Whether a part ships or is kept."""
        return self.has(self.ready, name) or self.has(self.kept, name)

    def measure(self, name: str) -> None:
        """Measure one part into `runs/`; another process that asks for it waits."""
        from raretok.measure.parts import measured  # needs torch, which no page imports

        folder = self.kept
        # A lock a part: one part may ask for another.
        lock = folder.path / "locks" / file_name(name)
        with one_line(folder.path), locked(lock, wait=True):
            if not self.has(folder, name):
                if self.loud:
                    say(f"measuring {name} of {self.label}")
                started = time.monotonic()
                try:
                    data, made = measured(self, name)
                except NotTestableError as error:
                    self.keep(lambda why=str(error): folder.keep_reason(name, why))
                    return
                made["seconds"] = round(time.monotonic() - started, 1)
                self.keep(lambda: folder.keep(name, data, made))

    def keep(self, write: Callable[[], None]) -> None:
        """Write to the record while no other process does."""
        with locked(self.kept.path, wait=True):
            self.kept.begin(self.label, self.settings)
            write()
