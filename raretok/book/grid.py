"""The grid of a sweep: its file, its cells, and what is refused before anything runs."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raretok.book.pages import page_named
from raretok.claims.study import NEEDS
from raretok.errors import UserError, first_line
from raretok.ledger.records import book_ledger, title
from raretok.ledger.tables import decisive
from raretok.ledger.verdicts import Entry
from raretok.measure.parameters import PageParameters, fault, resolved, validated
from raretok.paths import ROOT, RUNS, check_writable

LISTS = {"model": "models", "revision": "revisions", "corpus": "corpora"}
COPY = "sweep.yaml"  # in the folder of a sweep


class Sweep(BaseModel):
    """What a sweep is asked for: every combination of the lists is a cell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("", pattern=r"^(\w[\w.-]*)?$", description="of its folder; else the file's")
    models: list[str] = Field(min_length=1, description="as --model of raretok run")
    revisions: list[str] = Field([""], min_length=1, description="revisions of Hub models")
    corpora: list[str] = Field(["docs"], min_length=1, description="as --corpus")
    pages: list[str] = Field(list(NEEDS), min_length=1, description="pages of every cell")
    parameters: dict[str, Any] = Field({}, description="page parameters: a value, or a list")


@dataclass
class Cell:
    """One combination, and what became of it."""

    parameters: PageParameters
    varied: dict[str, Any]  # what tells it from the other cells
    folder: Path | None = None  # of its pages
    keys: set[str] = field(default_factory=set)  # that the names of its tasks begin with
    reasons: list[str] = field(default_factory=list)  # why it failed

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """The primary line of each claim in its ledger, under `corrected`."""
        found = decisive(book_ledger(self.folder)) if self.folder else []
        return {entry.finding.claim: entry for entry in found}


@dataclass(frozen=True)
class Plan:
    """A sweep that was found in order."""

    file: Path
    folder: Path
    sources: list[Path]  # of its pages
    cells: list[Cell]


def planned(file: Path, out: Path | None = None) -> Plan:
    """What a file asks for. Raises `UserError` for what is wrong in it or with the folder."""
    asked = read_sweep(file)
    sources = list(dict.fromkeys(page_named(ROOT, page) for page in asked.pages))
    for name in {title(source.stem) for source in sources} - NEEDS.keys():
        raise UserError(f"page {name} is not of one model: a sweep runs {', '.join(NEEDS)}")
    name = asked.name or re.sub(r"[^\w.-]+", "-", file.stem)
    cells, folder = cells_of(asked), (out or RUNS / name).absolute()
    check_writable(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / COPY).is_file():
        raise UserError(f"{folder} is not the folder of a sweep: give an empty or a new one")
    return Plan(file, folder, sources, cells)


def read_sweep(file: Path) -> Sweep:
    """A sweep from its file. Raises `UserError` naming what is wrong in it."""
    try:
        return Sweep(**yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        why = f"cannot read {file.name}: {error.strerror.lower()}"
    except UnicodeDecodeError:
        why = f"cannot read {file.name}: it is not UTF-8"
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        why = f"{file.name} is not YAML{line}: {first_line(error)}"
    except TypeError:
        why = f"{file.name}: write names and lists, such as models: [gpt2]"
    except ValidationError as error:
        known = ", ".join(Sweep.model_fields)
        why = f"{file.name}: {fault(error, 'unknown key {!r}, a sweep has ' + known)}"
    raise UserError(why)


def cells_of(sweep: Sweep) -> list[Cell]:
    """The cells of a sweep. Raises `UserError` for none, and for one that is there twice."""
    axes: dict[str, list] = {name: getattr(sweep, plural) for name, plural in LISTS.items()}
    for name, given in sweep.parameters.items():
        if name in axes:
            raise UserError(f"parameter {name}: write it in the list {LISTS[name]} of the sweep")
        axes[name] = given if isinstance(given, list) else [given]
    cells: dict[PageParameters, Cell] = {}
    for values in product(*axes.values()):
        given = dict(zip(axes, values, strict=True))
        parameters = validated(resolved(given))
        if parameters in cells:
            raise UserError(f"two cells of the sweep are the same: {words(given)}")
        varied = {n: short(given[n]) for n in axes if len(axes[n]) > 1 or n == "model"}
        cells[parameters] = Cell(parameters, varied)
    if not cells:
        empty = next(name for name, some in axes.items() if not some)
        raise UserError(f"the sweep has no cells: the list {empty} is empty")
    return list(cells.values())


def short(value: Any) -> Any:
    """A value without the folders of this machine."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
