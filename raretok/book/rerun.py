"""A run of a reader's own: its name, what it measures, and its pages as a site of their own."""

import re
import shutil
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import yaml

from raretok import __version__
from raretok.book.cards import carded, write_cards
from raretok.book.pages import build_site, pictures, run_pages, write_whole
from raretok.claims.study import NEEDS, Study, parts_of
from raretok.errors import UserError, first_line
from raretok.ledger.records import book_ledger, executed_pages, title
from raretok.ledger.tables import decisive, standing, verdict_table
from raretok.measure.cost import cost_of_run
from raretok.measure.find import Measurements
from raretok.measure.parameters import PageParameters, width_words
from raretok.paths import ROOT, seal_of

KEPT = ("intro", "method")  # hand-written pages of the site: one made for it, and the book's method
FIGURE = """
## Every model

```{figure} beside.svg
:alt: Forest plots, one panel a claim, of this model and of the models that ship

Every claim that was tested on every model, with 95 % intervals: the model of this run first (blue),
the book's own models and training runs below. Beside a claim stands its verdict over the training
runs. Shaded: values that support (blue) and contradict (orange) the claim.
```
"""


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
    asked, text = study.parameters, text_name(study.parameters)
    changed = asked.model_dump(exclude_defaults=True, exclude={"model", "corpus", "unigram"})
    given = ", ".join(f"`{name}={value}`" for name, value in changed.items())
    built = study.architecture if study.measurements.there("model") else None
    model = built and (
        f"{built.family}, {built.n_layers} layers of width {built.d_model}, {built.d_mlp:,} "
        f"neurons in the last MLP, {built.d_vocab:,} tokens"
    )
    lines = [
        f"# {study.measurements.label} on {text}\n\n- Model: {model or 'not measured'}.",
        f"- Measured as `{study.measurements.name}` by raretok {__version__}.",
        f"- Parameters: {given or 'those of the book'}. Where a page says 15 % or 1 %, it means "
        f"`rare_percentile={asked.rare_percentile:g}` and `group_percent={asked.group_percent:g}`.",
        "- Pages about the book's own models say so: calibration, cost, replication, and dynamics",
        "  unless checkpoints were named.",
    ]
    if entries := book_ledger(book):
        table = verdict_table(decisive(entries)).data
        lines += ["\n## Verdicts\n", standing(entries, book), table]
    for page in executed_pages(book):
        for picture in pictures(page, "fig-beside"):
            write_whole(book / "beside.svg", picture)
            lines.append(FIGURE)
    if failures:
        lines += ["\n## Pages that stopped\n\n```text", *map(str, failures), "```"]
    return "\n".join(lines)
