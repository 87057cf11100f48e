"""Runs the pages (jupytext -> papermill -> byte-stable .ipynb) and builds the site."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from joblib import Parallel, delayed
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from raretok.book import site
from raretok.book.cards import write_cards
from raretok.book.figcheck import SVG, same_page
from raretok.claims.study import Study
from raretok.errors import UserError
from raretok.ledger.records import (
    FOLDER,
    READERS,
    book_ledger,
    executed_pages,
    ledger_json,
    title,
)
from raretok.measure.find import WHOLE
from raretok.measure.parameters import parameter_cell, validated
from raretok.paths import RUNS_GIVEN, one_line, replacing

METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}
LONGEST = ("coordination",)  # begun first where pages run side by side


class PageKernel(AsyncKernelManager):
    """A kernel of the running interpreter, whatever kernels the machine has installed."""

    transport_encryption = "auto"  # else ipykernel writes a warning to the terminal

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        # It is interrupted to end it, which is no error to tell a reader of.
        return super().format_kernel_cmd([*(extra_arguments or []), "--IPKernelApp.log_level=50"])

    @default("kernel_spec_manager")
    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def pages(root: Path) -> list[Path]:
    """The page sources of the book at `root`, in reading order."""
    return sorted((root / "notebooks").glob("[0-9][0-9]_*.py"))


def run_pages(
    sources: list[Path],
    folder: Path,
    parameters: dict[str, Any],
    done: Callable = print,
    jobs: int = 1,
    took: dict[str, float] | None = None,
) -> list[UserError]:
    """Run pages into a folder, call `done` with each file, and with the ledger where it is due.

    `jobs` pages run at a time, each in a process of its own with its share of the cores. Pages that
    read the records of the others run after them, and `ledger.json` is written beside them. A page
    that stops is one of the errors returned; the others run. `took` gets each page's seconds.
    """
    by_title = {title(source.stem): source for source in sources}
    last = [by_title[name] for name in READERS if name in by_title]
    first, failures = sorted({*sources} - {*last}), []
    together = run_together(first, folder, parameters, jobs)
    for finished, seconds in chain(together, run_together(last, folder, parameters, 1)):
        if isinstance(finished, UserError):
            failures.append(finished)
            continue
        if took is not None:
            took[finished.stem] = round(seconds, 1)
        done(finished)
    if last:
        write_whole(ledger := folder / "ledger.json", ledger_json(folder))
        done(ledger)
    return failures


def run_together(
    sources: list[Path], folder: Path, parameters: dict[str, Any], jobs: int
) -> Iterator[tuple[Path | UserError, float]]:
    """The executed pages as they are done, of those that stop why, and the seconds of each."""
    if jobs > 1:
        sources = sorted(sources, key=lambda source: title(source.stem) not in LONGEST)
    # Processes, not threads: papermill changes the working directory. Each has its share of cores.
    run = Parallel(min(jobs, len(sources)) or 1, return_as="generator_unordered")
    return run(delayed(attempted)(source, folder, parameters) for source in sources)


def attempted(
    source: Path, folder: Path, parameters: dict[str, Any]
) -> tuple[Path | UserError, float]:
    """The executed page, or why it stopped, and the seconds it took."""
    begun = time.monotonic()
    try:
        found: Path | UserError = run_page(source, folder / f"{source.stem}.ipynb", parameters)
    except UserError as error:
        found = error
    return found, time.monotonic() - begun


def page_named(root: Path, name: str) -> Path:
    """The page called `name`: "01_regimes", "regimes" or "1"."""
    for page in pages(root):
        number, title = page.stem.split("_", 1)
        if name in (page.stem, title, number, number.lstrip("0")):
            return page
    known = ", ".join(page.stem for page in pages(root)) or "none"
    raise UserError(f"there is no page {name!r}; the pages are: {known}")


def run_page(source: Path, out: Path, parameters: dict[str, Any]) -> Path:
    """Run the page `source` with `parameters` and write the executed notebook to `out`.

    The page runs in the folder `book/` beside its own, where nbval runs it too. `out` is replaced
    only when every cell has run and something is new: a page whose numbers differ by another
    processor's rounding alone (figcheck.same_page) stays as it is.
    Raises `UserError` for parameters the page does not have and for a cell that fails; under a
    folder `runs/` the failed notebook is then kept beside `out` as NAME.failed.ipynb.
    """
    notebook = with_parameters(jupytext.read(source))
    if not any("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells):
        parameters = {}  # such a page reads what others recorded
    notebook.metadata.update(METADATA)
    validated(parameters)  # papermill would let a name pass that the page does not have
    failed = out.with_suffix(".failed.ipynb")
    with one_line(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "draft.ipynb"
        try:
            with kernel_environment(out.parent):
                book = source.parents[1] / "book"
                execute(notebook, draft, parameters, cwd=book, name=source.stem)
        except UserError:
            if draft.exists() and "runs" in out.resolve().parts:
                failed.parent.mkdir(parents=True, exist_ok=True)
                write_whole(failed, draft.read_text())
            raise
        executed = nbformat.read(draft, as_version=4)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        page = stable(executed)
        if not unchanged(out, page):
            write_whole(out, nbformat.writes(page))
    except OSError as error:
        raise UserError(f"cannot write to {out.parent}: {error.strerror}") from None
    failed.unlink(missing_ok=True)
    return out


def with_parameters(notebook: NotebookNode) -> NotebookNode:
    """The page with its parameters cell filled in: one source for all pages."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = parameter_cell()
    return notebook


