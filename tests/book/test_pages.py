"""The chain on a throw-away page: run, run again, fail, refuse; and what nbval sees of a change."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from raretok.book import pages
from raretok.errors import UserError

ROOT = Path(__file__).parents[2]

TOY = """\
# %% [markdown]
# # A toy page

# %% tags=["parameters"]
# Filled in as on every page.

# %%
import numpy as np
import matplotlib.pyplot as plt
from raretok.claims.digest import digest

x = np.arange(1, 101)
y = 0.3 / x
y[50] *= group_percent  # 1 unless it is given
print(f"sum {y.sum():.4f}")

# %%
fig, ax = plt.subplots()
_ = ax.loglog(x, y, label="toy")

# %% tags=["remove-cell"]
print(digest(fig))
"""


def write_page(folder: Path, text: str, name: str = "01_toy") -> Path:
    page = folder / "notebooks" / f"{name}.py"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text)
    return page


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """A toy book whose one page has been run into `book/`."""
    folder = tmp_path_factory.mktemp("toy")
    pages.run_page(write_page(folder, TOY), folder / "book" / "01_toy.ipynb", {})
    return folder


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def test_a_page_is_named_three_ways(toy):
    page = toy / "notebooks" / "01_toy.py"
    assert pages.pages(toy) == [page]
    assert {pages.page_named(toy, name) for name in ("01_toy", "toy", "1")} == {page}
    with pytest.raises(UserError, match="no page 'tyo'; the pages are: 01_toy"):
        pages.page_named(toy, "tyo")


def test_a_second_run_writes_the_same_bytes_and_nothing_of_the_machine(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    first = (toy / "book" / "01_toy.ipynb").read_bytes()
    again = pages.run_page(toy / "notebooks" / "01_toy.py", tmp_path / "again.ipynb", {})
    assert again.read_bytes() == first
    assert b"image/png" in first
    for trace in (str(toy), str(Path.home()), sys.prefix, "papermill", "iopub", "T00:", "T1"):
        assert json.dumps(trace)[1:-1].encode() not in re.sub(rb'"image/png": "[^"]*"', b"", first)


def test_nbval_sees_a_changed_number_and_a_moved_point(toy, tmp_path):
    source, stored = toy / "notebooks" / "01_toy.py", (toy / "book" / "01_toy.ipynb").read_text()
    with_moved = pages.run_page(source, tmp_path / "run" / "moved.ipynb", {"group_percent": 1.2})
    injected = [c for c in nbformat.read(with_moved, 4).cells if "injected-parameters" in tags(c)]
    assert "group_percent = 1.2" in injected[0].source

    (tmp_path / "same.ipynb").write_text(stored)
    number = re.search(r"sum (\d\.\d+)", stored)[1]
    planted = f"{1.02 * float(number):.4f}"
    changed = nbformat.reads(stored.replace(f"sum {number}", f"sum {planted}"), 4)
    after = nbformat.read(with_moved, 4).cells
    for cell, other in zip(changed.cells[-2:], after[-2:], strict=True):
        cell.outputs = other.outputs
    nbformat.write(changed, tmp_path / "changed.ipynb")

    lines = nbval(tmp_path, "same.ipynb", "changed.ipynb")
    assert re.search(r"same.ipynb \.{4} ", lines)
    assert re.search(r"changed.ipynb \.F[F.]F ", lines)
    assert "line 'toy': 1 of 200 values moved" in lines


def nbval(folder: Path, *notebooks: str) -> str:
    shutil.copy(ROOT / "conftest.py", folder)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    command += ["--color=no", "--nbval", "--nbval-current-env", *notebooks]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


READER = """\
# %%
import os
from pathlib import Path

