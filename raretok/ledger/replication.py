"""One claim over many training runs: their mean, the next run's interval, and what follows.

Runs are the units (data/claims.yaml, changes): each gives one number, measured in the same way.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.stats import t as student

from raretok.claims.finding import Finding, untested
from raretok.ledger.claims import Estimand, claims
from raretok.ledger.verdicts import Entry, judged, where
from raretok.stats.jackknife import Estimate

FEWEST = 3  # runs that a variance between runs is estimated from
LIFT = ("R1", "lift", "corrected")
REPRODUCED = ("reproduced", "contradicted", "inconclusive", "not testable")
Replicated = Literal["reproduced", "contradicted", "inconclusive", "not testable"]


@dataclass(frozen=True)
class Pooled:
    """Random effects over runs, in the unit of the estimand."""

    mean: Estimate
    next_run: Estimate  # the same value with its 95 % prediction interval


@dataclass(frozen=True)
class Replication:
    """One claim's primary estimand over the training runs, and on models that are no unit."""

    claim: str
    runs: list[Entry]
    outside: list[Entry]

    @property
    def spec(self) -> Estimand:
        of = claims()[self.claim]
        return of.estimands[of.primary]

    @property
    def used(self) -> list[Entry]:
        """Runs whose gates hold."""
        return [one for one in self.runs if one.verdict != "not testable"]

    @cached_property
    def pooled(self) -> Pooled | None:
        """None for fewer than three runs."""
        found = [one.finding.estimate for one in self.used]
        return pool(found, ratio=is_ratio(self.spec)) if len(found) >= FEWEST else None

    @property
    def verdict(self) -> Replicated:
        """Read off the prediction interval of the next run."""
        if self.pooled is None:
            return "not testable"
        verdict = where(self.pooled.next_run, self.spec)
        return "reproduced" if verdict == "supported" else verdict

    @property
    def gates(self) -> str:
        """How many runs pass the gates, whether these are enough, and what the others fail."""
        needed = "" if self.pooled else f", {FEWEST} are needed"
        passed = f"{len(self.used)} of {len(self.runs)} runs pass{needed}"
        failed = sorted({self.gate(one) for one in self.runs if one.why})
        return f"{passed} ({'; '.join(failed)})" if failed else passed

    def gate(self, failed: Entry) -> str:
        """The gate that a run fails, without its number; else why it has none."""
        names = (name for name in self.spec.gates if failed.why.startswith(f"{name} is "))
        return next(names, failed.why)


def is_ratio(spec: Estimand) -> bool:
    """Whether an estimand is a ratio, which is compared by its logarithm ("x chance" is none)."""
    return spec.unit.startswith("x the ")


def pool(estimates: list[Estimate], ratio: bool) -> Pooled:
    """Mean of training runs, and where the number of the next one is expected.

    Random effects with equal weights: what runs scatter by holds both what they differ by and their
    own errors, so both intervals are exact for normal numbers however large either is.
    """
    values = np.array([math.log(one.value) if ratio else one.value for one in estimates])
    n, mean, sd = values.size, float(values.mean()), float(values.std(ddof=1))
    tail = float(student.ppf(0.975, n - 1))
    reaches = tail * sd / math.sqrt(n), tail * sd * math.sqrt(1 + 1 / n)
    of_mean, of_next = (Estimate(mean, mean - one, mean + one) for one in reaches)
    if ratio:
        of_mean, of_next = of_mean.through(np.exp), of_next.through(np.exp)
    return Pooled(of_mean, of_next)


def replications(runs: Iterable[Finding], outside: Iterable[Finding]) -> list[Replication]:
    """Of every claim with a verdict: the primary findings of training runs and of other models."""
    within, beside = map(primary_entries, (runs, outside))
    return [
        Replication(name, within.get(name, []), beside.get(name, []))
        for name, claim in claims().items()
        if claim.estimands[claim.primary].judged and (name in within or name in beside)
    ]


def primary_entries(findings: Iterable[Finding]) -> dict[str, list[Entry]]:
    """Primary lines under `corrected` by claim."""
    found: dict[str, list[Entry]] = {}
    for entry in judged(one for one in findings if one.reading == "corrected"):
        if entry.primary:
            found.setdefault(entry.finding.claim, []).append(entry)
    return found


FAMILIES = {"G1": "gpt_neox", "G4": "llama"}  # the model type that a claim of a family is about
BASE = "gpt2"  # style of the runs that other families are compared with


def between_families(
    model: list[Finding], family: str, runs: dict[str, list[Finding]]
) -> list[Finding]:
    """G1 and G4: R1's lift of a model over the mean of the runs of GPT-2 style.

    The interval is where one more such run is expected (`pool`): what one model of another family
    differs by, no more than they do among themselves, is no difference of families.
    """
    own = next((one for one in model if one.key == LIFT and one.estimate is not None), None)
    found = []
    for claim, kind in FAMILIES.items():
        key = (claim, "lift between families")
        if family != kind:
            why = f"the model is of the type {family}, and this is about {kind}"
            found += untested([key], why)
        elif own is None:
            found += untested([key], "the model has no lift (R1)")
        else:
            estimate = over_runs(own.estimate, runs.values())
            found.append(Finding(*key, "corrected", estimate, own.gates))
    of = {"model": model[0].model, "measurement": model[0].measurement} if model else {}
    return [replace(one, **of) for one in found]


def over_runs(one: Estimate, runs: Iterable[list[Finding]]) -> Estimate:
    """A lift over the mean of those of runs, with the interval of one run more; 3 are needed."""
    lifts = [f.estimate for some in runs for f in some if f.key == LIFT and f.estimate is not None]
    pooled = pool(lifts, ratio=True).next_run
    return Estimate(*(one.value / of for of in (pooled.value, pooled.high, pooled.low)))
