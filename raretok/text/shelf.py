"""Texts that are not docstrings: made from the files of packages that do not come with raretok."""

import json
from pathlib import Path
from typing import Any

from raretok.errors import UserError
from raretok.paths import DATA, RUNS
from raretok.text.docstrings import digest

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
    if name not in shelved():
        raise UserError(f"no text {name!r}: there are {', '.join(shelved())}")
    record, rows = record_of(name), []
    for file in sorted(folder.glob(record["files"])):
        content = file.read_text(encoding="utf-8", errors="replace")
        content = json.loads(content)[record["field"]] if "field" in record else content
        rows.append((content[:LONGEST].strip(), file.name, name))
    if not rows:
        raise UserError(f"{folder.name} has no {record['files']}: unpack {record['package']} there")
    rows = [row for row in rows if row[0]]
    out = RUNS / "corpora" / f"{name}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(dict(zip(("text", "file", "domain"), row, strict=True))) for row in rows)
    out.write_text("".join(f"{line}\n" for line in lines))
    return out, digest(rows) == record["sha256"]