sorted(page.name for page in Path(os.environ["RARETOK_PAGES"]).glob("*.ipynb"))
"""


def test_pages_that_read_the_others_run_last_and_read_the_folder_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("RARETOK_PAGES", "elsewhere")
    sources = [
        write_page(tmp_path, text, name)
        for name, text in {"07_ledger": READER, "01_toy": "# %%\n1", "09_toy": "# %%\n1"}.items()
    ]
    done: list[Path] = []
    took: dict[str, float] = {}
    pages.run_pages(sources, tmp_path / "mine", {}, done.append, took=took)
    assert set(took) == {"01_toy", "07_ledger", "09_toy"}
    assert min(took.values()) > 0
    names = ["01_toy.ipynb", "09_toy.ipynb", "07_ledger.ipynb", "ledger.json"]
    assert done == [tmp_path / "mine" / name for name in names]
    read = nbformat.read(done[2], 4).cells[0].outputs[0].data["text/plain"]
    assert read == "['01_toy.ipynb', '09_toy.ipynb']"
    assert json.loads(done[3].read_text()) == []  # no page with a claim was run
    assert os.environ["RARETOK_PAGES"] == "elsewhere"


def test_without_a_page_that_reads_the_others_no_ledger_is_written(tmp_path, capsys):
    pages.run_pages([write_page(tmp_path, "# %%\n1")], tmp_path / "mine", {})
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["01_toy.ipynb"]
    assert capsys.readouterr().out == f"{tmp_path / 'mine' / '01_toy.ipynb'}\n"


def test_a_failing_cell_is_one_line_and_leaves_the_old_page(tmp_path):
    page = write_page(tmp_path, "# %%\n1 + 1\n\n# %%\n{}['rare']\n")
    out = tmp_path / "runs" / "toy" / "01_toy.ipynb"
    out.parent.mkdir(parents=True)
    out.write_text("the old page")
    with pytest.raises(UserError, match=r"^page 01_toy stopped in cell 2: KeyError: 'rare'$"):
        pages.run_page(page, out, {})
    assert out.read_text() == "the old page"
    failed = out.with_name("01_toy.failed.ipynb")
    assert sorted(out.parent.iterdir()) == sorted([out, failed])
    assert "KeyError" in failed.read_text()


def test_the_last_line_of_an_error_speaks_for_the_page():
    def stop(ename: str, evalue: str) -> pages.PapermillExecutionError:
        return pages.PapermillExecutionError(3, 2, "", ename, evalue, [])

    assert pages.reason(stop("UserError", "no rare position is left")) == "no rare position is left"
    assert pages.reason(stop("RuntimeError", "a\nb")) == "RuntimeError: b"
    assert pages.reason(stop("AssertionError", "")) == "AssertionError"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sede": 1}, "unknown parameter 'sede': a page takes model, "),
        ({"seed": (1, 2)}, "parameter seed: input should be a valid integer, got (1, 2)"),
    ],
)
def test_parameters_are_checked_before_anything_runs(tmp_path, parameters, message):
    page = write_page(tmp_path, TOY)
    with pytest.raises(UserError, match=re.escape(message)):
        pages.run_page(page, tmp_path / "out.ipynb", parameters)
    assert not (tmp_path / "out.ipynb").exists()


def test_the_complaints_of_a_build_name_the_place_without_the_machine(tmp_path):
    log = f"reading\n\x1b[91m{tmp_path}/book/intro.md:3: WARNING: unknown document: 'x'\x1b[39m\n"
    assert pages.complaints(log, tmp_path) == ["book/intro.md:3: WARNING: unknown document: 'x'"]
    assert pages.complaints("no space left", tmp_path) == ["no space left"]


def test_a_file_that_a_page_was_given_is_named_without_its_folder():
    notebook = nbformat.v4.new_notebook()
    source = 'corpus = "/somewhere/on my/machine/texts.jsonl"\nmodel = "owner/name"\nseed = 1'
    notebook.cells = [nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})]
    kept = pages.stable(notebook).cells[0].source
    assert kept == 'corpus = "texts.jsonl"\nmodel = "owner/name"\nseed = 1'
