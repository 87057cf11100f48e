"""A group against its controls, and one influence over another, as estimates."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float, Int

from raretok.claims.finding import Finding, Key, untested
from raretok.claims.sample import LeftOut, Sample
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate, jackknife

Spread = tuple[float, float, float]  # mean of the controls, and where 95 % of them lie
Compared = Float[np.ndarray, "left_out split group"]  # the group first, then its controls
Blocks = Float[np.ndarray, " block"]
Scale = Callable[[float], float]


def apart(values: Compared) -> tuple[LeftOut, float]:
    """The group less the mean of its controls, and how controls scatter about their mean."""
    means = values.mean(axis=1)
    return means[:, 0] - means[:, 1:].mean(axis=1), float(means[0, 1:].std(ddof=1))


def difference(values: Compared) -> Estimate:
    """The group less the mean of its controls.

    The interval counts both what documents and what the choice of neurons leave open: control
    groups, which differ by nothing but chance, scatter by so much about their mean.
    """
    return jackknife(*apart(values), values.shape[2] - 1)


def spread(values: Compared, scale: Scale = np.positive) -> Spread:
    """Mean of the controls and the range that holds 95 % of them, in the unit of the estimate."""
    controls = values[0].mean(axis=0)[1:]
    low, high = np.quantile(controls, [0.025, 0.975])
    return tuple(float(scale(one)) for one in (controls.mean(), low, high))


def of_group(values: Compared, scale: Scale = np.positive) -> tuple[Estimate, Spread]:
    """The group alone, which varies with the documents left out, and where its controls lie."""
    return jackknife(values[:, :, 0].mean(axis=1)).through(scale), spread(values, scale)


def over_controls(values: Compared, scale: Scale = np.positive) -> tuple[Estimate, Spread]:
    """The group less its controls, and by how much each of these differs from the rest."""
    mean = values[0].mean(axis=0)[1:].mean()
    controls = float(scale(0.0)), *spread(values - mean, scale)[1:]
    return difference(values).through(scale), controls


def in_folds(
    sample: Sample,
    groups: Int[np.ndarray, "left_out split group member"],
    statistic: Callable[[Blocks, Int[np.ndarray, "group member"]], np.ndarray],
) -> Float[np.ndarray, "left_out split *of_statistic"]:
    """A statistic of the group and its controls on the blocks each fold is measured on."""
    folds = zip(sample.folds[1], groups, strict=True)
    return np.array([list(map(statistic, *one)) for one in folds])


def together(
    keys: Iterable[Key],
    sample: Sample,
    compute: Callable[[], list[tuple[Estimate, Spread]]],
    gates: dict[str, float] | None = None,
) -> Iterator[Finding]:
    """Findings that one computation gives, each with the spread of its controls; or why not."""
    reading = sample.protocol.name
    try:
        found, of = compute(), gates or sample.matched_gates
        for key, (estimate, spread) in zip(keys, found, strict=True):
            yield Finding(*key, reading, estimate, of, spread)
    except NotTestableError as error:
        yield from untested(keys, str(error), reading, gates or sample.gates)


def ratio(over: LeftOut, under: LeftOut, what: str) -> Estimate:
    """One influence over another, by its logarithm.

    Raises `NotTestableError`, naming `what`, where one is not positive without some block.
    """
    if min(over.min(), under.min()) <= 0:
        raise NotTestableError(f"{what}: a ratio needs effects that raise the loss on both sides")
    return jackknife(np.log(over / under)).through(np.exp)
