"""A run on disk: blocks of positions kept whole or not at all, and checked before they are read.

    run.json      settings, versions, audit and state, with their own sha256
    blocks.jsonl  one line for each finished step: its files, their sizes and sha256
    data.zarr/    the numbers (Zarr v3), of the last layer in one chunk for each block of positions
    timings.json  seconds; the one file that may differ between two equal runs
    scratch/      what a run that is under way will need again

A step counts once its line in blocks.jsonl is complete, and the line is written after the files. A
process killed at any moment leaves lines that are true and files without a line, which are deleted
when the run goes on.
"""

import hashlib
import json
import os
import shutil
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from jaxtyping import Float, Shaped

from raretok.ablation.records import FORMAT, damaged, key_of, read_record, sha256_of, write_record
from raretok.errors import UserError
from raretok.text.rarity import Positions

UNITS = {"delta_loss": "nats", "loss": "nats", "sampling_error": "nats", "variance": "nats^2"}
# Every chunk is a file, also of nothing but fill values: a missing one is damage.
every_chunk = partial(zarr.config.set, {"array.write_empty_chunks": True})
PER_BLOCK = ("variance", "summed_in_full")  # what sampling_error is summed from


@dataclass
class Run:
    """A run directory and what its two records say."""

    folder: Path
    record: dict[str, Any]
    steps: dict[str, dict[str, list]] = field(default_factory=dict)  # step -> file -> size, sha256

    @property
    def complete(self) -> bool:
        return self.record["state"] == "complete"

    @property
    def data(self) -> Path:
        return self.folder / "data.zarr"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def add_labels(self, positions: Positions, attrs: dict[str, str | int]) -> None:
        """Create the arrays, and label the positions."""
        n, d_mlp, block = (self.record[name] for name in ("positions", "neurons", "block"))
        shutil.rmtree(self.data, ignore_errors=True)
        labels = vars(positions)
        group = zarr.create_group(
            self.data, zarr_format=3, attributes={**attrs, "coordinates": " ".join(labels)}
        )
        for name in ("delta_loss", "post"):
            _create(group, name, (n, d_mlp), (block, d_mlp), ("position", "neuron"))
        _create(group, "loss", (n,), (block,), ("position",))
        _create(group, "mean_post", (d_mlp,), (d_mlp,), ("neuron",))
        _create(group, "sampling_error", (d_mlp,), (d_mlp,), ("neuron",), np.float64)
        shape = (n_blocks(self.record), d_mlp)
        _create(group, "variance", shape, (1, d_mlp), ("block", "neuron"), np.float64)
        _create(group, "summed_in_full", shape[:1], (1,), ("block",), np.int64)
        for name, values in labels.items():
            with every_chunk():
                _create(group, name, (n,), (n,), ("position",), values.dtype)[:] = values
        with warnings.catch_warnings():
            # Not yet in the Zarr v3 specification, but xarray looks for it first.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(self.data)
        self._finish_step("labels", self._files())

    def add_whole(self, data: xr.Dataset) -> None:
        """Write a result that fits the memory, as one step."""
        shutil.rmtree(self.data, ignore_errors=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # text labels are not yet in the specification either
            data.to_zarr(self.data, zarr_format=3)
        self._finish_step("whole", self._files())

    def _files(self) -> list[Path]:
        return sorted(f for f in self.data.rglob("*") if f.is_file())

    def add_neurons(self, name: str, values: Float[np.ndarray, " d_mlp"]) -> None:
        """Write what there is one of for each neuron, `mean_post` or `sampling_error`."""
        with every_chunk():
            zarr.open_group(self.data)[name][:] = values
        self._finish_step(name, [self.data / name / "c" / "0"])

    def add_block(
        self,
        index: int,
        values: dict[str, Shaped[np.ndarray, "pos *neuron"]],
        variance: Float[np.ndarray, " d_mlp"],
        summed_in_full: int,
    ) -> None:
        """Write one block of positions, `delta_loss`, `post` and `loss`, and what it sums to."""
        start = index * self.record["block"]
        with every_chunk():
            group = zarr.open_group(self.data)
            for name, rows in values.items():
                group[name][start : start + len(rows)] = rows
            group["variance"][index], group["summed_in_full"][index] = variance, summed_in_full
        files = [self.data / name / "c" / str(index) for name in (*values, *PER_BLOCK)]
        self._finish_step(str(index), [f / "0" if f.is_dir() else f for f in files])

    def sums(self) -> tuple[Float[np.ndarray, " d_mlp"], int]:
        """Variance of delta_loss and pairs summed in full, over all blocks in their order."""
        group = zarr.open_group(self.data, mode="r")
        variance = np.zeros(self.record["neurons"])
        for of_block in group["variance"][:]:
            variance += of_block
        return variance, int(group["summed_in_full"][:].sum())

    def _finish_step(self, step: str, files: list[Path]) -> None:
        found = {f.relative_to(self.data).as_posix(): _stamp(f) for f in files}
        line = {"run": self.record["key"], "step": step, "files": found}
        line["sha256"] = _seal(line)
        with (self.folder / "blocks.jsonl").open("a") as journal:
            journal.write(json.dumps(line) + "\n")
        self.steps[step] = found

    def finish(self, audit: dict[str, Any], seconds: float) -> None:
        """Mark the run complete, with its audit; its journal is sealed by its sha256."""
        taken = {"seconds_since_started_or_resumed": round(seconds, 3)}
        (self.folder / "timings.json").write_text(json.dumps(taken) + "\n")
        journal = (self.folder / "blocks.jsonl").read_bytes()
        self.record |= {"state": "complete", "audit": audit, "blocks_sha256": sha256_of(journal)}
        write_record(self.folder, self.record)

    def check(self) -> None:
        """Raise `UserError` naming the first file of a finished step that is not as written."""
        for files in self.steps.values():
            for name, (size, sha256) in files.items():
                fault = _fault(self.data / name, size, sha256)
                if fault:
                    raise damaged(self.folder, f"{self.data.name}/{name} {fault}")

    def discard_unfinished(self) -> None:
        """Delete what belongs to no finished step: a torn line, files without a line."""
        journal = self.folder / "blocks.jsonl"
        if journal.exists():
            whole = journal.read_bytes()
            os.truncate(journal, whole.rfind(b"\n") + 1)
        for file in self.strays():
            file.unlink()

    def strays(self) -> list[Path]:
        """Files in the store that no finished step wrote."""
        known = {name for files in self.steps.values() for name in files}
        return [f for f in self._files() if f.relative_to(self.data).as_posix() not in known]


def _create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dims: tuple[str, ...],
    dtype: Any = np.float32,
) -> zarr.Array:
    is_float = np.issubdtype(dtype, np.floating)
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        dimension_names=dims,
        fill_value=np.nan if is_float else -1,  # what no block holds
        compressors=None,  # activations and effects are noise to a compressor
        attributes={"units": UNITS[name]} if name in UNITS else {},
    )


