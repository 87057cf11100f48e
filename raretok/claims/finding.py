"""What a page found for one estimand, before any verdict: a number, its interval, its gates."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate

Key = tuple[str, str]  # claim and estimand


def or_none(compute: Callable[..., Any], *of: Any) -> Any:
    """What is computed of what is given, such as an estimate; None where it cannot be had."""
    try:
        return compute(*of)
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

    @property
    def key(self) -> tuple[str, str, str]:
        return self.claim, self.estimand, self.reading


def found(
    key: Key, reading: str, gates: dict[str, float], compute: Callable[..., Estimate], *of: Any
) -> Finding:
    """A finding, computed of what is given, or the reason why there is none."""
    try:
        return Finding(*key, reading, compute(*of), gates)
    except NotTestableError as error:
        return Finding(*key, reading, None, gates, reason=str(error))


def untested(
    keys: Iterable[Key],
    reason: str,
    reading: str = "corrected",
    gates: dict[str, float] | None = None,
) -> list[Finding]:
    """Findings without a number: of a reading that cannot be formed, of a model that has none."""
    return [Finding(*key, reading, None, gates or {}, reason=reason) for key in keys]
