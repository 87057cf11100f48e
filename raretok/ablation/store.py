"""A run on disk: begun or gone on with, whole after a kill, and checked before it is read.

    run.json      settings, versions and state; of a finished run its audit, and the sha256 of
                  every file of data.zarr; with its own sha256
    data.zarr/    the numbers (Zarr v3), of the last layer in one chunk for each block of positions
    timings.json  seconds; the one file that may differ between two equal runs
    scratch/      what a run that is under way will need again: parts (ablation/checkpoints.py)

The numbers are written once all parts are there, and again when the run goes on after a process
was killed in the middle of it: a part is whole, or it counts as never made.
"""

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from jaxtyping import Int

from raretok.ablation.checkpoints import Checkpoints
from raretok.errors import UserError
from raretok.paths import (
    RUNS,
    file_sha256,
    key_of,
    locked,
    one_line,
    read_sealed,
    write_sealed,
)

FORMAT = 2
TABLE = "neurons.parquet"  # made from the run (raretok/measure/neurons.py)
OWN = (TABLE, "data.zarr", "scratch", "timings.json", "run.json")


@dataclass(frozen=True)
class Run:
    """A run directory and what its record says."""

    folder: Path
    record: dict[str, Any]

    @property
    def complete(self) -> bool:
        return self.record["state"] == "complete"

    @property
    def data(self) -> Path:
        return self.folder / "data.zarr"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @cached_property
    def parts(self) -> Checkpoints:
        return Checkpoints(self.scratch)

    @property
    def n_blocks(self) -> int:
        return -(-self.record["positions"] // self.record["block"])

    def rows(self, k: int) -> Int[np.ndarray, " position"]:
        """Positions of a block."""
        block = self.record["block"]
        return np.arange(k * block, min((k + 1) * block, self.record["positions"]))

    def write(self, data: xr.Dataset) -> None:
        """Write a result, of arrays that are read in chunks one chunk after the other."""
        shutil.rmtree(self.data, ignore_errors=True)
        # Activations and effects are noise to a compressor.
        plain = {name: {"compressors": None, "_FillValue": None} for name in data.data_vars}
        with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):
            # What xarray looks for first is not yet in the specification, nor are text labels.
            warnings.simplefilter("ignore")
            data.to_zarr(self.data, zarr_format=3, encoding=plain)

    def finish(self, audit: dict[str, Any], seconds: float) -> None:
        """Mark the run complete, with its audit and what its files are."""
        timings = f'{{"seconds_since_started_or_resumed": {round(seconds, 3)}}}\n'
        (self.folder / "timings.json").write_text(timings)
        self.record.update(state="complete", audit=audit, files=self.files())
        write_sealed(self.folder / "run.json", self.record)

    def files(self) -> dict[str, str]:
        """The sha256 of every file of the store."""
        files = sorted(f for f in self.data.rglob("*") if f.is_file())
        return {f.relative_to(self.data).as_posix(): file_sha256(f) for f in files}

    def check(self) -> None:
        """Raise `UserError` naming the first file of a finished run that is not as written."""
        there, written = self.files(), self.record["files"]
        for name in sorted({*there, *written}):
            if there.get(name) == written.get(name):
                continue
            fault = "is missing" if name not in there else "is not of this run"
            if name in there and name in written:
                fault = "has changed: its sha256 is not the one written"
            raise damaged(self.folder, f"{self.data.name}/{name} {fault}")


@contextmanager
def run_to_write(
    out: Path | None,
    settings: dict[str, Any],
    layout: Callable[[], dict[str, Any]],
    *,
    resume: bool = True,
    wait: bool = False,
) -> Iterator[Run]:
    """The run in a directory, begun or checked and ready to go on; its scratch goes at the end.

    `out` is `runs/KEY` unless given; `layout` says how a run that has work left is cut. An error
    leaves what is finished. Another process that writes the same run is refused, or awaited with
    `wait`. Raises `UserError` for what is damaged or no run, for other settings, and for a full
    disk.
    """
    folder = out or RUNS / key_of(settings)
    with one_line(folder):
        # All that can be refused is, before anything is written.
        known = (folder / "run.json").is_file() if wait else is_run(folder)
        if not (known and resume and read_record(folder)["state"] == "complete"):
            layout()
    with one_line(folder), locked(folder, wait=wait):
        begun = is_run(folder)
        if begun and not resume:
            remove_run(folder)
        if begun and resume:
            run = resumed(folder, settings, layout)
        else:
            run = create_run(folder, settings, layout())
        yield run
        shutil.rmtree(run.scratch, ignore_errors=True)


