"""Spectra of correlation matrices, by hand: tail index, spread, and the law of pure noise.

Eigenvalues come in rows (one a matrix, here a *draw*), largest first.
"""

import numpy as np
from jaxtyping import Float

from raretok.errors import UserError

GRID = 4096  # points of the numerical integral of the Marchenko-Pastur density
ZERO = 1e-9  # eigenvalues below this are those of directions that centring or rank takes away


def standard_rows(weights: Float[np.ndarray, "row weight"]) -> Float[np.ndarray, "row weight"]:
    """Rows centred and scaled to variance 1 over their entries; `UserError` for a constant row."""
    centred = weights - weights.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    if not np.isfinite(spread).all() or (spread <= 1e-12 * np.abs(weights).max(initial=0)).any():
        bad = int(np.argmin(np.where(np.isfinite(spread), spread, -1)))
        raise UserError(f"the weights of neuron {bad} are constant: they correlate with nothing")
    return centred / spread


def descending(correlations: Float[np.ndarray, "draw n n"]) -> Float[np.ndarray, "draw rank"]:
    """Eigenvalues of symmetric matrices, largest first; rounding below zero is cut."""
    return np.maximum(np.linalg.eigvalsh(correlations)[:, ::-1], 0.0)


def hill_curve(spectra: Float[np.ndarray, "draw rank"]) -> Float[np.ndarray, "draw k"]:
    r"""Hill's tail index of the k largest eigenvalues, for k = 1 .. ranks - 1 (Hill, 1975).

    $$\hat\alpha_k = \Big( \frac1k \sum_{i \le k} \ln \frac{\lambda_i}{\lambda_{k+1}} \Big)^{-1}$$

    Convention: the exponent of the survival function, P(x > t) ~ t^-alpha, the reciprocal of the
    extreme-value index xi. The exponent of the *density*, which powerlaw and weightwatcher report
    (and whose "heavy-tailed below 2" is often quoted), is alpha + 1. Small is heavy-tailed.
    Its relative standard error is 1 / sqrt(k) for independent values. Infinite for ties.
    """
    logs = np.log(np.maximum(spectra, ZERO))
    k = np.arange(1, spectra.shape[1])
    mean_gap = np.cumsum(logs, axis=1)[:, :-1] / k - logs[:, 1:]
    # A tie leaves rounding, not zero: without the floor its sign would be chance.
    return 1 / np.maximum(mean_gap, 1e-14)


def hill(spectra: Float[np.ndarray, "draw rank"], k: int) -> Float[np.ndarray, " draw"]:
    """Tail index of the k largest (see `hill_curve`). Raises `UserError` for an impossible k."""
    if not 0 < k < spectra.shape[1]:
        raise UserError(
            f"a tail of {k} eigenvalues cannot be had from {spectra.shape[1]}: "
            f"k must lie in 1..{spectra.shape[1] - 1}"
        )
    return hill_curve(spectra[:, : k + 1])[:, -1]


def stable_rank(spectra: Float[np.ndarray, "draw rank"]) -> Float[np.ndarray, " draw"]:
    """Sum over largest eigenvalue: n where all are equal, 1 where one direction is all."""
    return spectra.sum(axis=1) / spectra[:, 0]


def spectral_entropy(spectra: Float[np.ndarray, "draw rank"]) -> Float[np.ndarray, " draw"]:
    """Entropy of the eigenvalues as shares of their sum, nats: at most ln n."""
    share = spectra / spectra.sum(axis=1, keepdims=True)
    return -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)


def noise_edges(n: int, d: int) -> tuple[float, float]:
    """Where the eigenvalues of n rows of pure noise with d entries end: (1 -+ sqrt(n / d))^2.

    Marchenko and Pastur (1967), for C = X X^T / d and entries of variance 1. With n > d these are
    the d non-zero ones; the other n - d are zero.
    """
    root = np.sqrt(n / d)
    return float((1 - root) ** 2), float((1 + root) ** 2)


