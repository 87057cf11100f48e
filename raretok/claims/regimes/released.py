"""The plateau detector of the paper's released code, rewritten to be judged.

It follows the settings of the stored runs, not the defaults. With a threshold multiplier of 0
any change of slope of the wanted sign is "significant": the detector reports a plateau for every
sample of noise. Its plateau is where the slope turns *less* steep: the end of a steep head, not of
a flat one. (The elbow that it reports beside, no page looks at.)
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view

WINDOW, MAX_LOG_RANK, MAX_SHARE = 3, 3.5, 0.3


@dataclass(frozen=True)
class ReleasedRegimes:
    """What the detector reports."""

    plateau: int | None  # its last rank; None where there are too few, or no slope turns


def released_detector(values: Float[np.ndarray, " neuron"]) -> ReleasedRegimes:
    """The rank of the largest positive change of local slope near the head of the rank curve."""
    y = np.log(np.sort(values[values > 0])[::-1])
    x = np.log(np.arange(1, y.size + 1))
    in_reach = int(np.searchsorted(x, MAX_LOG_RANK, "right")) - 1
    last = min(int(MAX_SHARE * y.size), y.size - WINDOW, in_reach)
    if last <= 2 * WINDOW:
        return ReleasedRegimes(None)
    starts = np.arange(WINDOW, last - WINDOW + 1)
    changes = np.diff(local_slopes(x, y)[starts])
    return ReleasedRegimes(int(starts[changes.argmax() + 1]) + 1 if changes.max() > 0 else None)


def local_slopes(
    x: Float[np.ndarray, " rank"], y: Float[np.ndarray, " rank"]
) -> Float[np.ndarray, " start"]:
    """Least-squares slope of the `WINDOW` points from each start on."""
    x, y = (sliding_window_view(values, WINDOW) for values in (x, y))
    x = x - x.mean(axis=1, keepdims=True)
    return (x * y).sum(axis=1) / (x * x).sum(axis=1)
