"""What each claim means as a number, and which values support or contradict it."""

import itertools
import math
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from raretok.errors import UserError
from raretok.paths import DATA
from raretok.text.protocol import PROTOCOLS

CLAIMS = DATA / "claims.yaml"
# Gates by name: whether the number must be at least, or at most, the threshold.
AT_LEAST = (
    "reliability",
    "reliability of common",
    "documents",
    "positions",
    "neurons",
    "agreement",
    "coverage",
)
AT_MOST = ("imbalance",)
NEEDS = "needs"  # another claim that must be supported

Region = tuple[FiniteFloat | None, FiniteFloat | None]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Estimand(Strict):
    """One number that a claim is read as."""

    says: str = Field(min_length=1)
    unit: str = Field(min_length=1)
    why: str = Field(min_length=1)
    supports: list[Region] = []
    contradicts: list[Region] = []
    published: tuple[float, float] | None = None
    planted: float | None = None  # size 1 of the calibration
    gates: dict[str, FiniteFloat | str] = {}

    @property
    def judged(self) -> bool:
        """Whether it has regions; else it is reported only."""
        return bool(self.supports)

    @field_validator("gates")
    @classmethod
    def known_gates(cls, gates: dict[str, float | str]) -> dict[str, float | str]:
        if unknown := set(gates) - {*AT_LEAST, *AT_MOST, NEEDS}:
            raise ValueError(f"there is no gate {min(unknown)!r}")
        for name, threshold in gates.items():
            if isinstance(threshold, str) != (name == NEEDS):
                kind = "the id of a claim" if name == NEEDS else "a number"
                raise ValueError(f"the gate {name!r} must be {kind}, got {threshold!r}")
        return gates

    @model_validator(mode="after")
    def regions_apart(self) -> "Estimand":
        if bool(self.supports) != bool(self.contradicts):
            raise ValueError("give both supports and contradicts, or neither")
        regions = sorted(map(ends, [*self.supports, *self.contradicts]))
        for low, high in regions:
            if low >= high:
                raise ValueError(f"the region {low:g} to {high:g} is empty")
        for (_, high), (low, _) in itertools.pairwise(regions):
            if low < high:
                raise ValueError(f"two regions overlap between {low:g} and {high:g}")
        return self


class Claim(Strict):
    """A claim of the paper."""

    sentence: str
    short: str
    published: str
    page: str
    replication: str = Field(alias="unit of replication")
    readings: tuple[str, ...] = tuple(PROTOCOLS)  # that it is asked under
    estimands: dict[str, Estimand] = Field(min_length=1)

    @property
    def of_the_paper(self) -> bool:
        """Whether the paper makes it, so that it has all readings; else it was asked for."""
        return len(self.readings) == len(PROTOCOLS)

    @property
    def primary(self) -> str:
        """The estimand whose verdict is the claim's."""
        return next(iter(self.estimands))


def ends(region: Region) -> tuple[float, float]:
    """A region's ends; open ones are infinite."""
    low, high = region
    return -math.inf if low is None else low, math.inf if high is None else high


def read_claims(path: Path) -> dict[str, Claim]:
    """Claims by id. Raises `UserError`, one line, for a file that does not say what it must."""
    try:
        read = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        kind = type(error).__name__
        raise UserError(f"{path.name} cannot be read ({kind}): it must be YAML") from None
    if not isinstance(read, dict):
        raise UserError(f"{path.name} holds no claims: it must be a mapping of ids")
    read.pop("changes", None)
    try:
        found = TypeAdapter(dict[str, Claim]).validate_python(read)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        place = f"{path.name}, {' > '.join(map(str, first['loc']))}"
        raise UserError(f"{place}: {message[0].lower()}{message[1:]}") from None
    before: set[float | str] = set()
    for name, claim in found.items():
        needed = {one.gates[NEEDS] for one in claim.estimands.values() if NEEDS in one.gates}
        if missing := needed - before:
            which = f"{min(missing)}, which is no claim before it"
            raise UserError(f"{path.name}, {name} needs {which}")
        before.add(name)
    return found


def named(claim: str) -> str:
    """A claim by its id and in a few words."""
    return f"{claim}, {claims()[claim].short}"


@cache
def claims() -> dict[str, Claim]:
    """The claims of the book."""
    return read_claims(CLAIMS)


def planted(claim: str, estimand: str) -> float:
    """What is declared as size 1 of a planted effect; the claim's primary one where none is."""
    of = claims()[claim]
    own = of.estimands[estimand].planted
    return of.estimands[of.primary].planted if own is None else own


def changes() -> list[dict[str, Any]]:
    """Dated changes of the file after it was fixed: date, what, why."""
    return yaml.safe_load(CLAIMS.read_text())["changes"]
