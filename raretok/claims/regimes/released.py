"""The regime detector of the paper's released code, rewritten to be judged.

It follows the settings of the stored runs, not the defaults. With a threshold multiplier of 0
any change of slope of the wanted sign is "significant": the detector reports a plateau and an
elbow for every sample of noise. Its plateau is where the slope turns *less* steep: the end of a
steep head, not of a flat one.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view

Ranked = Float[np.ndarray, " rank"]


@dataclass(frozen=True)
class ReleasedRegimes:
    """Ranks of the two "transitions"; None where the searched range is too short."""

    plateau: int | None
    elbow: int | None


@dataclass(frozen=True)
class Search:
    """For the largest change of local slope of one sign, in a range of ranks."""

    window: int
    fractions: tuple[float, float]  # of the ranks
    log_ranks: tuple[float, float]
    sign: int

    def transition(self, log_values: Ranked) -> int | None:
        """Rank of the change; None where the range is too short or no slope changes so."""
        n, window = log_values.size, self.window
        x = np.log(np.arange(1, n + 1))
        low, high = (int(n * share) for share in self.fractions)
        start, stop = (
            int(np.searchsorted(x, at, side))
            for at, side in zip(self.log_ranks, ("left", "right"), strict=True)
        )
        first, last = max(low, window, start), min(high, n - window, stop - 1)
        if last <= first + window:
            return None
        starts = np.arange(first, last - min(window, max(5, (last - first) // 5)) + 1)
        changes = np.diff(_local_slopes(x, log_values, window)[starts])
        wanted = np.maximum(self.sign * changes, 0)
        return int(starts[wanted.argmax() + 1]) + 1 if wanted.max() > 0 else None


PLATEAU = Search(3, (0.0, 0.3), (0.0, 3.5), 1)
ELBOW = Search(5, (0.4, 0.85), (5.5, 7.5), -1)


def released_detector(values: Float[np.ndarray, " neuron"]) -> ReleasedRegimes:
    """Ranks of the largest positive (plateau) and negative (elbow) change of local slope."""
    log_values = np.log(np.sort(values[values > 0])[::-1])
    plateau, elbow = (search.transition(log_values) for search in (PLATEAU, ELBOW))
    if plateau is not None and elbow is not None and plateau >= elbow:
        later = ((plateau - 1) / log_values.size + 0.05, ELBOW.fractions[1])
        elbow = replace(ELBOW, fractions=later).transition(log_values)
    return ReleasedRegimes(plateau, elbow)


def _local_slopes(x: Ranked, y: Ranked, window: int) -> Float[np.ndarray, " start"]:
    """Least-squares slope of the `window` points from each start on."""
    x, y = (sliding_window_view(values, window) for values in (x, y))
    x = x - x.mean(axis=1, keepdims=True)
    return (x * y).sum(axis=1) / (x * x).sum(axis=1)