def unchanged(out: Path, page: NotebookNode) -> bool:
    """Whether a page is the one that is there."""
    if not out.is_file():
        return False
    try:
        return same_page(nbformat.read(out, as_version=4), page)
    except Exception:  # nbformat raises many kinds: what is no page is replaced
        return False


def pages_changed(root: Path) -> list[str]:
    """Run every page beside the book, and say which differ from those that are in it."""
    with tempfile.TemporaryDirectory() as folder:
        sources, said = pages(root), []
        for error in run_pages(sources, Path(folder), {}, done=lambda page: None, jobs=2):
            raise error
        for source in sources:
            name = f"{source.stem}.ipynb"
            page = nbformat.read(Path(folder) / name, as_version=4)
            same = unchanged(root / "book" / name, page)
            said.append(f"{source.stem}: {'as it was' if same else 'changes: run make book'}")
        return said


def execute(
    notebook: NotebookNode, draft: Path, parameters: dict[str, Any], *, cwd: Path, name: str
) -> None:
    """Run all cells and write the notebook to `draft`, also when a cell fails (`UserError`)."""
    cwd.mkdir(exist_ok=True)
    try:
        papermill.execute_notebook(
            notebook,
            draft,
            parameters,
            cwd=cwd,
            kernel_manager_class=PageKernel,
            progress_bar={"desc": name, "file": sys.stderr, "disable": None},
        )
    except PapermillExecutionError as error:
        cell = error.exec_count
        raise UserError(f"page {name} stopped in cell {cell}: {reason(error)}") from None
    except DeadKernelError:
        raise UserError(f"page {name} stopped: its kernel died (out of memory?)") from None


@contextmanager
def kernel_environment(folder: Path) -> Iterator[None]:
    """What a kernel inherits: the folder whose pages a page may read, and no MPLBACKEND.

    With a backend set, a kernel draws no inline figures.
    """
    before = {name: os.environ.pop(name, None) for name in ("MPLBACKEND", FOLDER)}
    os.environ[FOLDER] = str(folder.resolve())
    if RUNS_GIVEN in os.environ:  # the kernel runs in another folder
        os.environ[RUNS_GIVEN] = os.path.abspath(os.environ[RUNS_GIVEN])
    try:
        yield
    finally:
        del os.environ[FOLDER]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def reason(error: PapermillExecutionError) -> str:
    """The last line of a cell's error; a `UserError` speaks for itself, others with their type."""
    last = (str(error.evalue).strip().splitlines() or [""])[-1]
    return last if error.ename == UserError.__name__ else f"{error.ename}: {last}".rstrip(": ")


