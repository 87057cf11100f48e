"""What a page found for one estimand, before any verdict: a number, its interval, its gates."""

from collections.abc import Callable
from dataclasses import dataclass, field

from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate


def or_none(compute: Callable[[], Estimate]) -> Estimate | None:
    """An estimate; None where it cannot be had."""
    try:
        return compute()
    except NotTestableError:
        return None


@dataclass(frozen=True)
class Finding:
    """One estimand of one claim under one reading."""

    claim: str
    estimand: str
    reading: str
    estimate: Estimate | None  # None: not to be had, for the reason given
    gates: dict[str, float] = field(default_factory=dict)
    controls: tuple[float, float, float] | None = None  # mean and 95 % spread of the controls
    reason: str = ""
    model: str = ""
    measurement: str = ""
