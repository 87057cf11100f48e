r"""Smooth rank curves: the law of sorted values that both regime tests take as their null.

For values $v_{(1)} \ge v_{(2)} \ge \ldots$ of independent draws from a smooth law, the normalised
log-spacings $E_i = i\,(\ln v_{(i)} - \ln v_{(i+1)})$ are close to independent exponential variables
with mean $g(i)$, the local slope of the rank curve (Renyi, 1953). They are *exactly* so, with
$g = \kappa$, for a power law $v_{(i)} \sim i^{-\kappa}$. We model
$\ln g = b_0 + b_1 x + \ldots$ in $x = \ln\ln\frac{n+1}{i+1/2}$: the straight line holds the power
law ($b_1 = 0$), every Weibull law ($-1$) and, closely, the log-normal ($-1/2$) and half-normal
($-1.15$).
"""

import numpy as np
from jaxtyping import Float

NEWTON_STEPS, NEWTON_TOLERANCE = 100, 1e-7


def positive_log_values(values: Float[np.ndarray, " neuron"]) -> Float[np.ndarray, " rank"]:
    """Logs of the positive values, largest first; what is not positive has no place in log-log."""
    if not np.isfinite(values).all():
        raise ValueError("values must be finite; some are NaN or infinite")
    return np.log(np.sort(values[values > 0])[::-1])


def normalised_spacings(
    log_values: Float[np.ndarray, "draw rank"],
) -> Float[np.ndarray, "draw rank-1"]:
    """E_i = i (log v_i - log v_(i+1)), for rows sorted in descending order."""
    return np.arange(1, log_values.shape[1]) * (log_values[:, :-1] - log_values[:, 1:])


def depth(n: int, n_ranks: int) -> Float[np.ndarray, " {n_ranks}"]:
    """x = log log((n + 1) / (i + 1/2)) between ranks i and i + 1 of n."""
    return np.log(np.log((n + 1) / (np.arange(1, n_ranks + 1) + 0.5)))


def basis(
    x: Float[np.ndarray, " rank"], degree: int, first: int
) -> Float[np.ndarray, "rank {degree}+1"]:
    """Polynomials in x, orthonormal over the ranks from index `first` on."""
    powers = np.vander((x - x.mean()) / x.std(), degree + 1, increasing=True)
    return powers @ np.linalg.inv(np.linalg.qr(powers[first:])[1])


def exponential_regression(
    spacings: Float[np.ndarray, "draw rank"], terms: Float[np.ndarray, "rank term"]
) -> Float[np.ndarray, "draw term"]:
    """Most likely coefficients of log g = terms @ b when spacings ~ g * Exp(1).

    `terms` are orthonormal over these ranks, so Fisher's scoring step is `terms.T (E/g - 1)`.
    Adding a combination of terms to log g moves the estimate by just that: E/g is pivotal.
    Raises `ValueError` when all spacings of a row are zero.
    """
    mean = spacings.mean(axis=1)
    if not (mean > 0).all():
        raise ValueError("all values are equal over the fitted ranks: there is no decay to fit")
    b = np.log(mean)[:, None] * terms.sum(axis=0)
    for _ in range(NEWTON_STEPS):
        step = (spacings * np.exp(-b @ terms.T) - 1) @ terms
        # A row far from its optimum would overshoot: the exponential grows faster than its tangent.
        step *= np.minimum(1, 5 / np.abs(step).max(axis=1, keepdims=True).clip(1e-300))
        b = b + step
        if np.abs(step).max() < NEWTON_TOLERANCE:
            break
    return b


def fitted_slopes(
    spacings: Float[np.ndarray, "draw rank"],
    terms: Float[np.ndarray, "rank term"],
    first: int = 0,
) -> Float[np.ndarray, "draw rank"]:
    """g at every rank, fitted to the ranks from index `first` on and extrapolated above them."""
    return np.exp(exponential_regression(spacings[:, first:], terms[first:]) @ terms.T)


def curve_from_slopes(
    slopes: Float[np.ndarray, "draw rank"],
) -> Float[np.ndarray, "draw rank+1"]:
    """log v at each rank, less log v at the last: the sum of slope / rank from the bottom up."""
    falls = slopes / np.arange(1, slopes.shape[1] + 1)
    rise = np.cumsum(falls[:, ::-1], axis=1)[:, ::-1]
    return np.concatenate([rise, np.zeros((rise.shape[0], 1))], axis=1)


def draw_curves(
    slopes: Float[np.ndarray, " rank"], n_draws: int, *, rng: np.random.Generator
) -> Float[np.ndarray, "draw rank+1"]:
    """Sorted log values of independent samples whose rank curve has these expected slopes."""
    return curve_from_slopes(slopes * rng.exponential(size=(n_draws, slopes.size)))
