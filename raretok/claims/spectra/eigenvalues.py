"""Spectra of correlation matrices, by hand: tail index, and the law of pure noise.

Eigenvalues come in rows (one a group), largest first.
"""

import numpy as np
from jaxtyping import Float

from raretok.errors import UserError

Correlations = Float[np.ndarray, "group member member"]
Spectra = Float[np.ndarray, "group rank"]
Weights = Float[np.ndarray, "neuron weight"]
ZERO = 1e-9  # eigenvalues below this are those of directions that centring or rank takes away


def standard_rows(weights: Weights) -> Weights:
    """Rows centred and scaled to variance 1 over their entries; `UserError` for a constant row."""
    centred = weights - weights.mean(axis=1, keepdims=True)
    sd = centred.std(axis=1, keepdims=True)
    if not np.isfinite(sd).all() or (sd <= 1e-12 * np.abs(weights).max(initial=0)).any():
        bad = int(np.argmin(np.where(np.isfinite(sd), sd, -1)))
        raise UserError(f"the weights of neuron {bad} are constant: they correlate with nothing")
    return centred / sd


def descending(r: Correlations) -> Spectra:
    """Eigenvalues of symmetric matrices, largest first; rounding below zero is cut."""
    return np.maximum(np.linalg.eigvalsh(r)[:, ::-1], 0.0)


def hill(spectra: Spectra, k: int) -> Float[np.ndarray, " group"]:
    r"""Hill's tail index of the k largest eigenvalues (Hill, 1975).

    $$\hat\alpha_k = \Big( \frac1k \sum_{i \le k} \ln \frac{\lambda_i}{\lambda_{k+1}} \Big)^{-1}$$

    Convention: the exponent of the survival function, P(x > t) ~ t^-alpha, the reciprocal of the
    extreme-value index xi. The exponent of the *density*, which powerlaw and weightwatcher report
    (and whose "heavy-tailed below 2" is often quoted), is alpha + 1. Small is heavy-tailed.
    Its relative standard error is 1 / sqrt(k) for independent values. Infinite for ties.
    """
    logs = np.log(np.maximum(spectra, ZERO))
    mean_gap = logs[:, :k].mean(axis=1) - logs[:, k]
    # A tie leaves rounding, not zero: without the floor its sign would be chance.
    return 1 / np.maximum(mean_gap, 1e-14)


def noise_edge(n: int, d: int) -> float:
    """Where the eigenvalues of n rows of pure noise with d entries end: (1 + sqrt(n / d))^2.

    Marchenko and Pastur (1967), for C = X X^T / d and entries of variance 1.
    """
    return float((1 + np.sqrt(n / d)) ** 2)
