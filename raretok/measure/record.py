"""Measurements on disk: labelled arrays, rounded to what their error warrants, sealed.

A measurement is a directory: `measurement.json` says what was measured and how, and each part is
one file beside it, an xarray dataset as a zipped Zarr store. What is measured per position and
neuron is kept in steps that belong to the neuron, `NAME` in units of `NAME_step`.
"""

import os
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from jaxtyping import Float, Int
from zarr.codecs import BloscCodec

from raretok.errors import NotTestableError, UserError
from raretok.paths import key_of, read_sealed, replacing, sha256_of, write_sealed

FORMAT = 1
RECORD = "measurement.json"
CENTRE = 128  # added to steps, so that small ones of either sign differ in their low byte alone
MOST_STEPS = 2**15 - 1 - CENTRE
EPOCH = (1980, 1, 1, 0, 0, 0)  # in place of a clock time: equal arrays make equal files


def in_steps(
    values: Float[np.ndarray, "position neuron"], per_rms: int
) -> tuple[Int[np.ndarray, "position neuron"], Float[np.ndarray, " neuron"]]:
    """Each neuron's values in whole steps, `per_rms` of them to its root mean square; the steps.

    Rounding then adds 1 / (12 per_rms^2) of a neuron's mean square to its variance, and to the
    error of its mean over T positions step / sqrt(12 T).
    """
    values = values.astype(np.float64)
    rms = np.sqrt(np.square(values).mean(axis=0))
    step = np.maximum(rms / per_rms, np.abs(values).max(axis=0, initial=0) / MOST_STEPS)
    step = np.where(step > 0, step, 1.0)
    return np.round(values / step).astype(np.int16), step


def rounded(values: Float[np.ndarray, "..."], bits: int) -> Float[np.ndarray, "..."]:
    """Numbers to `bits` binary digits after the first: off by at most 2^-(bits + 1) of their size.

    As float32; what is left out is zero, which compresses.
    """
    cut = 23 - bits
    raw = np.asarray(values, np.float32).view(np.uint32)
    half = np.uint32((1 << (cut - 1)) - 1) + ((raw >> np.uint32(cut)) & np.uint32(1))
    return ((raw + half) & np.uint32(0xFFFFFFFF << cut & 0xFFFFFFFF)).view(np.float32)


@dataclass(frozen=True)
class Folder:
    """A measurement's directory."""

    path: Path

    @property
    def there(self) -> bool:
        return (self.path / RECORD).is_file()

    def record(self) -> dict[str, Any]:
        """What measurement.json says. Raises `UserError` unless it is whole and of this format."""
        try:
            record = read_sealed(self.path / RECORD, self.refused)
        except FileNotFoundError:
            raise self.refused(f"{RECORD} is missing") from None
        if record.get("format") != FORMAT:
            raise self.refused(f"it is of format {record.get('format')}, this is {FORMAT}")
        return record

    def begin(self, model: str, settings: dict[str, Any]) -> None:
        """Write the record of a measurement without parts, unless one is there."""
        if not self.there:
            self.path.mkdir(parents=True, exist_ok=True)
            empty = {"format": FORMAT, "model": model, "key": key_of(settings)}
            self._write(empty | {"settings": settings, "parts": {}})

    def take_over(self, other: "Folder", key: str) -> None:
        """Begin with the parts of another measurement of the same settings, if there is one."""
        if self.there or not other.there or other.record()["key"] != key:
            return
        draft = self.path.with_name(f"{self.path.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(other.path, draft)
        os.replace(draft, self.path)

    def keep(self, name: str, data: xr.Dataset, made: dict) -> None:
        """Write one part and enter it in the record; whole or not at all."""
        file = self.path / file_name(name)
        with replacing(file) as draft:
            write_zip(draft, data)
            content = draft.read_bytes()
        entry = {"bytes": len(content), "sha256": sha256_of(content), "made": made}
        self._enter(name, entry)

    def keep_reason(self, name: str, why: str) -> None:
        """Enter a part that this model and text cannot have, and why."""
        self._enter(name, {"not testable": why})

    def _enter(self, name: str, entry: dict[str, Any]) -> None:
        record = self.record()
        record["parts"][name] = entry
        self._write(record)

    def _write(self, record: dict[str, Any]) -> None:
        write_sealed(self.path / RECORD, record, sort_keys=True)

    def read(self, name: str) -> xr.Dataset:
        """One part as float64 arrays, checked against its seal. Raises `UserError`.

        `NotTestableError` for a part that could not be measured, with the reason it had.
        """
        entry = self.record()["parts"].get(name)
        file = self.path / file_name(name)
        if entry is None:
            raise self.refused(f"it has no part {name!r}")
        if "not testable" in entry:
            raise NotTestableError(entry["not testable"])
        if not file.is_file():
            raise self.refused(f"{file.name} is missing")
        content = file.read_bytes()
        if len(content) != entry["bytes"]:
            raise self.refused(f"{file.name} has {len(content)} bytes, not {entry['bytes']}")
        if sha256_of(content) != entry["sha256"]:
            raise self.refused(f"{file.name} is not as it was written (its sha256 differs)")
        return opened(file)

    def refused(self, why: str) -> UserError:
        """The error for a measurement that must not be used; nothing is measured in its place."""
        remedy = "restore it, or delete the folder and measure again with raretok measure"
        return UserError(f"the measurement {self.path.name} is damaged: {why}; {remedy}")


def file_name(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name) + ".zip"


def write_zip(file: Path, data: xr.Dataset) -> None:
    """A dataset as a Zarr store in one file; equal datasets give equal bytes."""
    memory: dict[str, Any] = {}
    steps = [name for name in data.data_vars if f"{name}_step" in data]
    data = data.assign({name: data[name] + np.int16(CENTRE) for name in steps})
    data.to_zarr(
        zarr.storage.MemoryStore(memory),
        zarr_format=3,
        consolidated=False,
        encoding={str(name): encoding(data[name]) for name in data.variables},
    )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for key in sorted(memory):
            archive.writestr(zipfile.ZipInfo(key, EPOCH), memory[key].to_bytes())


def encoding(array: xr.DataArray) -> dict[str, Any]:
    """One compressed chunk an array."""
    codec = BloscCodec(cname="zstd", clevel=9, shuffle="shuffle")
    return {"compressors": (codec,), "chunks": tuple(max(1, n) for n in array.shape)}


def opened(file: Path) -> xr.Dataset:
    """The dataset of a part's file: numbers in float64, steps multiplied out."""
    with zarr.storage.ZipStore(file, mode="r") as store:
        data = xr.open_zarr(store, consolidated=False, chunks=None).load()
    for name in [name for name in data.data_vars if f"{name}_step" in data]:
        data[name] = (data[name].astype(np.float64) - CENTRE) * data[f"{name}_step"]
    floats = [n for n in data.variables if np.issubdtype(data[n].dtype, np.floating)]
    return data.assign({name: data[name].astype(np.float64) for name in floats})
