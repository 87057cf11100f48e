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
from raretok.claims.spectra.eigenvalues import (
    Correlations,
    Weights,
    descending,
    hill,
    standard_rows,
)
from raretok.stats.jackknife import Estimate, jackknife

ESTIMANDS = (("S1", "squared cosine"), ("S1", "Hill index"))


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
