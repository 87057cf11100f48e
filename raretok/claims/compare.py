"""A group against its controls, and one influence over another, as estimates."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float

from raretok.claims.finding import Finding, untested
from raretok.claims.sample import Sample
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate, jackknife

Spread = tuple[float, float, float]  # mean of the controls, and where 95 % of them lie
Compared = Float[np.ndarray, "left_out split group"]  # the group first, then its controls


def difference(values: Compared) -> Estimate:
    """The group less the mean of its controls.

    The interval counts both what documents and what the choice of neurons leave open: control
    groups, which differ by nothing but chance, scatter by so much about their mean.
    """
    means = values.mean(axis=1)
    each = means[:, 0] - means[:, 1:].mean(axis=1)
    return jackknife(each, float(means[0, 1:].std(ddof=1)), means.shape[1] - 1)


def spread(values: Compared, scale=lambda x: x) -> Spread:
    """Mean of the controls and the range that holds 95 % of them, in the unit of the estimate."""
    controls = values[0].mean(axis=0)[1:]
    low, high = np.quantile(controls, [0.025, 0.975])
    return tuple(float(scale(one)) for one in (controls.mean(), low, high))


def controls_only(values: Compared, scale=lambda x: x) -> Spread:
    """The same of each control less the mean of all, in the unit of the estimate."""
    mean = values[0].mean(axis=0)[1:].mean()
    return (float(scale(0.0)), *spread(values - mean, scale)[1:])


def together(
    keys: Iterable[tuple[str, str]],
    sample: Sample,
    compute: Callable[[], list[tuple[Estimate, Spread]]],
) -> Iterator[Finding]:
    """Findings that one computation gives, each with the spread of its controls; or why not."""
    reading = sample.protocol.name
    try:
        found, gates = compute(), sample.matched_gates
        for key, (estimate, spread) in zip(keys, found, strict=True):
            yield Finding(*key, reading, estimate, gates, spread)
    except NotTestableError as error:
        yield from untested(keys, str(error), reading, sample.gates)


def ratio(
    over: Float[np.ndarray, " left_out"], under: Float[np.ndarray, " left_out"], what: str
) -> Estimate:
    """One influence over another, by its logarithm.

    Raises `NotTestableError`, naming `what`, where one is not positive without some block.
    """
    if min(over.min(), under.min()) <= 0:
        raise NotTestableError(f"{what}: a ratio needs effects that raise the loss on both sides")
    return jackknife(np.log(over / under)).through(np.exp)
