"""What executed pages recorded, and the ledger of a whole book made from it."""

import ast
import json
import os
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from raretok.claims.finding import Finding
from raretok.errors import UserError
from raretok.ledger.verdicts import Entry, estimands, judged, plain
from raretok.stats.jackknife import Estimate
from raretok.text.protocol import PROTOCOLS

FOLDER = "RARETOK_PAGES"  # environment variable: where the run in progress writes its pages
RECORD = "application/papermill.record/text/plain"
READERS = ("replication", "ledger", "reviews")  # read what the others recorded, in this order
OWN = READERS[1:]  # those that record nothing of their own


def pages_folder() -> Path:
    """The folder whose executed pages a page reads: of its own run, else its own (`book/`)."""
    return Path(os.environ.get(FOLDER, "."))


def executed_pages(folder: Path) -> list[Path]:
    """The executed pages in a folder, in reading order."""
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    return [page for page in found if not page.stem.endswith(".failed")]


def title(page: str) -> str:
    """A page's name as readers know it: "regimes" for "01_regimes"."""
    return page.split("_", 1)[-1]


def stems(folder: Path) -> dict[str, str]:
    """Names of the files of the executed pages in a folder, by the names that readers know."""
    return {title(page.stem): page.stem for page in executed_pages(folder)}


def recorded(folder: Path) -> list["PageRecord"]:
    """What the executed pages in a folder recorded, but for those that only read it."""
    return [read_page(page) for page in executed_pages(folder) if title(page.stem) not in OWN]


@dataclass(frozen=True)
class PageRecord:
    """What an executed page holds for others to read."""

    page: Path
    glued: dict[str, Any]  # by name, as far as it is plain: text, numbers, lists, dicts

    def findings(self, name: str = "findings") -> list[Finding]:
        """What it recorded as `glue(name, as_records(...))`; none is no error.

        Raises `UserError` for a record that cannot be read and for a claim that there is not.
        """
        records = self.glued.get(name, [])
        if not all(isinstance(record, dict) for record in records):
            raise UserError(f"{self.page.name} keeps something else than records as `{name}`")
        return [finding_of(record, self.page.name) for record in records]


def read_page(page: Path) -> PageRecord:
    """Read an executed page. Raises `UserError` for a file that is no notebook."""
    try:
        cells = nbformat.read(page, as_version=4).cells
    except Exception as error:  # nbformat raises many kinds
        raise UserError(
            f"{page.name} is no executed page ({type(error).__name__}): run it again"
        ) from None
    glued: dict[str, Any] = {}
    for output in (one for cell in cells for one in cell.get("outputs", [])):
        glued |= glued_value(output)
    return PageRecord(page, glued)


def glued_value(output: NotebookNode) -> dict[str, Any]:
    """Name and value of what a cell glued; nothing for a figure, a table, an ordinary output."""
    name = output.get("metadata", {}).get("scrapbook", {}).get("name")
    try:
        return {name: ast.literal_eval(output["data"][RECORD])}
    except (KeyError, ValueError, SyntaxError):
        return {}


def as_records(findings: list[Finding]) -> list[dict[str, Any]]:
    """Findings as plain values, for a page to keep."""
    return [
        vars(one)
        | {
            "estimate": one.estimate and list(map(plain, astuple(one.estimate))),
            "gates": {name: plain(gate) for name, gate in one.gates.items()},
            "controls": one.controls and list(map(plain, one.controls)),
        }
        for one in findings
    ]


def finding_of(record: dict[str, Any], page: str) -> Finding:
    """One record as a finding. Raises `UserError` for one that cannot be read."""
    try:
        values = dict(record)
        if values["estimate"] is not None:
            values["estimate"] = Estimate(*values["estimate"])
        if values["controls"] is not None:
            values["controls"] = tuple(values["controls"])
        found = Finding(**values)
    except (TypeError, KeyError) as error:
        raise UserError(f"{page} has a record that cannot be read: {error}") from None
    if (found.claim, found.estimand) not in estimands() or found.reading not in PROTOCOLS:
        raise UserError(
            f"{page} records {found.claim!r}, {found.estimand!r} under {found.reading!r}: "
            "data/claims.yaml or raretok/text/protocol.py does not have it"
        )
    return found


def book_ledger(book: Path) -> list[Entry]:
    """Every line of the ledger, from the executed pages in a folder.

    A claim whose page was not run has no line. Raises `UserError` where two records speak of one
    estimand under one reading.
    """
    places: dict[tuple[str, str, str, str], list[str]] = {}
    found = [(one, page.page.name) for page in recorded(book) for one in page.findings()]
    for one, name in found:
        places.setdefault((one.model, *one.key), []).append(name)
    for key, names in places.items():
        if len(names) > 1:
            raise UserError(f"{' '.join(key[1:])}: two records in {' and '.join(sorted({*names}))}")
    return judged(one for one, _ in found)


def replicates(folder: Path) -> list[Finding]:
    """What pages recorded of other models than their own."""
    return [one for page in recorded(folder) for one in page.findings("replicates")]


def ledger_json(folder: Path) -> str:
    """The ledger of the pages in a folder as a JSON list; equal pages give equal text.

    First the lines of the model that the pages show, then those of the others.
    """
    entries = [*book_ledger(folder), *judged(replicates(folder))]
    records = [entry.record() for entry in entries]
    return json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
