"""The paper's claims, and what a page finds for one of them under one protocol."""

import math
from dataclasses import dataclass, fields, replace
from functools import cache
from numbers import Real
from typing import Any, Literal

import yaml

from raretok.paths import DATA

PAPER = DATA / "paper.yaml"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper."""

    id: str
    statement: str
    kind: Literal["present", "size", "absent"]
    published: str
    page: str
    range: tuple[float, float] | None = None  # of the published values
    unit: str = ""
    matters: str = ""  # the effect that `Evidence.power` is the power to see
    short: str = ""  # the claim in a few words
    nothing: float | None = None  # the value where there is no effect
    side: Literal["greater", "less"] | None = None  # of `nothing`, where the effect lies


@dataclass(frozen=True)
class Evidence:
    """What a page found for one claim under one protocol.

    A number that is not finite counts as missing (None). Raises `ValueError` for a p-value or a
    power outside 0 to 1 and for an interval whose ends are exchanged.
    """

    claim: str
    protocol: str
    value: float | None  # in the claim's unit; None where nothing could be measured
    interval: tuple[float, float] | None  # 95 %, over documents
    null: str  # what the p-value was tested against
    p: float | None
    null_world_p: float | None  # the same test where the effect cannot be: `null_world`
    power: float | None = None  # chance of seeing the effect that matters (`Claim.matters`)
    smallest: float | None = None  # effect seen in 80 % of runs, in the unit of the claim
    figure: str = ""  # label of the figure that shows it, on the page of the claim
    run: str = ""  # key of the ablation run it was computed from
    reason: str = ""  # why it is not testable here
    null_world: str = "untrained"  # the world of `null_world_p`

    def __post_init__(self):
        for field in fields(self):
            if not finite(getattr(self, field.name)):
                object.__setattr__(self, field.name, None)
        for name in ("p", "null_world_p", "power"):
            given = getattr(self, name)
            if given is not None and not 0 <= given <= 1:
                raise ValueError(f"{self.claim}: {name} must lie in 0 to 1, got {given}")
        if self.interval and self.interval[0] > self.interval[1]:
            raise ValueError(f"{self.claim}: the interval {self.interval} ends before it starts")


def with_null_world(found: Evidence, p: float, name: str) -> Evidence:
    """The evidence with another null world, where the test sees more in it than in the present."""
    if found.null_world_p is not None and found.null_world_p <= p:
        return found
    return replace(found, null_world_p=p, null_world=name)


def finite(value: Any) -> bool:
    """Whether a value, or both ends of an interval, can stand in a ledger."""
    numbers = value if isinstance(value, tuple) else (value,)
    return not any(isinstance(n, Real) and not math.isfinite(n) for n in numbers)


@cache
def paper_claims() -> dict[str, Claim]:
    """The claims of the paper, by id."""
    read = yaml.safe_load(PAPER.read_text())
    return {
        name: Claim(id=name, **{k: tuple(v) if k == "range" else v for k, v in fields.items()})
        for name, fields in read.items()
    }
