"""The page `spectra`: estimands of S1 (data/claims.yaml).

A row of W_in is what a neuron reads, a row of W_out what it writes, in the raw basis of the
residual stream. Rows are centred and scaled over their entries; eigenvalues are those of the
correlations of a group's rows.
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from raretok.claims.compare import Compared, Spread, apart, over_controls, spread, together
from raretok.claims.finding import Finding
from raretok.claims.sample import DRAWS, Sample
from raretok.errors import UserError
from raretok.stats.jackknife import Estimate, jackknife

ESTIMANDS = (("S1", "squared cosine"), ("S1", "Hill index"))
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


def weight_rows(sample: Sample) -> Weights:
    """Standardised rows of W_in (of a gated MLP W_gate too) and W_out side by side.

    Zeros for silent neurons, which are in no group and no control.
    """
    live = ~sample.silent
    rows = [standard_rows(weights[live]) for weights in sample.matrices.values()]
    found = np.zeros((live.size, sum(one.shape[1] for one in rows)))
    found[live] = np.concatenate(rows, axis=1)
    return found


def of_groups(sample: Sample, rows: Weights, statistic: Callable) -> Compared:
    """A statistic of the rows' correlations within the group and its controls, in every fold."""
    groups = sample.with_controls(DRAWS)
    used, at = np.unique(groups, return_inverse=True)
    r = rows[used] @ rows[used].T / rows.shape[1]
    flat = at.reshape(-1, groups.shape[-1])
    # Folds share most of their groups: each is looked at once.
    distinct, which = np.unique(flat, axis=0, return_inverse=True)
    values = statistic(r[distinct[:, :, None], distinct[:, None, :]])
    return values[which.ravel()].reshape(groups.shape[:3])


def squared_cosine(r: Correlations) -> Float[np.ndarray, " group"]:
    """Mean squared correlation of two rows: what squared eigenvalues hold beyond unrelated rows.

    (sum of squared eigenvalues - n) / n (n - 1) for n rows.
    """
    n = r.shape[1]
    return ((r**2).sum(axis=(1, 2)) - n) / (n * (n - 1))


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


def log_hill(r: Correlations) -> Float[np.ndarray, " group"]:
    """ln of Hill's tail index of the largest half of the eigenvalues."""
    return np.log(hill(descending(r), max(1, r.shape[1] // 2)))


def cosines(sample: Sample, rows: Weights | None = None) -> Compared:
    """Squared cosine of the weight rows of group and controls in every fold, in units of chance."""
    rows = weight_rows(sample) if rows is None else rows
    return of_groups(sample, rows, squared_cosine) * rows.shape[1]


def tail_index(sample: Sample) -> tuple[Estimate, Spread]:
    """Hill index of the group, which scatters as its controls do, and theirs."""
    index = of_groups(sample, weight_rows(sample), log_hill)
    group, scatter = index[:, :, 0].mean(axis=1), apart(index)[1]
    return jackknife(group, scatter).through(np.exp), spread(index, np.exp)


def findings(sample: Sample) -> Iterator[Finding]:
    """S1 under one reading."""
    yield from together(
        ESTIMANDS, sample, lambda: [over_controls(cosines(sample)), tail_index(sample)]
    )
