"""What executed pages recorded, and the ledger of a whole book made from it."""

import ast
import json
import os
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbformat import NotebookNode

from raretok.errors import UserError
from raretok.ledger.claims import Claim, Evidence, paper_claims
from raretok.ledger.verdicts import Verdict, deciding_rule, plain, verdict
from raretok.stats.documents import benjamini_hochberg
from raretok.text.protocol import PROTOCOLS

FOLDER = "RARETOK_PAGES"  # environment variable: where the run in progress writes its pages
RECORD = "application/papermill.record/text/plain"
NOT_RUN = "not run"
READERS = ("ledger", "reviews")  # pages that read what the others recorded


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


def recorded(folder: Path) -> list["PageRecord"]:
    """What the executed pages in a folder recorded, but for those that only read it."""
    return [read_page(page) for page in executed_pages(folder) if title(page.stem) not in READERS]


@dataclass(frozen=True)
class PageRecord:
    """What an executed page holds for others to read."""

    page: Path
    parameters: dict[str, Any]  # its own, with those it was given
    glued: dict[str, Any]  # by name, as far as it is plain: text, numbers, lists, dicts

    @property
    def claims(self) -> list[Evidence]:
        """The evidence it recorded as `glue("claims", as_records(...))`; none is no error.

        Raises `UserError` for a record that cannot be read and for a claim the paper does not make.
        """
        records = self.glued.get("claims", [])
        if not all(isinstance(record, dict) for record in records):
            raise UserError(f"{self.page.name} keeps something else than records as `claims`")
        return [evidence_of(record, self.page.name) for record in records]


def read_page(page: Path) -> PageRecord:
    """Read an executed page. Raises `UserError` for a file that is no notebook."""
    try:
        cells = nbformat.read(page, as_version=4).cells
    except Exception as error:  # nbformat raises many kinds
        raise UserError(
            f"{page.name} is no executed page ({type(error).__name__}): run it again"
        ) from None
    parameters, glued = {}, {}
    for cell in cells:
        if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
            parameters |= assigned(cell.source)
        for output in cell.get("outputs", []):
            glued |= glued_value(output)
    return PageRecord(page, parameters, glued)


def read_claims(page: Path) -> list[Evidence]:
    """The evidence that an executed page recorded."""
    return read_page(page).claims


def glued_value(output: NotebookNode) -> dict[str, Any]:
    """Name and value of what a cell glued; nothing for a figure, a table, an ordinary output."""
    name = output.get("metadata", {}).get("scrapbook", {}).get("name")
    try:
        return {name: ast.literal_eval(output["data"][RECORD])}
    except (KeyError, ValueError, SyntaxError):
        return {}


def assigned(source: str) -> dict[str, Any]:
    """Names and values of a cell of plain assignments."""
    return {
        line.targets[0].id: ast.literal_eval(line.value)
        for line in ast.parse(source).body
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    }


def evidence_of(record: dict[str, Any], page: str) -> Evidence:
    """One record as evidence; names it does not know, such as the page's verdict, are left out."""
    known = {field.name for field in fields(Evidence)} & set(record)
    values = {name: record[name] for name in known}
    try:
        if isinstance(values.get("interval"), list):
            values["interval"] = tuple(values["interval"])
        found = Evidence(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{page} has a record that cannot be read: {error}") from None
    if found.claim not in paper_claims() or found.protocol not in PROTOCOLS:
        raise UserError(
            f"{page} records claim {found.claim!r} under protocol {found.protocol!r}: "
            "data/paper.yaml or raretok/protocol.py does not have it"
        )
    return found


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: a claim under a protocol, in the light of all tests of the book."""

    claim: Claim
    protocol: str
    page: str  # where it is, or would be, shown
    model: str = ""
    found: Evidence | None = None  # None: its page has not been run
    p_adjusted: float | None = None  # Benjamini-Hochberg, over all tests of the book

    @property
    def verdict(self) -> Verdict | str:
        """The verdict after the correction, or that there is none."""
        return verdict(self.found, self.p_adjusted) if self.found else NOT_RUN

    @property
    def verdict_on_page(self) -> Verdict | str:
        """The verdict that the page alone would give."""
        return verdict(self.found) if self.found else NOT_RUN

    @property
    def changed(self) -> bool:
        """The correction for the number of tests changed the verdict."""
        return self.verdict != self.verdict_on_page

    @property
    def why(self) -> str:
        """The reason the page gives, else the case that decided."""
        if self.found is None:
            return f"no executed page records it; it belongs on {self.page}"
        return self.found.reason or deciding_rule(self.found, self.p_adjusted).when

    def record(self) -> dict[str, Any]:
        """The line as plain values for machines; what is missing is None."""
        found, claim = self.found, self.claim
        return {
            "claim": claim.id,
            "model": self.model or None,
            "protocol": self.protocol,
            "published": claim.published,
            "value": found and found.value,
            "interval": list(found.interval) if found and found.interval else None,
            "null": found and found.null,
            "p": found and found.p,
            "p_adjusted": self.p_adjusted,
            "power": found and found.power,
            "verdict": self.verdict,
            "figure": found.figure if found else "",
            "run": found.run if found else "",
            "smallest": found and found.smallest,
            "reason": self.why,
            "statement": claim.statement,
            "page": self.page,
            "null_world_p": found and found.null_world_p,
            "verdict_on_page": self.verdict_on_page,
        }


def book_ledger(book: Path) -> list[Entry]:
    """Every claim of the paper under every protocol, from the executed pages in a folder.

    Raises `UserError` where two records speak of one claim under one protocol.
    """
    found: dict[tuple[str, str], tuple[PageRecord, Evidence]] = {}
    for page in recorded(book):
        for one in page.claims:
            other, first = found.setdefault((one.claim, one.protocol), (page, one))
            if first is not one:
                places = " and ".join(sorted({other.page.name, page.page.name}))
                raise UserError(f"{one.claim}, protocol {one.protocol}: two records in {places}")
    adjusted = adjusted_p({key: one.p for key, (_, one) in found.items()})
    entries = []
    for key in product(paper_claims(), PROTOCOLS):
        claim = paper_claims()[key[0]]
        entry = Entry(claim, key[1], claim.page)
        if key in found:
            page, one = found[key]
            model = str(page.parameters.get("model", ""))
            entry = Entry(claim, key[1], page.page.stem, model, one, adjusted.get(key))
        entries.append(entry)
    return entries


def adjusted_p(p: dict[tuple[str, str], float | None]) -> dict[tuple[str, str], float]:
    """p-values adjusted over all that there are; a missing one is no test and is left out."""
    tested = {key: value for key, value in p.items() if value is not None}
    if not tested:
        return {}
    adjusted = benjamini_hochberg(np.array(list(tested.values())))
    return {key: plain(float(value)) for key, value in zip(tested, adjusted, strict=True)}


def ledger_json(entries: list[Entry]) -> str:
    """The ledger as JSON, a list of objects; equal entries give equal text."""
    records = [entry.record() for entry in entries]
    return json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def unequal_settings(book: Path) -> list[str]:
    """Parameters in which the pages that record claims were not run alike."""
    pages = [page for page in recorded(book) if page.claims]
    names = dict.fromkeys(name for page in pages for name in page.parameters)
    return [n for n in names if len({repr(page.parameters.get(n)) for page in pages}) > 1]