def resumed(folder: Path, settings: dict[str, Any], layout: Callable[[], dict[str, Any]]) -> Run:
    """The run in a directory, checked and ready to go on. Raises `UserError`."""
    run = Run(folder, read_record(folder))
    theirs = run.record["settings"]
    different = [n for n in sorted({*theirs, *settings}) if theirs.get(n) != settings.get(n)]
    if different:
        name = different[0]
        raise UserError(
            f"{folder} is a run with other settings ({', '.join(different)}): {name} is "
            f"{theirs.get(name)}, not {settings.get(name)}; give another directory or --fresh"
        )
    if run.complete:
        return run
    block, parts, cut = run.record["block"], run.record["parts"], layout()
    if block > cut["block"] or parts < cut["parts"]:  # going on takes more memory than is given
        raise UserError(
            f"{folder} is cut into blocks of {block} positions, these in {parts} parts; this "
            f"memory budget asks for {cut['block']} and {cut['parts']}: raise --max-memory or use "
            "--fresh"
        )
    return run


def create_run(folder: Path, settings: dict[str, Any], layout: dict[str, Any]) -> Run:
    """A run that has just begun; `layout` says how it is cut and what made it."""
    record = {"format": FORMAT, "key": key_of(settings), "settings": settings, **layout}
    record["state"] = "running"
    folder.mkdir(parents=True, exist_ok=True)
    write_sealed(folder / "run.json", record)
    return Run(folder, record)


def open_run(folder: str | Path) -> xr.Dataset:
    """A finished run as `ablate` returns it, read from disk as it is used.

    Every file is checked against its sha256 first. Raises `UserError` naming what is damaged or
    foreign, or how much of the run is still missing.
    """
    run = Run(Path(folder), read_record(Path(folder)))
    if not run.complete:
        done, n = len(list(run.scratch.glob("blocks-*/*.part"))), run.n_blocks
        so_far = f": {done} of {n} blocks" if n > 1 and done else ""
        raise UserError(f"the run {folder} is not finished{so_far}; resume it first")
    run.check()
    data = xr.open_dataset(run.data, engine="zarr", chunks=None, consolidated=False)
    return data.assign_attrs(run.record["audit"])


def remove_run(folder: Path) -> None:
    """Delete a run, and nothing else that lies beside it; run.json goes last."""
    for name in OWN:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def is_run(folder: Path) -> bool:
    """Whether a directory holds a run; raises `UserError` where something else lies there."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a directory for the run")
    if (folder / "run.json").is_file():
        return True
    there = folder.iterdir() if folder.exists() else ()
    if others := [file.name for file in there if file.suffix != ".partial"]:
        raise UserError(
            f"{folder} is not a run: it holds {sorted(others)[0]} but no run.json; "
            "give an empty or a new directory"
        )
    return False


def read_record(folder: Path) -> dict[str, Any]:
    """What run.json says. Raises `UserError` unless it is as it was written."""
    try:
        record = read_sealed(folder / "run.json", partial(damaged, folder))
    except FileNotFoundError:
        raise UserError(f"{folder} is not a run: it has no run.json") from None
    if record.get("format") != FORMAT or key_of(record["settings"]) != record["key"]:
        raise damaged(folder, f"run.json is not of format {FORMAT}")
    return record


def damaged(folder: Path, what: str) -> UserError:
    """The error to raise for a run that must not be used."""
    return UserError(f"the run {folder} is damaged: {what}; compute it again with --fresh")
