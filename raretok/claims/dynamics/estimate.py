"""The page `dynamics`: the section pages' estimands at the checkpoints of one training run (D1).

Positions are the same at every step. The group is chosen twice: *traced back* (the neurons that
matter at the last step, wherever they came from) and *anew* (those that matter at the step itself).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from raretok.claims.compare import apart, difference
from raretok.claims.coordination.estimate import log_dimension
from raretok.claims.finding import Finding, found, or_none
from raretok.claims.modularity.estimate import modularity
from raretok.claims.regimes.estimate import lift
from raretok.claims.sample import KINDS, Sample
from raretok.claims.spectra.estimate import cosines
from raretok.errors import NotTestableError, UserError
from raretok.stats.jackknife import Estimate, jackknife

CHOICES = ("traced back", "anew")
INFLUENCE = "influence of the group"


def influence(sample: Sample) -> Estimate:
    """Mean influence of the group on rare targets it was not chosen on, nats."""
    return jackknife(sample.of_group(sample.influence("rare", measured=True)))


def dimensions(sample: Sample) -> Estimate:
    """C1: participation ratio of the group over that of its controls, on rare targets."""
    return difference(log_dimension(sample, "rare")).through(np.exp)


# Name, axis label and estimand of each panel; the lift has no group, so it is computed once.
QUANTITIES: dict[str, tuple[str, Callable[[Sample], Estimate]]] = {
    INFLUENCE: ("nats a token", influence),
    "lift of the head (R1)": ("x the smooth curve", lambda sample: lift(sample, "rare")),
    "dimensions (C1)": ("x the controls", dimensions),
    "modularity (M1)": ("Q above the controls", lambda sample: difference(modularity(sample))),
    "squared cosine (S1)": ("x chance above the controls", lambda one: difference(cosines(one))),
}
UNGROUPED = ("lift of the head (R1)",)


@dataclass(frozen=True)
class History:
    """Every quantity at every step; None where it cannot be had there."""

    steps: list[int]
    found: dict[str, dict[str, list[Estimate | None]]]  # by quantity, then by choice of the group
    gaps: dict[int, str]  # steps that were not measured, and why
    positions: int  # rare ones, at every step


def history(samples: dict[int, Sample], gaps: dict[int, str] | None = None) -> History:
    """Of samples by step, all of the same positions. Raises `UserError` where there is none."""
    if not samples:
        raise UserError("no checkpoint was measured: give --revision and measure some first")
    steps, last = sorted(samples), samples[max(samples)]
    back = {step: with_group_of(samples[step], last) for step in steps}
    choices = dict(zip(CHOICES, (back, samples), strict=True))
    found = {
        name: {
            choice: [or_none(estimand, some[step]) for step in steps]
            for choice, some in choices.items()
            if choice == CHOICES[1] or name not in UNGROUPED
        }
        for name, (_, estimand) in QUANTITIES.items()
    }
    return History(steps, found, gaps or {}, int((last.stratum == KINDS["rare"]).sum()))


def with_group_of(sample: Sample, last: Sample) -> Sample:
    """The same positions and blocks, the group of every fold taken from another step.

    Raises `UserError` for samples of other positions.
    """
    if not np.array_equal(sample.document, last.document):
        raise UserError("checkpoints were measured at other positions: measure them again")
    return replace(sample, given_groups=last.groups)


def reached(found: History, share: float = 0.5) -> int:
    """First step from which the traced group keeps at least a share of its last influence.

    Raises `NotTestableError` where that is not positive.
    """
    values = np.array([one.value if one else 0 for one in found.found[INFLUENCE][CHOICES[0]]])
    if values[-1] <= 0:
        raise NotTestableError("the group has no influence at the last step")
    late = np.flatnonzero(values < share * values[-1])
    return found.steps[int(late[-1]) + 1 if late.size else 0]


ESTIMANDS = (("D1", "largest step"), ("D1", "growing spectra"))


def traced(samples: dict[int, Sample], measured: bool) -> Float[np.ndarray, "step left_out split"]:
    """Mean influence of the last step's group at every step, on blocks chosen or measured on."""
    last, means = samples[max(samples)], []
    for step in sorted(samples):
        influences = with_group_of(samples[step], last).influence("rare", measured)
        means.append(np.take_along_axis(influences, last.groups, axis=-1).mean(axis=-1))
    return np.stack(means)


def largest_step(samples: dict[int, Sample]) -> Estimate:
    """D1: largest rise between checkpoints, of the last influence; step chosen on other documents.

    Raises `NotTestableError` for fewer than three checkpoints.
    """
    if len(samples) < 3:
        raise NotTestableError(f"a largest step needs 3 checkpoints, got {len(samples)}")
    seen, held = traced(samples, measured=False), traced(samples, measured=True)
    at = np.diff(seen, axis=0).argmax(axis=0)[None]
    rise = np.take_along_axis(np.diff(held, axis=0), at, axis=0)[0]
    return jackknife(rise.mean(axis=1) / held[-1].mean(axis=1))


def growing_spectra(samples: dict[int, Sample]) -> Estimate:
    """D1: S1 of the last group at the last checkpoint less that at the first."""
    steps = sorted(samples)
    last = samples[steps[-1]]
    values = [cosines(with_group_of(samples[step], last)) for step in (steps[-1], steps[0])]
    (late, scatter), (early, scatter_early) = map(apart, values)
    return jackknife(late - early, float(np.hypot(scatter, scatter_early)), values[0].shape[2] - 1)


def findings(samples: dict[int, Sample]) -> Iterator[Finding]:
    """D1, of the checkpoints of one training run."""
    last = samples[max(samples)]
    gates = last.gates | {"reliability": last.reliability("rare")}
    for key, compute in zip(ESTIMANDS, (largest_step, growing_spectra), strict=True):
        yield found(key, "corrected", gates, compute, samples)
