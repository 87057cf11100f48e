"""The status page's tables: versions, models, texts, measurements, how long pages took."""

import json
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import zarr

from raretok.ledger.records import executed_pages
from raretok.measure.find import LEAD, SHIPPED
from raretok.measure.record import Folder, file_name
from raretok.models.files import SHIPPED as MODELS
from raretok.paths import DATA, file_sha256

PACKAGES = ("raretok", "torch", "transformers", "transformer-lens", "tokenizers", "numpy", "scipy")
PACKAGES += ("pandas", "xarray", "zarr", "matplotlib", "jupyter-book", "papermill", "nbval", "dask")
NOT_HERE, AUDIT = "not run here", "audit_max_error"
TIMES, CHECKS = "times.json", "checks.json"  # in book/_generated, which git ignores
Row = dict[str, str]


def tables(book: Path) -> dict[str, Callable[[], str]]:
    """What makes each table of the page (Markdown), by the name of its file."""
    rows = {"versions": versions(), "models": models(), "texts": texts(), "parts": parts()}
    rows |= {"measurements": measurements(book), "times": times(book)}
    return {f"status-{name}.md": partial(markdown, some) for name, some in rows.items()}


def markdown(rows: Iterable[Row]) -> str:
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def kept(book: Path, name: str) -> dict[str, Any]:
    """What an earlier command noted for this page; empty where it did not run here."""
    file = book / "_generated" / name
    return json.loads(file.read_text()) if file.is_file() else {}


def note(book: Path, name: str, found: dict[str, Any]) -> None:
    """Note what was found, beside what is noted already; where that can be written."""
    with suppress(OSError):
        (book / "_generated").mkdir(exist_ok=True)
        (book / "_generated" / name).write_text(json.dumps(kept(book, name) | found, indent=1))


def versions() -> Iterator[Row]:
    yield {"package": "Python", "version": platform.python_version()}
    yield from ({"package": name, "version": version(name)} for name in PACKAGES)


def models() -> Iterator[Row]:
    """What identifies the files of every shipped model, as its measurement names them."""
    for record in (Folder(SHIPPED / path.name) for path in sorted(MODELS.iterdir())):
        if record.there:
            of = record.record()["settings"]
            seals = {"files": of["model_sha256"], "token counts": of["counts_sha256"]}
            yield {"model": record.path.name, **{n: digits(seal) for n, seal in seals.items()}}


def texts() -> Iterator[Row]:
    """Texts and their parts, from their records."""
    for file in sorted((DATA / "corpus").glob("*.json")):
        record = json.loads(file.read_text())
        for name, part in record.get("parts", {"": record}).items():
            sizes = {size: f"{part[size]:,}" for size in ("documents", "characters")}
            yield {"text": f"{file.stem} {name}", **sizes, "sha256": digits(part["sha256"])}


def measurements(book: Path) -> Iterator[Row]:
    """One row a measurement: its audit, its seals, its check, what it was made with."""
    checks = kept(book, CHECKS)
    for folder in (Folder(path) for path in sorted(SHIPPED.glob("*/"))):
        record, name = folder.record(), folder.path.name
        entries = {part: one for part, one in record["parts"].items() if "made" in one}
        made = [entry["made"] for entry in entries.values()]
        errors = [error for part in entries for error in audits(folder.path / file_name(part))]
        yield {
            "measurement": name,
            "key": digits(record["key"]),
            "files": "as written" if sealed(folder, entries) else "**changed**",
            "audit, nats": f"{max(errors):.0e}" if errors else "not kept",
            "measured again": checks.get(name, NOT_HERE),
            "made on": "; ".join(sorted({f"{one['processor']}, {one['device']}" for one in made})),
            "minutes": f"{sum(one['seconds'] for one in made) / 60:.1f}",
        }


def sealed(folder: Folder, entries: dict[str, Any]) -> bool:
    """Whether every file of a measurement is the one that was written."""
    files = {folder.path / file_name(name): one["sha256"] for name, one in entries.items()}
    return all(file.is_file() and file_sha256(file) == seal for file, seal in files.items())


def audits(file: Path) -> Iterator[float]:
    """The error that a part's own audit found, if it had one; nothing else of the part is read."""
    if file.is_file():
        with zarr.storage.ZipStore(file, mode="r") as store:
            group = zarr.open_group(store, mode="r")
            held = {AUDIT: group[AUDIT][()]} if AUDIT in group else dict(group.attrs)
            yield from (float(error) for name, error in held.items() if name == AUDIT)


def parts() -> Iterator[Row]:
    """What each part of the first model's measurement took."""
    for name, entry in Folder(SHIPPED / LEAD).record()["parts"].items():
        if "made" in entry:
            size, seconds = f"{entry['bytes'] / 1e6:.2f}", f"{entry['made']['seconds']:,.0f}"
            yield {"part": name, "sha256": digits(entry["sha256"]), "MB": size, "seconds": seconds}


def times(book: Path) -> Iterator[Row]:
    """Seconds each page took when it was last run here."""
    found = kept(book, TIMES)
    for page in executed_pages(book):
        yield {"page": f"{{doc}}`{page.stem}`", "seconds": str(found.get(page.stem, NOT_HERE))}


def digits(text: str) -> str:
    """The first digits of a hash: enough to compare."""
    return f"`{text[:16]}`"
