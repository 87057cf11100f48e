"""Executed pages that hold nothing but records, for the tests of what reads them."""

from pathlib import Path
from typing import Any

import nbformat
from IPython.lib.pretty import pretty

from raretok.ledger.claims import Evidence, paper_claims
from raretok.ledger.verdicts import as_records
from raretok.text.protocol import PROTOCOLS


def evidence(claim: str, protocol: str = "corrected", **found) -> Evidence:
    """Evidence of an effect that is seen, with an untrained model that does not show it."""
    default = {"value": 1.0, "interval": (0.8, 1.2), "p": 0.001, "null_world_p": 0.5, "power": 0.9}
    return Evidence(claim=claim, protocol=protocol, **{"null": "a null", **default, **found})


def glued(name: str, value: Any) -> nbformat.NotebookNode:
    """The output that `myst_nb.glue` leaves in a page."""
    record = {"application/papermill.record/text/plain": pretty(value)}
    metadata = {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}}
    return nbformat.v4.new_output("display_data", record, metadata=metadata)


def write_page(
    folder: Path,
    stem: str,
    found: list[Evidence] | None = None,
    given: dict[str, Any] | None = None,
    **kept: Any,
) -> Path:
    """An executed page with parameters, claims and glued values, as papermill would leave it."""
    cells = [nbformat.v4.new_code_cell("model = 'docs-gpt2'  # a name\nseed = 0")]
    cells[0].metadata.tags = ["parameters"]
    if given:
        lines = "\n".join(f"{name} = {value!r}" for name, value in given.items())
        cells.append(nbformat.v4.new_code_cell(f"# Parameters\n{lines}"))
        cells[1].metadata.tags = ["injected-parameters"]
    outputs = [nbformat.v4.new_output("stream", text="an ordinary line\n")]
    outputs += [glued(name, value) for name, value in kept.items()]
    if found is not None:
        outputs.append(glued("claims", as_records(found)))
    cells.append(nbformat.v4.new_code_cell("...", outputs=outputs))
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{stem}.ipynb")
    return folder / f"{stem}.ipynb"


def write_book(folder: Path, changed: dict[tuple[str, str], dict] | None = None, **kept) -> Path:
    """All pages that claims belong to: every effect seen, but for what is `changed`."""
    changed = changed or {}
    for page in dict.fromkeys(claim.page for claim in paper_claims().values()):
        found = [
            evidence(
                claim.id, protocol, **{"smallest": 0.05, **changed.get((claim.id, protocol), {})}
            )
            for claim in paper_claims().values()
            for protocol in PROTOCOLS
            if claim.page == page
        ]
        write_page(folder, page, found, **(kept if page == "01_regimes" else {}))
    return folder
