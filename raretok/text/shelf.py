"""Texts that are not docstrings: made from the files of packages that do not come with raretok."""

import json
from pathlib import Path
from typing import Any

from raretok.errors import UserError
from raretok.paths import DATA, RUNS

SHELF = DATA / "corpus"
LONGEST = 8_000  # characters of a document: many short documents tell more than a few long ones


def shelved() -> list[str]:
    """Names of the texts whose measurements ship, beside `docs`."""
    return sorted(file.stem for file in SHELF.glob("*.json") if file.stem != "docs")


def record_of(name: str) -> dict[str, Any]:
    """Package, licence, files and sha256 of a text."""
    return json.loads((SHELF / f"{name}.json").read_text())


def shelf_file(name: str) -> Path:
    """Where the text lies once it is made. Raises `UserError` where it is not."""
    file, record = RUNS / "corpora" / f"{name}.jsonl", record_of(name)
    if not file.is_file():
        raise UserError(
            f"the text {name} ships as measurements alone: unpack {record['package']} "
            f"{record['version']} and give its folder to raretok text {name} FOLDER"
        )
    return file


def make_text(name: str, folder: Path) -> tuple[Path, bool]:
    """Write a text from the unpacked package as JSONL; whether it is the one that was measured.

    Raises `UserError` for an unknown name and for a folder without its files.
    """
    from raretok.text.docstrings import digest

    if name not in shelved():
        raise UserError(f"no text {name!r}: there are {', '.join(shelved())}")
    record = record_of(name)
    files = sorted(folder.glob(record["files"]))
    if not files:
        raise UserError(f"{folder.name} has no {record['files']}: unpack {record['package']} there")
    rows = [(text_of(file, record.get("field")), file.name, name) for file in files]
    out = RUNS / "corpora" / f"{name}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": t, "file": f, "domain": d}) + "\n" for t, f, d in rows if t]
    out.write_text("".join(lines))
    return out, digest([row for row in rows if row[0]]) == record["sha256"]


def text_of(file: Path, field: str | None) -> str:
    """The first characters of a file, or of a field of a JSON file."""
    content = file.read_text(encoding="utf-8", errors="replace")
    return (json.loads(content)[field] if field else content)[:LONGEST].strip()
