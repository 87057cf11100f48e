r"""How many straight pieces does the rank curve need in log-log? One, two or three regimes.

Sorted values are dependent, so residuals of lines through them are too: BIC on them finds three
regimes in 98 % of pure power laws. Their normalised spacings $E_i$ (spacings.py) are not: a
straight piece of slope $\kappa$ is a run of independent exponentials of mean $\kappa$, and a
regime boundary is a change of that mean. Breaks are found exactly, by likelihood, over a
log-spaced grid of ranks. More pieces always fit better; each gain in log-likelihood
is referred to samples refitted alike:

- `p_two`: one piece against two, under a power law (free of its exponent: one table for each n);
- `p_three`: two pieces against three, under the fitted two-piece curve;
- `p_curve`: three pieces against a *smooth* curve ($\ln g$ cubic in x), under that fitted curve.

Any common noise bends in log-log, so the first two reject for all of it: only `p_curve` tells
regimes from curvature. The last 10 % of the positive values are left out, where any
continuous law falls to zero. On a strongly bent curve both breaks go where the bending is; a small
flat head there is for plateau.py to find. Breaks are resolved to a step of the grid, some 7 %.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from raretok.sections.spacings import (
    basis,
    curve_from_slopes,
    depth,
    fitted_slopes,
    normalised_spacings,
    positive_log_values,
)
from raretok.stats.documents import Interval, interval, monte_carlo_p

LAST = 0.9  # fraction of the positive values that is fitted
GRID = 96  # candidate breaks asked for; low ranks coincide, so fewer remain
MIN_PIECE = 0.003  # of the positive values, and at least 4
SMOOTH_DEGREE = 3
MIN_POSITIVE = 200
N_NULL = 499


@dataclass(frozen=True)
class PieceFit:
    breaks: Int[np.ndarray, " break"]  # last rank of every piece but the last
    slopes: Float[np.ndarray, " piece"]  # kappa of each piece, positive where values fall
    log_likelihood: float
    curve: Float[np.ndarray, " rank"]  # fitted log v at ranks 1, 2, ...


@dataclass(frozen=True)
class Breaks:
    """Best fits of many curves: log-likelihoods of 1, 2, 3 pieces, and ranks that end a piece."""

    log_likelihood: Float[np.ndarray, "draw 3"]
    two: Int[np.ndarray, "draw 1"]
    three: Int[np.ndarray, "draw 2"]


@dataclass(frozen=True)
class RegimeTest:
    fits: tuple[PieceFit, PieceFit, PieceFit]  # of one, two, three pieces
    smooth: Float[np.ndarray, " rank"]  # fitted smooth log v at ranks 1, 2, ...
    gain_two: float  # log-likelihood of two pieces less that of one
    gain_three: float  # three less two
    gain_curve: float  # three less smooth
    p_two: float
    p_three: float
    p_curve: float
    kappa: float  # slope of the middle of three pieces

    @property
    def decays_faster(self) -> bool:
        """Whether a steeper piece follows the middle one: power law, then rapid decay.

        The first piece is not asked: a flat head makes it flat, a gap makes it steep.
        """
        return bool(self.fits[2].slopes[2] > self.fits[2].slopes[1])


def candidate_breaks(n_ranks: int) -> Int[np.ndarray, " edge"]:
    """Ranks where a piece may end, evenly spread in their logs; 0 and n_ranks close the list."""
    ranks = np.round(np.geomspace(1, n_ranks, GRID)).astype(int)
    return np.unique(np.concatenate([[0], ranks]))


def piece_scores(
    spacings: Float[np.ndarray, "draw rank"], edges: Int[np.ndarray, " edge"], min_ranks: int
) -> Float[np.ndarray, "draw start stop"]:
    """Log-likelihood of one slope from edge start to edge stop; -inf for too few ranks.

    Exponentials at their most likely mean: -m log(mean) - m. A run of zeros counts as 1e-12.
    """
    total = np.pad(np.cumsum(spacings, axis=1), ((0, 0), (1, 0)))[:, edges]
    count = edges[None, :] - edges[:, None]
    allowed = count >= min_ranks
    count = np.where(allowed, count, 1)
    mean = np.maximum((total[:, None, :] - total[:, :, None]) / count, 1e-12)
    return np.where(allowed, -count * (np.log(mean) + 1), -np.inf)


def find_breaks(spacings: Float[np.ndarray, "draw rank"], n: int) -> Breaks:
    """Most likely breaks of one, two and three pieces: every pair of candidates is tried."""
    edges = candidate_breaks(spacings.shape[1])
    score = piece_scores(spacings, edges, max(4, round(MIN_PIECE * n)))
    head, tail = score[:, 0, :], score[:, :, -1]
    through = head[:, :, None] + score  # draw, first break, second break
    first, two, three = through.argmax(axis=1), head + tail, through.max(axis=1) + tail
    second = three.argmax(axis=1)
    pair = np.stack([np.take_along_axis(first, second[:, None], 1)[:, 0], second], axis=1)
    best = np.stack([score[:, 0, -1], two.max(axis=1), three.max(axis=1)], axis=1)
    return Breaks(best, edges[two.argmax(axis=1)][:, None], edges[pair])


def piece_slopes(
    spacings: Float[np.ndarray, " rank"], breaks: Int[np.ndarray, " break"]
) -> Float[np.ndarray, " piece"]:
    """Mean spacing of each piece: its most likely kappa."""
    return np.array([piece.mean() for piece in np.split(spacings, breaks)])


def _at_ranks(
    slopes: Float[np.ndarray, " piece"], breaks: Int[np.ndarray, " break"], n_ranks: int
) -> Float[np.ndarray, " {n_ranks}"]:
    return np.repeat(slopes, np.diff([0, *breaks, n_ranks]))


def _anchored(
    slopes: Float[np.ndarray, " spacing"], log_values: Float[np.ndarray, " rank"]
) -> Float[np.ndarray, " rank"]:
    """The curve with these slopes at the level of the data (mean over log-spaced ranks)."""
    curve = curve_from_slopes(slopes[None])[0]
    ranks = candidate_breaks(log_values.size)[1:]
    return curve + (log_values - curve)[ranks - 1].mean()


def _top(values: Float[np.ndarray, " neuron"]) -> tuple[Float[np.ndarray, " rank"], int]:
    """Log values of the fitted ranks (and one more, which ends the last spacing), and n."""
    log_values = positive_log_values(values)
    if log_values.size < MIN_POSITIVE:
        raise ValueError(
            f"not testable: {log_values.size} positive values, three pieces need {MIN_POSITIVE}"
        )
    return log_values[: int(LAST * log_values.size) + 1], log_values.size


def fit_pieces(values: Float[np.ndarray, " neuron"]) -> tuple[PieceFit, PieceFit, PieceFit]:
    """Most likely curves of one, two and three pieces through the positive values.

    Raises `ValueError` ("not testable") for fewer than 200 positive values.
    """
    log_values, n = _top(values)
    spacings = normalised_spacings(log_values[None])
    found = find_breaks(spacings, n)
    ends = (np.zeros(0, dtype=int), found.two[0], found.three[0])

    def fit(breaks: Int[np.ndarray, " break"], log_likelihood: float) -> PieceFit:
        slopes = piece_slopes(spacings[0], breaks)
        curve = _anchored(_at_ranks(slopes, breaks, spacings.shape[1]), log_values)
        return PieceFit(breaks, slopes, float(log_likelihood), curve)

    one, two, three = map(fit, ends, found.log_likelihood[0])
    return one, two, three


def _draw_spacings(
    slopes: Float[np.ndarray, " rank"], n_draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "draw rank"]:
    return slopes * rng.exponential(size=(n_draws, slopes.size))


@lru_cache(maxsize=64)
def power_law_gains(n: int, n_null: int = N_NULL) -> Float[np.ndarray, " null"]:
    """Gain of the second piece on power laws of any exponent; a table seeded by n."""
    spacings = _draw_spacings(np.ones(int(LAST * n)), n_null, np.random.default_rng(n))
    return np.diff(find_breaks(spacings, n).log_likelihood)[:, 0]


def smooth_fit(
    spacings: Float[np.ndarray, "draw rank"], n: int
) -> tuple[Float[np.ndarray, "draw rank"], Float[np.ndarray, " draw"]]:
    """Slopes of the most likely smooth curve, log g cubic in x, and its log-likelihood."""
    slopes = fitted_slopes(spacings, basis(depth(n, spacings.shape[1]), SMOOTH_DEGREE, 0))
    return slopes, -(np.log(slopes) + spacings / slopes).sum(axis=1)


def _smooth_gains(spacings: Float[np.ndarray, "draw rank"], n: int) -> Float[np.ndarray, " draw"]:
    return find_breaks(spacings, n).log_likelihood[:, 2] - smooth_fit(spacings, n)[1]


def regime_test(
    values: Float[np.ndarray, " neuron"], *, n_null: int = N_NULL, rng: np.random.Generator
) -> RegimeTest:
    """Fit one, two and three pieces to the positive values and test each added piece.

    Raises `ValueError` ("not testable") for fewer than 200 positive values.
    """
    fits = fit_pieces(values)
    log_values, n = _top(values)
    spacings = normalised_spacings(log_values[None])
    smooth, smooth_likelihood = smooth_fit(spacings, n)
    one, two, three = (fit.log_likelihood for fit in fits)
    under_two = _at_ranks(fits[1].slopes, fits[1].breaks, spacings.shape[1])
    null_two = find_breaks(_draw_spacings(under_two, n_null, rng), n).log_likelihood
    gain_curve = three - float(smooth_likelihood[0])
    return RegimeTest(
        fits=fits,
        smooth=_anchored(smooth[0], log_values),
        gain_two=two - one,
        gain_three=three - two,
        gain_curve=gain_curve,
        p_two=monte_carlo_p(two - one, power_law_gains(n, n_null)),
        p_three=monte_carlo_p(three - two, null_two[:, 2] - null_two[:, 1]),
        p_curve=monte_carlo_p(gain_curve, _smooth_gains(_draw_spacings(smooth[0], n_null, rng), n)),
        kappa=float(fits[2].slopes[1]),
    )


def bootstrap_pieces(
    draws: Float[np.ndarray, "boot neuron"],
) -> tuple[Interval, Interval, Interval]:
    """Intervals of the middle slope and both breaks over bootstrap samples of documents."""
    fits = [fit_pieces(values)[2] for values in draws if np.isfinite(values).all()]
    columns = np.array([[fit.slopes[1], *fit.breaks] for fit in fits], dtype=float)
    return interval(columns[:, 0]), interval(columns[:, 1]), interval(columns[:, 2])
