"""The record of a run on disk: its name, settings and state."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from raretok.errors import UserError
from raretok.sealed import key_of, read_sealed

FORMAT = 2
TABLE = "neurons.parquet"  # made from the run (raretok/measure/neurons.py)
OWN = (TABLE, "data.zarr", "scratch", "timings.json", "run.json")


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