def create_run(folder: Path, settings: dict[str, Any], layout: dict[str, Any]) -> Run:
    """A run that has just begun; `layout` says how it is cut and what made it."""
    record = {"format": FORMAT, "key": key_of(settings), "settings": settings, **layout}
    record["state"] = "running"
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder, record)
    return Run(folder, record)


def read_run(folder: Path) -> Run:
    """The run in a directory, its records checked but not yet its numbers. Raises `UserError`."""
    record = read_record(folder)
    run = Run(folder, record)
    journal = folder / "blocks.jsonl"
    content = journal.read_bytes() if journal.exists() else b""
    if run.complete and sha256_of(content) != record.get("blocks_sha256"):
        raise damaged(folder, "blocks.jsonl is not the one that was written")
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break  # torn by a kill: the step never finished
        try:
            entry = json.loads(line)
            given, owner, step, files = (entry[n] for n in ("sha256", "run", "step", "files"))
        except (ValueError, KeyError, TypeError):
            raise damaged(folder, f"line {number} of blocks.jsonl cannot be read") from None
        if given != _seal(entry):
            raise damaged(folder, f"line {number} of blocks.jsonl was changed")
        if owner != record["key"]:
            raise damaged(folder, f"run.json is of run {record['key']}, the store is of {owner}")
        run.steps[step] = files
    return run


def open_run(folder: str | Path) -> xr.Dataset:
    """A finished run as `ablate` returns it, read from disk as it is used.

    Every file is checked against its sha256 first. Raises `UserError` naming what is damaged or
    foreign, or how much of the run is still missing.
    """
    run = read_run(Path(folder))
    run.check()
    if not run.complete:
        done, n = sum(step.isdigit() for step in run.steps), n_blocks(run.record)
        so_far = f": {done} of {n} blocks" if n > 1 else ""
        raise UserError(f"the run {folder} is not finished{so_far}; resume it first")
    stray = run.strays()
    if stray:
        raise damaged(run.folder, f"{stray[0].relative_to(run.folder)} is not of this run")
    data = xr.open_dataset(run.data, engine="zarr", chunks=None, consolidated=False)
    return data.drop_vars(PER_BLOCK, errors="ignore").assign_attrs(run.record["audit"])


def n_blocks(record: dict[str, Any]) -> int:
    return -(-record["positions"] // record["block"])


def _seal(line: dict[str, Any]) -> str:
    content = {name: value for name, value in line.items() if name != "sha256"}
    return sha256_of(json.dumps(content, sort_keys=True).encode())


def _fault(file: Path, size: int, sha256: str) -> str:
    if not file.is_file():
        return "is missing"
    if file.stat().st_size != size:
        return f"has {file.stat().st_size} bytes, {size} were written"
    return "" if _stamp(file)[1] == sha256 else "has changed: its sha256 is not the one written"


def _stamp(file: Path) -> list:
    with file.open("rb") as opened:
        return [file.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest()]
