"""The record of a run on disk: its name, settings and state."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from raretok.errors import UserError

FORMAT = 2
TABLE = "neurons.parquet"  # made from the run (raretok/measure/neurons.py)
OWN = (TABLE, "data.zarr", "scratch", "timings.json", "run.json")
PARTIAL = "run.partial"


def key_of(settings: dict[str, Any]) -> str:
    """Name of a run: a hash of everything that decides its numbers."""
    return sha256_of(json.dumps(settings, sort_keys=True).encode())[:16]


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
    others = [f.name for f in folder.iterdir() if f.name != PARTIAL] if folder.exists() else []
    if others:
        raise UserError(
            f"{folder} is not a run: it holds {sorted(others)[0]} but no run.json; "
            "give an empty or a new directory"
        )
    return False


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Replace run.json at once, sealed by its own sha256."""
    content = {name: value for name, value in record.items() if name != "sha256"}
    content["sha256"] = sha256_of(json.dumps(content, sort_keys=True).encode())
    partial = folder / PARTIAL
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, folder / "run.json")


def read_record(folder: Path) -> dict[str, Any]:
    """What run.json says. Raises `UserError` unless it is as it was written."""
    try:
        record = json.loads((folder / "run.json").read_bytes())
        given = record.pop("sha256")
    except FileNotFoundError:
        raise UserError(f"{folder} is not a run: it has no run.json") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged(folder, "run.json cannot be read") from None
    if given != sha256_of(json.dumps(record, sort_keys=True).encode()):
        raise damaged(folder, "run.json was changed after it was written")
    if record.get("format") != FORMAT or key_of(record["settings"]) != record["key"]:
        raise damaged(folder, f"run.json is not of format {FORMAT}")
    return record


def damaged(folder: Path, what: str) -> UserError:
    """The error to raise for a run that must not be used."""
    return UserError(f"the run {folder} is damaged: {what}; compute it again with --fresh")


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
