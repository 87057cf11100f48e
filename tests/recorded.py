"""Executed pages that hold nothing but records, for the tests of what reads them."""

from pathlib import Path
from typing import Any

import nbformat
from IPython.lib.pretty import pretty

from raretok.claims.finding import Finding
from raretok.ledger.claims import AT_LEAST, AT_MOST, claims
from raretok.ledger.records import as_records
from raretok.stats.jackknife import Estimate

OPEN = dict.fromkeys(AT_LEAST, 1e6) | dict.fromkeys(AT_MOST, 0.0)  # every gate holds
PAGES = (
    *("01_regimes", "02_coordination", "03_modularity", "04_attention", "05_spectra"),
    *("11_replication", "12_dynamics", "13_thresholds", "14_layers", "15_domains"),
)


def finding(claim: str, estimand: str = "", reading: str = "corrected", **changed: Any) -> Finding:
    """A finding whose interval supports its claim and whose gates all hold."""
    spec = claims()[claim]
    name = estimand or spec.primary
    low, high = (spec.estimands[name].supports or [(0.0, 2.0)])[0]
    middle = (high - 1 if low is None else low + 1) if None in (low, high) else (low + high) / 2
    values = {
        "estimate": Estimate(middle, middle - 0.001, middle + 0.001),
        "gates": OPEN,
        "model": "docs-gpt2",
        "measurement": "docs-gpt2/3f2a",
    }
    return Finding(claim, name, reading, **{**values, **changed})


def glued(name: str, value: Any) -> nbformat.NotebookNode:
    """The output that `myst_nb.glue` leaves in a page."""
    record = {"application/papermill.record/text/plain": pretty(value)}
    metadata = {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}}
    return nbformat.v4.new_output("display_data", record, metadata=metadata)


def write_page(
    folder: Path,
    stem: str,
    found: list[Finding] | None = None,
    given: dict[str, Any] | None = None,
    **kept: Any,
) -> Path:
    """An executed page with parameters, findings and glued values, as papermill would leave it."""
    cells = [nbformat.v4.new_code_cell("model = 'docs-gpt2'  # a name\nseed = 0")]
    cells[0].metadata.tags = ["parameters"]
    if given:
        lines = "\n".join(f"{name} = {value!r}" for name, value in given.items())
        cells.append(nbformat.v4.new_code_cell(f"# Parameters\n{lines}"))
        cells[1].metadata.tags = ["injected-parameters"]
    outputs = [nbformat.v4.new_output("stream", text="an ordinary line\n")]
    outputs += [glued(name, value) for name, value in kept.items()]
    if found is not None:
        outputs.append(glued("findings", as_records(found)))
    cells.append(nbformat.v4.new_code_cell("...", outputs=outputs))
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{stem}.ipynb")
    return folder / f"{stem}.ipynb"


def write_book(
    folder: Path,
    changed: dict[tuple[str, str], dict] | None = None,
    glued: dict[str, dict[str, Any]] | None = None,
) -> Path:
    """Pages of claims, and those that glue: every claim supported, but for what is `changed`."""
    kept = glued or {}
    for stem in (*PAGES, *(other for other in kept if other not in PAGES)):
        found = [
            finding(name, estimand, reading, **(changed or {}).get((name, reading), {}))
            for name, claim in claims().items()
            for estimand in claim.estimands
            for reading in claim.readings
            if claim.page == stem[3:]
        ]
        write_page(folder, stem, found, **kept.get(stem, {}))
    return folder