def noise_density(x: Float[np.ndarray, " x"], n: int, d: int) -> Float[np.ndarray, " x"]:
    """Marchenko-Pastur density of the non-zero eigenvalues; it integrates to 1."""
    low, high = noise_edges(n, d)
    inside = np.maximum((high - x) * (x - low), 0.0)
    # n > d: the continuous part holds d / n of all eigenvalues.
    mass = min(1.0, d / n)
    return np.sqrt(inside) / (2 * np.pi * (n / d) * np.where(x > 0, x, 1.0) * mass)


def noise_cumulative(x: Float[np.ndarray, "*shape"], n: int, d: int) -> Float[np.ndarray, "*shape"]:
    """Share of non-zero noise eigenvalues at or below x."""
    low, high = noise_edges(n, d)
    # x = low + (high - low) sin^2 takes the square roots at both edges out of the integrand.
    angle = (np.arange(GRID) + 0.5) * (np.pi / 2 / GRID)
    at = low + (high - low) * np.sin(angle) ** 2
    step = (high - low) * np.sin(2 * angle) * (np.pi / 2 / GRID)
    below = np.concatenate([[0.0], np.cumsum(noise_density(at, n, d) * step)])
    inside = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.interp(np.arcsin(np.sqrt(inside)), np.linspace(0, np.pi / 2, GRID + 1), below)


def noise_distance(
    spectra: Float[np.ndarray, "draw rank"], n: int, d: int
) -> Float[np.ndarray, " draw"]:
    """Kolmogorov-Smirnov distance of the non-zero eigenvalues to the Marchenko-Pastur law."""
    rank = spectra.shape[1]
    expected = noise_cumulative(spectra[:, ::-1], n, d)
    above = np.arange(1, rank + 1) / rank - expected
    return np.maximum(above, expected - np.arange(rank) / rank).max(axis=1)


def beyond_edge(
    spectra: Float[np.ndarray, "draw rank"], n: int, d: int
) -> Float[np.ndarray, " draw"]:
    """How many eigenvalues lie beyond the upper edge of noise."""
    return (spectra > noise_edges(n, d)[1]).sum(axis=1).astype(float)


def noise_rows(n: int, d: int, *, rng: np.random.Generator) -> Float[np.ndarray, "row weight"]:
    """Gaussian rows, standardised as weights are."""
    return standard_rows(rng.standard_normal((n, d)))


def noise_spectra(
    n: int, d: int, n_draws: int, *, rng: np.random.Generator
) -> Float[np.ndarray, "draw rank"]:
    """Non-zero eigenvalues of the correlation matrix of n Gaussian rows, in many draws."""
    rank = min(n, d - 1)  # centring takes one direction
    spectra = np.empty((n_draws, rank))
    for draw in range(n_draws):  # one at a time: all at once would need gigabytes
        rows = noise_rows(n, d, rng=rng)
        gram = rows @ rows.T if n < d else rows.T @ rows
        spectra[draw] = descending(gram[None] / d)[0, :rank]
    return spectra


def shared_direction_spectra(
    n: int, d: int, largest: float, n_draws: int, *, rng: np.random.Generator
) -> Float[np.ndarray, "draw rank"]:
    """Spectra of Gaussian rows with one direction in common and nothing else.

    Each row has that direction with the weight that makes the expected largest eigenvalue
    `largest`. Not heavy-tailed in any sense: what such rows do to a tail index, a spike does.
    """
    common = np.clip((largest - 1) / (n - 1), 0.0, 1.0)
    spectra = np.empty((n_draws, n))
    for draw in range(n_draws):
        noise = rng.standard_normal((n, d))
        rows = standard_rows(np.sqrt(common) * rng.standard_normal(d) + np.sqrt(1 - common) * noise)
        spectra[draw] = descending((rows @ rows.T / d)[None])[0]
    return spectra
