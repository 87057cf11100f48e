"""The regime detector of the paper's released code, rewritten to be judged.

It follows the settings of the stored runs, not the defaults. With a threshold multiplier of 0
any change of slope of the wanted sign is "significant": the detector reports a plateau and an
elbow for every sample of noise. Its plateau is where the slope turns *less* steep: the end of a
steep head, not of a flat one.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view

Ranked = Float[np.ndarray, " rank"]
PLATEAU_WINDOW, PLATEAU_MAX_LOG_RANK, PLATEAU_RANKS = 3, 3.5, (0.0, 0.3)
ELBOW_WINDOW, ELBOW_LOG_RANKS, ELBOW_RANKS = 5, (5.5, 7.5), (0.4, 0.85)


@dataclass(frozen=True)
class ReleasedRegimes:
    """Ranks of the two "transitions"; None where the searched range is too short."""

    plateau: int | None
    elbow: int | None


def released_detector(values: Float[np.ndarray, " neuron"]) -> ReleasedRegimes:
    """Ranks of the largest positive (plateau) and negative (elbow) change of local slope."""
    log_values = np.log(np.sort(values[values > 0])[::-1])
    plateau = _transition(
        log_values, PLATEAU_WINDOW, PLATEAU_RANKS, (0.0, PLATEAU_MAX_LOG_RANK), "positive"
    )
    elbow = _transition(log_values, ELBOW_WINDOW, ELBOW_RANKS, ELBOW_LOG_RANKS, "negative")
    if plateau is not None and elbow is not None and plateau >= elbow:
        later = ((plateau - 1) / log_values.size + 0.05, ELBOW_RANKS[1])
        elbow = _transition(log_values, ELBOW_WINDOW, later, ELBOW_LOG_RANKS, "negative")
    return ReleasedRegimes(plateau, elbow)


def _transition(
    log_values: Ranked,
    window: int,
    fractions: tuple[float, float],
    log_ranks: tuple[float, float],
    sign: Literal["positive", "negative"],
) -> int | None:
    n = log_values.size
    x = np.log(np.arange(1, n + 1))
    first = max(int(n * fractions[0]), window, int(np.searchsorted(x, log_ranks[0], "left")))
    last = min(
        int(n * fractions[1]), n - window, int(np.searchsorted(x, log_ranks[1], "right")) - 1
    )
    if last <= first + window:
        return None
    starts = np.arange(first, last - min(window, max(5, (last - first) // 5)) + 1)
    changes = np.diff(_local_slopes(x, log_values, window)[starts])
    wanted = np.maximum(changes if sign == "positive" else -changes, 0)
    return int(starts[wanted.argmax() + 1]) + 1 if wanted.max() > 0 else None


def _local_slopes(x: Ranked, y: Ranked, window: int) -> Float[np.ndarray, " start"]:
    """Least-squares slope of the `window` points from each start on."""
    x, y = (sliding_window_view(values, window) for values in (x, y))
    x = x - x.mean(axis=1, keepdims=True)
    return (x * y).sum(axis=1) / (x * x).sum(axis=1)
