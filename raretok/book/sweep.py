"""`raretok sweep`: a grid of models, revisions, texts and parameters, each cell a run of its own.

What is measured, blocks of positions and pages are tasks on Dask (raretok/ablation/distributed.py).
Whatever is finished is on disk and never done again: the same command goes on.
"""

import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from distributed import Client, Future
from jupyter_core.utils import ensure_event_loop
from tqdm import tqdm

from raretok.ablation.distributed import Tasks, submit_shares
from raretok.ablation.run import BLOCK
from raretok.book.comparison import JOURNAL, summarise
from raretok.book.grid import COPY, Cell, Plan
from raretok.book.pages import run_page, with_parameters, write_whole
from raretok.book.rerun import name_of
from raretok.claims.study import STEPS, Study, parts_of
from raretok.errors import NotTestableError, UserError, first_line
from raretok.ledger.records import title
from raretok.measure.find import Measurements, there
from raretok.measure.parameters import PageParameters, check_sources
from raretok.measure.parts import INTERVENTIONS, source_of
from raretok.measure.source import RELEASED_CONTEXTS, STRATIFIED, WHOLE, Source
from raretok.paths import ROOT

RUNS_OF = {  # parts that are made of ablations: positions drawn, and how they are ablated
    f"effects: {STRATIFIED}": (STRATIFIED, [{}]),
    f"effects: {WHOLE}": (WHOLE, [{}]),
    "interventions": (STRATIFIED, list(INTERVENTIONS.values())),
}


def sweep(plan: Plan, client: Client) -> Path:
    """Run what a sweep still lacks, and write its summary: the page that compares the cells."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    write_whole(plan.folder / COPY, plan.file.read_text(encoding="utf-8"))
    tasks = Tasks(client)
    for cell in plan.cells:
        try:
            check_sources(cell.parameters)
            cell.folder = plan.folder / name_of(cell.parameters)
            submit_cell(tasks, cell, plan.sources)
        except UserError as error:
            cell.reasons.append(str(error))
    follow(tasks, plan.cells, plan.folder / JOURNAL)
    return summarise(plan)


def submit_cell(tasks: Tasks, cell: Cell, sources: list[Path]) -> None:
    """Submit what a cell still lacks: parts, then pages."""
    values = cell.parameters.model_dump(exclude_defaults=True)
    cell.keys.add(cell.folder.name)
    for source in sources:
        page = title(source.stem)
        wanted = [(cell.parameters, parts_of([page])[page])]
        if page == "dynamics" and cell.parameters.revisions:
            study = Study(cell.parameters)
            steps = [study.checkpoint(revision) for revision in study.revisions]
            wanted += [(step.parameters, ("model", *STEPS)) for step in steps]
        cell.keys |= {Measurements(one).key for one, _ in wanted}
        needed = [part for one, names in wanted for part in submit_parts(tasks, one, names)]
        out = cell.folder / f"{source.stem}.ipynb"
        if not finished(source, out):
            key = f"{cell.folder.name}, page {source.stem}"
            tasks.submit(key, page_task, source.name, out, values, after=needed)


def submit_parts(tasks: Tasks, parameters: PageParameters, names: Iterable[str]) -> list[Future]:
    """Submit the parts of a measurement that are not there; those it waits for."""
    asked, found, effects = Measurements(parameters), [], []
    # Others read the effects, and share their forward pass.
    for name in sorted(names, key=lambda one: not one.startswith("effects")):
        if there(asked, name):
            continue
        key, after = f"{asked.key}, {name}", effects * (not name.startswith("effects"))
        if name in RUNS_OF and key not in tasks.futures:
            draw, runs = RUNS_OF[name]
            most = 2.25 * parameters.n_positions
            if draw == WHOLE:
                most = RELEASED_CONTEXTS * parameters.n_ctx
            wanted = [(parameters, draw, tuple(one.items())) for one in runs]
            n = max(1, -(-int(most) // BLOCK))
            after = submit_shares(tasks, key, ablation, wanted, n, after=after)
        found.append(tasks.submit(key, part_task, parameters, name, after=after))
        effects += found[-1:] * name.startswith("effects")
    return found


def ablation(parameters: PageParameters, draw: str, options: tuple) -> dict[str, Any]:
    """What an ablation is asked for, on a worker."""
    return loaded(parameters).asked(draw, **dict(options))


def loaded(parameters: PageParameters) -> Source:
    """The source of some parameters; a worker keeps one model at a time."""
    if source_of.cache_info().currsize and parameters not in _last:
        for kept in (source_of, Source.classes, Source.everything, Source.positions, Source.seen):
            kept.cache_clear()
    _last[:] = [parameters]
    return source_of(parameters)


_last: list[PageParameters] = []  # of this process


def part_task(parameters: PageParameters, name: str) -> None:
    """Measure a part on a worker; one that cannot be had is kept with its reason."""
    loaded(parameters)
    with suppress(NotTestableError):
        Measurements(parameters).part(name)


def page_task(source: str, out: Path, values: dict[str, Any]) -> None:
    """Run a page on a worker, unless it was."""
    page = ROOT / "notebooks" / source
    if not finished(page, out):
        try:
            run_page(page, out, values)
        finally:
            ensure_event_loop().close()  # nbclient leaves the one of this thread open


def finished(source: Path, out: Path) -> bool:
    """Whether a page was run into this file, in the words it has now."""
    try:
        there = nbformat.read(out, as_version=4).cells
    except Exception:  # nbformat raises many kinds: what is no page is run
        return False
    now = with_parameters(jupytext.read(source)).cells
    given = [one for one in there if "injected-parameters" not in one.metadata.get("tags", [])]
    return [one.source for one in given] == [one.source for one in now]


def follow(tasks: Tasks, cells: list[Cell], journal: Path) -> None:
    """Wait for the tasks, keep in a journal what each took, and tell cells why they failed."""
    with tqdm(total=len(tasks.futures), file=sys.stderr, unit="task", disable=None) as bar:
        for key, seconds, worker, error in tasks.finished():
            bar.update()
            if error is None:
                line = {"task": key, "seconds": seconds, "worker": worker}
                with journal.open("a") as opened:
                    opened.write(json.dumps(line) + "\n")
                continue
            why = str(error) if isinstance(error, UserError) else first_line(error)
            for cell in cells:
                if key.split(", ")[0] in cell.keys and why not in cell.reasons:
                    cell.reasons.append(why)
