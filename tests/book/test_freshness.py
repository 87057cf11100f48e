"""Every page of the book is its source, run whole, and holds nothing of the machine it ran on."""

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

from raretok.book import pages
from raretok.claims.digest import DIGEST_START

ROOT = Path(__file__).parents[2]
SOURCES = pages.pages(ROOT)
EXECUTED = sorted((ROOT / "book").glob("*.ipynb"))
# A path, the process of a warning, a clock time, an address in memory.
MACHINE = re.compile(r"/(?:home|root|tmp|Users|opt)/\w|ipykernel_\d|\d\d:\d\d:\d\d|0x[0-9a-f]{8}")
PICTURES = ("image/png", "image/svg+xml")


def executed(stem: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "book" / f"{stem}.ipynb", as_version=4)


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def shape(cells: list[nbformat.NotebookNode]) -> list[tuple]:
    """What a source decides of its cells: kind, text, and the metadata that carry captions."""
    layout = ("tags", "lines_to_next_cell")  # an empty list, and blank lines: no matter
    return [
        (cell.cell_type, cell.source, tags(cell), {**cell.metadata, **dict.fromkeys(layout)})
        for cell in cells
    ]


def test_pages_and_sources_are_the_same_set():
    assert [page.stem for page in SOURCES] == [page.stem for page in EXECUTED]


@pytest.mark.parametrize("source", SOURCES, ids=lambda page: page.stem)
def test_an_executed_page_is_its_source(source):
    cells = executed(source.stem).cells
    cells = [cell for cell in cells if "injected-parameters" not in tags(cell)]
    stale = f"{source.name} was edited after its last run: run `make book`"
    assert shape(cells) == shape(pages.with_parameters(jupytext.read(source)).cells), stale


@pytest.mark.parametrize("source", SOURCES, ids=lambda page: page.stem)
def test_every_cell_has_run_and_speaks_of_no_machine(source):
    code = [cell for cell in executed(source.stem).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for output in (output for cell in code for output in cell.outputs):
        assert output.get("name") != "stderr", output.text
        told = output.get("text", "") + str(output.get("data", {}) | dict.fromkeys(PICTURES, ""))
        assert not MACHINE.search(told), MACHINE.search(told)


@pytest.mark.parametrize("source", SOURCES, ids=lambda page: page.stem)
def test_every_figure_stands_beside_its_digest(source):
    """A moved point may hide in a picture; the digest shows it (raretok/claims/digest.py)."""
    outputs = [one for cell in executed(source.stem).cells for one in cell.get("outputs", [])]
    shown = [one.data for one in outputs if {*PICTURES} & {*one.get("data", {})}]
    assert all({*data} == {*PICTURES, "text/plain"} for data in shown)
    assert all(data["text/plain"].startswith(DIGEST_START) for data in shown)
