"""The verdict on a claim: read off the interval of its estimand, and nothing else."""

import math
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from typing import Any, Literal

from raretok.claims.finding import Finding
from raretok.ledger.claims import AT_MOST, NEEDS, Claim, Estimand, Region, claims, ends
from raretok.ledger.promise import calibrated, coverage
from raretok.stats.jackknife import Estimate

Verdict = Literal["supported", "contradicted", "inconclusive", "not testable", "reported"]
COVERAGE = "coverage"  # gate
DIGITS = 6  # of a recorded number: the next ones differ between processors


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: an estimand under a reading, and what was found."""

    finding: Finding
    verdict: Verdict
    why: str  # the gate that failed, where one did

    @property
    def claim(self) -> Claim:
        return claims()[self.finding.claim]

    @property
    def spec(self) -> Estimand:
        return self.claim.estimands[self.finding.estimand]

    @property
    def primary(self) -> bool:
        """Whether its verdict is the claim's."""
        return self.finding.estimand == self.claim.primary

    def record(self) -> dict[str, Any]:
        """The line as plain values for machines; what is missing is None."""
        found, spec = self.finding, self.spec
        number = found.estimate
        return {
            "claim": found.claim,
            "model": found.model or None,
            "reading": found.reading,
            "estimand": found.estimand,
            "unit": spec.unit,
            "value": number and plain(number.value),
            "interval": number and [plain(number.low), plain(number.high)],
            "supports": [list(one) for one in spec.supports],
            "contradicts": [list(one) for one in spec.contradicts],
            "gates": {name: plain(one) for name, one in found.gates.items() if math.isfinite(one)},
            "controls": found.controls and [plain(one) for one in found.controls],
            "verdict": self.verdict,
            "why": self.why,
            "page": self.claim.page,
            "measurement": found.measurement or None,
        }


def plain(value: float) -> float:
    """A number with the digits that are recorded."""
    return float(f"{value:.{DIGITS}g}")


def lies_in(estimate: Estimate, regions: list[Region]) -> bool:
    """Whether the whole interval lies in one of the regions."""
    return any(low <= estimate.low and estimate.high <= high for low, high in map(ends, regions))


def where(estimate: Estimate, spec: Estimand) -> Verdict:
    """What an interval says of a claim, by the regions that it lies in."""
    if lies_in(estimate, spec.supports):
        return "supported"
    return "contradicted" if lies_in(estimate, spec.contradicts) else "inconclusive"


def failed_gate(finding: Finding, spec: Estimand, supported: Set[str]) -> str:
    """The first gate that failed, in words; empty where all hold. What is missing fails."""
    for name, threshold in spec.gates.items():
        if name == NEEDS:
            if threshold not in supported:
                return f"{threshold} is not supported"
            continue
        value = finding.gates.get(name)
        if name == COVERAGE and value is None:
            continue  # not calibrated: the ledger says for which readings and models that is
        if value is None or math.isnan(value):
            return f"{name} is not known, {threshold:g} is needed"
        if value > threshold if name in AT_MOST else value < threshold:
            limit = "at most" if name in AT_MOST else "at least"
            return f"{name} is {value:.3g}, {limit} {threshold:g} is needed"
    return ""


def judge(finding: Finding, supported: Set[str] = frozenset()) -> Entry:
    """The verdict on one finding; `supported`: claims already supported under its reading."""
    spec = claims()[finding.claim].estimands[finding.estimand]
    if finding.estimate is None:
        return Entry(finding, "not testable", finding.reason)
    if not spec.judged:
        return Entry(finding, "reported", "")
    if failed := failed_gate(finding, spec, supported):
        return Entry(finding, "not testable", failed)
    return Entry(finding, where(finding.estimate, spec), "")


def judge_all(findings: Iterable[Finding]) -> list[Entry]:
    """Verdicts on findings, model by model, in the order of the claims."""
    found = list(findings)
    models, order = [one.model for one in found], estimands()
    found.sort(key=lambda one: (models.index(one.model), order.index((one.claim, one.estimand))))
    supported: dict[tuple[str, str], set[str]] = {}
    entries = []
    for finding in found:
        seen = supported.setdefault((finding.model, finding.reading), set())
        entries.append(judge(finding, seen))
        if entries[-1].primary and entries[-1].verdict == "supported":
            seen.add(finding.claim)
    return entries


def judged(findings: Iterable[Finding]) -> list[Entry]:
    """Verdicts on what pages found, gated by the coverage that the calibration found too."""
    return judge_all(map(with_coverage, findings))


def with_coverage(finding: Finding) -> Finding:
    """With the coverage of its interval; a second line that was not planted has its claim's."""
    if finding.reading != "corrected":  # the only one whose intervals are calibrated
        return finding
    table = calibrated(finding.model)
    for name in (finding.estimand, claims()[finding.claim].primary):
        if (found := coverage(table, finding.claim, name)) is not None:
            return replace(finding, gates=finding.gates | {COVERAGE: found})
    return finding


def estimands() -> list[tuple[str, str]]:
    """Claim and estimand of every line of the ledger."""
    return [(name, one) for name, claim in claims().items() for one in claim.estimands]