def stable(notebook: NotebookNode) -> NotebookNode:
    """The executed notebook without clocks, machine paths, random ids and versions.

    Execution counts stay: without one, nbval would not compare the cell.
    """
    notebook.metadata = METADATA
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        for key in ("papermill", "execution", "lines_to_next_cell"):
            cell.metadata.pop(key, None)
        tags = cell.metadata.pop("tags", [])
        if "injected-parameters" in tags:
            cell.source = re.sub(r'(= ")/(?:[^"/]*/)*', r"\1", cell.source)  # a file by its name
            tags = [*tags, "remove-cell"]
        if tags:
            cell.metadata.tags = tags
    return nbformat.from_dict(notebook)


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` whole or not at all."""
    with replacing(path) as draft:
        draft.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")


def build_site(root: Path, out: Path | None = None, *, whole: bool = True) -> Path:
    """Build the site of the book at `root` into `out`/_build/html and return its front page.

    `out` is `root` unless given. Of a `whole` book any warning of the build is an error
    (`UserError` with them all); in a part of one, references to other pages become plain words.
    """
    out = out or root
    if (root / "book").is_dir():
        write_generated(root / "book")
        if whole:
            write_cards(root / "book", map(Study.shipped, WHOLE))
    # --all: an incremental build does not repeat the warnings of pages it has cached.
    strict = ["-W", "-n", "--keep-going"] if whole else []
    options = [*strict, "--all", "--path-output", str(out)]
    jupyter_book = "from jupyter_book.cli.main import main; main()"  # it has no `python -m`
    command = [sys.executable, "-c", jupyter_book, "build", *options, str(root)]
    plain = {**os.environ, "NO_COLOR": "1", "PYTHONUTF8": "1"}  # no colour codes in messages
    done = subprocess.run(command, capture_output=True, text=True, env=plain)
    html = out / "_build" / "html"
    if done.returncode != 0:
        shown = "\n".join(complaints(done.stdout + done.stderr, root))
        raise UserError(f"the site did not build{' without warnings' if whole else ''}:\n{shown}")
    site.add_links(html, root / "book")
    if (html / "book" / "intro.html").is_file():
        write_index(html)
    (html / ".nojekyll").touch()  # GitHub Pages would else drop the folders named _static, _images
    return html / "index.html"


def write_index(html: Path) -> None:
    """Give the bare redirect at the site's address a title, a link, and the front page's card."""
    front, index = (html / "book" / "intro.html").read_text(encoding="utf-8"), html / "index.html"
    kept = r'<title>.*?</title>|<meta (?:name="description|property="(?:og|twitter):)[^>]*>'
    head = "\n".join(re.findall(kept, front)).replace('"../', '"')
    refresh = '<meta http-equiv="refresh" content="0; url=book/intro.html">'
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n{head}\n{refresh}</head>\n'
    )
    index.write_text(f'{page}<body><a href="book/intro.html">To the front page</a></body></html>\n')


def write_generated(book: Path) -> None:
    """Write what hand-written pages include: the answer, tables, the front figures, the card."""
    from raretok.bench import scale
    from raretok.book import atlas, front, status
    from raretok.ledger import tables
    from raretok.measure import neurons, parameters

    folder = book / "_generated"
    (folder / "site").mkdir(parents=True, exist_ok=True)  # copied to the site as it is
    if (book / "atlas.md").is_file():
        atlas.write_atlas(book)
    texts = {
        "parameters.md": parameters.parameter_table,
        "costs.md": scale.published,
        "neurons.md": neurons.column_table,
        "standing.md": lambda: tables.standing(book_ledger(book), book),
        "answer.md": lambda: front.answer(book),
        **status.tables(book),
    }
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted(book.glob("*.md")))
    wanted = {name: make for name, make in texts.items() if f"_generated/{name}" in pages}
    for name, make in wanted.items():
        write_whole(folder / name, make())
    for page in executed_pages(book):
        for name, data in site.figures(page):
            if name in site.FRONT:
                write_whole(folder / f"{site.FRONT[name]}.svg", data[SVG])
    if "answer.md" in wanted:
        front.card(book, folder / "site" / "card.png")


def complaints(log: str, root: Path) -> list[str]:
    """The warnings and errors of a build log, with paths relative to `root`."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", log).replace(f"{root.resolve()}{os.sep}", "")
    lines = [line for line in plain.splitlines() if re.search(r"WARNING|ERROR|error:", line)]
    return lines or plain.splitlines()[-10:]
