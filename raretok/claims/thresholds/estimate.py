"""The page `thresholds`: what hangs on the rule that makes a token rare (G2).

Every rule classes the same measured positions anew; what was drawn as neither rare nor common
stands for many positions of the text, so that it weighs heavily where a rule calls it rare.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np

from raretok.claims.dynamics.estimate import influence
from raretok.claims.finding import Finding, Key, found, or_none
from raretok.claims.regimes.estimate import concentration, head_of, lift, log_lifts, rank_curves
from raretok.claims.sample import KINDS, Sample
from raretok.claims.thresholds import gradient
from raretok.errors import UserError
from raretok.stats.jackknife import Estimate, jackknife
from raretok.text.protocol import Rule

NAMES = ("lift at 10 over 20 %", "step at the threshold", "below the elbow")
ESTIMANDS = tuple(("G2", name) for name in NAMES)
PERCENTILES = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0)
RULES = tuple((rule, by) for by in ("target", "input") for rule in reversed(get_args(Rule)))
LIFT = ("x the smooth curve", (0.02, 30))  # unit, and range shown
# Of each quantity: estimand whose regions are drawn, unit, range shown, and how it is computed.
SHOWN: dict[str, tuple[Key | None, str, tuple[float, float] | None, Callable[..., Estimate]]] = {
    "lift on rare (R1)": (("R1", "lift"), *LIFT, lambda sample: lift(sample, "rare")),
    "lift on common (R3)": (("R3", "lift"), *LIFT, lambda sample: lift(sample, "common")),
    "concentration (R0)": (
        ("R0", "concentration"),
        "share, rare less common",
        None,
        concentration,
    ),
    "influence of the group": (None, "nats a token", None, influence),
}


@dataclass(frozen=True)
class Case:
    """What one definition of rare gives; `reason` where it gives nothing."""

    percentile: float
    rule: Rule = "percentile"
    by: str = "target"
    types: int = 0
    positions: int = 0  # rare ones
    worth: float = 0.0  # equally weighted positions that would scatter as much (Kish, 1965)
    found: dict[str, Estimate | None] = field(default_factory=dict)
    reason: str = ""


def case(study: Any, percentile: float, rule: Rule = "percentile", by: str = "target") -> Case:
    """Every quantity under one definition of rare, on the positions of a study's measurement."""
    asked = Case(percentile, rule, by)
    try:
        sample = study.at(percentile, rule, by)
        influence(sample)  # needs rare targets in every part of the documents, as all others do
    except UserError as error:
        return replace(asked, reason=str(error))
    weight = sample.weight[sample.stratum == KINDS["rare"]]
    return replace(
        asked,
        types=int(study.types(rule, percentile).rare.sum()),
        positions=weight.size,
        worth=float(weight.sum() ** 2 / (weight**2).sum()),
        found={name: or_none(of, sample) for name, (*_, of) in SHOWN.items()},
    )


def sweep(study: Any) -> list[Case]:
    """Every quantity for several percentages of rare types."""
    return [case(study, percentile) for percentile in PERCENTILES]


def rules(study: Any) -> list[Case]:
    """Every quantity under each rule, rare by the target and by the input."""
    return [case(study, study.parameters.rare_percentile, rule, by) for rule, by in RULES]


def lift_ratio(one: Sample, other: Sample) -> Estimate:
    """R1's lift in one sample over that in another, documents paired.

    What a sample of neurons leaves open counts for both as if they shared none: an upper bound.
    """
    both = (log_lifts(rank_curves(sample, "rare"), head_of(sample)) for sample in (one, other))
    values, scatters = zip(*both, strict=True)
    return jackknife(values[0] - values[1], float(np.hypot(*scatters))).through(np.exp)


def findings(study: Any) -> Iterator[Finding]:
    """G2 of a study's measurement, by the percentage of rare types it asks for."""
    model, (sample, x) = study.part("model"), gradient.read(study)
    gates = sample.gates | {"reliability": sample.reliability("rare")}
    computed = (
        lambda: lift_ratio(study.at(10.0), study.at(20.0)),
        lambda: gradient.step(sample, x),
        lambda: gradient.below_elbow(sample, x, gradient.log_elbow(model)),
    )
    for key, compute in zip(ESTIMANDS, computed, strict=True):
        yield found(key, sample.protocol.name, gates, compute)
