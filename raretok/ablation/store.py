"""A run on disk: whole after a kill, and checked before it is read.

    run.json      settings, versions and state; of a finished run its audit, and the sha256 of
                  every file of data.zarr; with its own sha256
    data.zarr/    the numbers (Zarr v3), of the last layer in one chunk for each block of positions
    timings.json  seconds; the one file that may differ between two equal runs
    scratch/      what a run that is under way will need again: parts (ablation/checkpoints.py)

A block of positions counts once its part is there, which is written after it and holds the sha256
of its numbers. A process killed at any moment leaves parts that are true and numbers without a
part, which are written again when the run goes on.
"""

import shutil
import warnings
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray as xr
import zarr
from jaxtyping import Float, Shaped

from raretok.ablation.checkpoints import Checkpoints
from raretok.errors import UserError
from raretok.paths import digest, file_sha256, key_of, read_sealed, write_sealed
from raretok.text.rarity import Positions

FORMAT = 2
TABLE = "neurons.parquet"  # made from the run (raretok/measure/neurons.py)
OWN = (TABLE, "data.zarr", "scratch", "timings.json", "run.json")
NATS = {"units": "nats"}
PER_BLOCK = ("delta_loss", "post", "loss")


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

    def rows(self, k: int) -> slice:
        """Positions of a block."""
        start, stop = (min(n * self.record["block"], self.record["positions"]) for n in (k, k + 1))
        return slice(start, stop)

    def lay_out(
        self,
        positions: Positions,
        mean_post: Float[np.ndarray, " d_mlp"],
        attrs: dict[str, str | int | float],
    ) -> None:
        """Create the arrays, and label the positions."""
        n, d_mlp, block = (self.record[name] for name in ("positions", "neurons", "block"))

        def empty(*shape: int, dtype: type = np.float32) -> dask.array.Array:
            chunks = (min(block, n), d_mlp) if len(shape) > 1 else min(block, shape[0])
            return dask.array.empty(shape, chunks=chunks, dtype=dtype)

        pairs = ("position", "neuron")
        arrays = {
            "delta_loss": (pairs, empty(n, d_mlp), NATS),
            "post": (pairs, empty(n, d_mlp)),
            "loss": ("position", empty(n), NATS),
            "mean_post": ("neuron", mean_post),
            "sampling_error": ("neuron", empty(d_mlp, dtype=np.float64), NATS),
        }
        labels = {name: ("position", values) for name, values in vars(positions).items()}
        self.write(xr.Dataset(arrays, labels, attrs))

    def write(self, data: xr.Dataset) -> None:
        """Write a result; of arrays that are not there yet, their places alone."""
        shutil.rmtree(self.data, ignore_errors=True)
        # Activations and effects are noise to a compressor.
        plain = {name: {"compressors": None, "_FillValue": None} for name in data.data_vars}
        with warnings.catch_warnings():
            # What xarray looks for first is not yet in the specification, nor are text labels.
            warnings.simplefilter("ignore")
            data.to_zarr(self.data, zarr_format=3, compute=False, encoding=plain)

    def fill(self, rows: slice, **values: Shaped[np.ndarray, "..."]) -> None:
        """Write some entries of arrays that have their places."""
        group = zarr.open_group(self.data)
        for name, some in values.items():
            group[name][rows] = some

    def digest(self, rows: slice) -> str:
        """One sha256 over the numbers of some positions as they are on disk."""
        group = zarr.open_group(self.data, mode="r")
        return digest(group[name][rows] for name in PER_BLOCK)

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
        done, n = len(list(run.scratch.glob("block-*.part"))), run.n_blocks
        so_far = f": {done} of {n} blocks" if n > 1 else ""
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
