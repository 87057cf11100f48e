"""The verdict on a claim, by rule, from what was found; and what a page shows of it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Literal

import pandas as pd

from raretok.ledger.claims import Claim, Evidence, paper_claims
from raretok.stats.documents import ALPHA, POWER

Verdict = Literal[
    "reproduced", "weaker", "not reproduced", "artefact of the method", "not testable here"
]
DIGITS = 6  # of a recorded number: the next ones differ between processors


@dataclass(frozen=True)
class Finding:
    """Evidence beside its claim: what the rules look at."""

    claim: Claim
    found: Evidence
    p: float | None  # adjusted for the number of tests, where that is known

    @property
    def measured(self) -> bool:
        return None not in (self.found.value, self.found.interval, self.found.p, self.p)

    @property
    def seen(self) -> bool:
        return self.p < ALPHA

    @property
    def would_be_seen(self) -> bool:
        return self.found.power is not None and self.found.power >= POWER

    @property
    def in_null_world(self) -> bool:
        return self.found.null_world_p is not None and self.found.null_world_p < ALPHA

    @property
    def opposite(self) -> bool:
        """The effect lies on the other side of nothing than the one the claim speaks of."""
        if self.claim.nothing is None or self.claim.side is None:
            return False
        above = self.found.value - self.claim.nothing
        return above < 0 if self.claim.side == "greater" else above > 0

    @property
    def other_size(self) -> bool:
        """The value, or all of its interval, lies outside the published range."""
        if self.claim.range is None:
            return False
        (low, high), (bottom, top) = self.claim.range, self.found.interval
        return not low <= self.found.value <= high or top < low or bottom > high

    @property
    def reaches_nothing(self) -> bool:
        """The interval holds the value where there is no effect."""
        bottom, top = self.found.interval
        return self.claim.nothing is not None and bottom <= self.claim.nothing <= top


@dataclass(frozen=True)
class Rule:
    """A case, and the verdict in it on a claim of presence or size and on one of absence."""

    when: str
    holds: Callable[[Finding], bool]
    present: Verdict
    absent: Verdict


# The first rule that holds decides. No correction makes an absence: what is seen before it only is
# neither seen nor absent.
RULES = (
    Rule(
        "no value with an interval, or no usable null",
        lambda one: not one.measured,
        "not testable here",
        "not testable here",
    ),
    Rule(
        "seen before the correction for the number of tests, not after it",
        lambda one: not one.seen and one.found.p < ALPHA,
        "not testable here",
        "not testable here",
    ),
    Rule(
        f"not seen, and the effect that matters would be in less than {100 * POWER:.0f} % of runs",
        lambda one: not one.seen and not one.would_be_seen,
        "not testable here",
        "not testable here",
    ),
    Rule(
        f"not seen, and the effect that matters would be in at least {100 * POWER:.0f} % of runs",
        lambda one: not one.seen,
        "not reproduced",
        "reproduced",
    ),
    Rule(
        "seen, and in a null world too (the untrained model, or exchanged labels)",
        lambda one: one.in_null_world,
        "artefact of the method",
        "artefact of the method",
    ),
    Rule(
        "seen, in the direction opposite to the claim's",
        lambda one: one.opposite,
        "not reproduced",
        "reproduced",
    ),
    Rule(
        "seen, but not looked for in a null world",
        lambda one: one.found.null_world_p is None,
        "not testable here",
        "not reproduced",
    ),
    Rule(
        "seen, with a value or a whole interval outside the published range",
        lambda one: one.other_size,
        "weaker",
        "not reproduced",
    ),
    Rule(
        "seen, with an interval that reaches no effect",
        lambda one: one.reaches_nothing,
        "weaker",
        "not reproduced",
    ),
    Rule("seen", lambda one: True, "reproduced", "not reproduced"),
)


def deciding_rule(evidence: Evidence, p_adjusted: float | None = None) -> Rule:
    """The rule that decides; on a page of its own the p-value is not adjusted."""
    p = evidence.p if p_adjusted is None else p_adjusted
    finding = Finding(paper_claims()[evidence.claim], evidence, p)
    return next(rule for rule in RULES if rule.holds(finding))


def verdict(evidence: Evidence, p_adjusted: float | None = None) -> Verdict:
    """The verdict on a claim by `RULES`: from its p-values, interval and power alone.

    An effect is seen where its p-value is below 0.05; one that is not seen counts as absent only
    where it would have been seen.
    """
    rule = deciding_rule(evidence, p_adjusted)
    return rule.absent if paper_claims()[evidence.claim].kind == "absent" else rule.present


def rule_table() -> pd.DataFrame:
    """The rules as the book shows them."""
    rows = [
        {
            "the first case that applies": rule.when,
            "the paper claims an effect": rule.present,
            "the paper claims that there is none": rule.absent,
        }
        for rule in RULES
    ]
    return pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1))


def verdict_table(found: list[Evidence]) -> pd.DataFrame:
    """Ours beside the paper's, claim by claim and protocol by protocol."""
    rows = []
    for one in found:
        claim = paper_claims()[one.claim]
        rows.append(
            {
                "claim": one.claim,
                "protocol": one.protocol,
                "verdict": verdict(one),
                "ours": number_text(one, claim),
                "published": claim.published,
                "p": p_text(one.p),
                "null world p": null_world_text(one),
                "power": power_text(one.power),
                "smallest effect seen": "" if one.smallest is None else f"{one.smallest:.2g}",
            }
        )
    return pd.DataFrame(rows).sort_values("claim", kind="stable").set_index(["claim", "protocol"])


def number_text(found: Evidence, claim: Claim) -> str:
    """Value and interval, with the unit of the claim."""
    if found.value is None or found.interval is None:
        return "none"
    low, high = found.interval
    return f"{found.value:.2g} ({low:.2g} to {high:.2g}) {claim.unit}".rstrip()


def p_text(p: float | None) -> str:
    """A p-value as it is shown."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def null_world_text(found: Evidence) -> str:
    """The p-value of the same test in its null world; which one, where it is not the untrained."""
    world = "" if found.null_world == "untrained" else f" ({found.null_world})"
    return "" if found.null_world_p is None else p_text(found.null_world_p) + world


def power_text(power: float | None) -> str:
    """A power as it is shown."""
    return "" if power is None else f"{power:.2f}"


def as_records(found: list[Evidence]) -> list[dict[str, Any]]:
    """The evidence with its verdicts, as plain values for the ledger page and for machines."""
    return [
        {name: plain(value) for name, value in {**asdict(one), "verdict": verdict(one)}.items()}
        for one in found
    ]


def plain(value: Any) -> Any:
    """A number, or an interval, as Python's own float with the digits that are recorded."""
    if isinstance(value, tuple):
        return tuple(plain(number) for number in value)
    return float(f"{value:.{DIGITS}g}") if isinstance(value, Real) else value
