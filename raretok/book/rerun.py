"""A run of a reader's own: its name, what it measures, and its pages as a site of their own."""

import re
import shutil
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import yaml

from raretok import __version__
from raretok.book.cards import carded, rendered, write_cards
from raretok.book.figcheck import SVG
from raretok.book.pages import build_site, run_pages, write_whole
from raretok.book.site import figures
from raretok.claims.study import NEEDS, Study, parts_of
from raretok.errors import UserError, first_line
from raretok.ledger.records import book_ledger, executed_pages, title
from raretok.ledger.tables import decisive, standing, verdict_table
from raretok.measure.cost import cost_of_run
from raretok.measure.find import Measurements
from raretok.measure.parameters import PageParameters, width_words
from raretok.paths import ROOT, seal_of

KEPT = ("intro", "method")  # hand-written pages of the site: one made for it, and the book's method
BESIDE = "fig-beside"  # the figure of every model, on the page `ledger`


def name_of(parameters: PageParameters) -> str:
    """A name for the folder of a run: model, text, and a hash of all that was changed."""
    key = seal_of(parameters.model_dump(exclude_defaults=True))[:8]
    name = f"{Measurements(parameters).label}-{text_name(parameters)}-{key}"
    return re.sub(r"[^\w.-]+", "-", name)


def text_name(parameters: PageParameters) -> str:
    """The text without its folder and its ending, as a file is named."""
    return Path(parameters.corpus).name.split(".")[0].replace(":", "-")


def rerun(
    parameters: PageParameters, sources: list[Path], folder: Path, *, jobs: int = 1, site: bool
) -> list[UserError]:
    """Measure, run the pages into a folder and build their site; what stopped, page by page.

    Raises `UserError` where nothing can be measured.
    """
    foretell(Measurements(parameters), parts_of(title(source.stem) for source in sources))
    study = Study(parameters, Measurements(parameters, loud=True))
    stopped = measured(study, sources)
    able = [source for source in sources if source not in stopped]
    values = parameters.model_dump(exclude_defaults=True)
    failures = [*stopped.values(), *run_pages(able, folder, values, jobs=jobs)]
    try:
        if site:
            print(f"The front page is {build(study, folder, failures)}")
    except UserError as error:
        failures.append(error)
    return failures


def foretell(asked: Measurements, needed: Mapping[str, Collection[str]]) -> None:
    """Say on stderr what will be measured, what it takes here, and what fewer positions cost."""
    said = width_words(asked.parameters)
    with suppress(Exception):  # measuring says so, page by page
        said = [*cost_of_run(asked, needed).lines(), *said]
    print(*said, sep="\n", file=sys.stderr)


def measured(study: Study, sources: list[Path]) -> dict[Path, UserError]:
    """Measure what pages need, and say of those that cannot have it why.

    Raises `UserError` where every page that needs the model stops for one reason.
    """
    stopped: dict[Path, str] = {}
    for source in sources:
        try:
            study.prepare([title(source.stem)])
        except UserError as error:
            stopped[source] = str(error)
        except Exception as error:  # a page that stops is one line too, whatever stops it
            stopped[source] = f"{type(error).__name__}: {first_line(error)}"
    need = [source for source in sources if NEEDS.get(title(source.stem))]
    if stopped and len(stopped) == len(need) and len({*stopped.values()}) == 1:
        raise UserError(stopped.popitem()[1])
    return {one: UserError(f"page {one.stem} was not run: {why}") for one, why in stopped.items()}


def build(study: Study, folder: Path, failures: list[UserError]) -> Path:
    """The pages in a folder as a small book, built into its `_build/html`; its front page."""
    source, found = folder / "_build" / "source", executed_pages(folder)
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "book" / "_assets", source / "book" / "_assets")
    written = (ROOT / "book" / "references.bib", ROOT / "book" / "method.md")
    for file in (*found, *folder.glob("ledger.json"), *written):
        shutil.copy(file, source / "book")
    config, contents = (yaml.safe_load((ROOT / f"_{n}.yml").read_text()) for n in ("config", "toc"))
    config["title"] = f"{study.measurements.label}, rerun"
    config["sphinx"]["config"]["html_copy_source"] = False  # it names folders of this machine
    names = {*KEPT, *(page.stem for page in found)}
    if carded(study):
        shutil.copy(ROOT / "book" / "cards.md", source / "book")
        write_cards(source / "book", [study])
        names.add("cards")
    for part in contents["parts"]:
        part["chapters"] = [c for c in part["chapters"] if Path(c["file"]).name in names]
    contents["parts"] = [part for part in contents["parts"] if part["chapters"]]
    write_whole(source / "_config.yml", yaml.safe_dump(config))
    write_whole(source / "_toc.yml", yaml.safe_dump(contents, sort_keys=False))
    write_whole(source / "book" / "intro.md", front_page(study, source / "book", failures))
    try:
        return build_site(source, folder, whole=False)
    finally:
        for name in ("source", "jupyter_execute", ".doctrees"):
            shutil.rmtree(folder / "_build" / name, ignore_errors=True)


def front_page(study: Study, book: Path, failures: list[UserError]) -> str:
    """What was run on what, the verdicts, and every model beside this one (MyST)."""
    asked, entries = study.parameters, book_ledger(book)
    given = asked.model_dump(exclude_defaults=True, exclude={"model", "corpus", "unigram"})
    drawn = [
        data for page in executed_pages(book) for name, data in figures(page) if name == BESIDE
    ]
    for picture in drawn:
        write_whole(book / "beside.svg", picture[SVG])
    return rendered(
        "rerun.md",
        study=study,
        text=text_name(asked),
        version=__version__,
        given=given,
        entries=entries,
        standing=standing(entries, book),
        table=verdict_table(decisive(entries)).data,
        beside=bool(drawn),
        failures=failures,
    )
