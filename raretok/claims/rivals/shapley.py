"""How much of a variable each of several others explains (Lindeman, Merenda and Gold, 1980)."""

from itertools import combinations, permutations

import numpy as np
from jaxtyping import Float

Correlations = Float[np.ndarray, "*fold variable variable"]
SAME = 1e-10  # of the largest: smaller eigenvalues are those of scores that say the same


def correlations(scores: Float[np.ndarray, "*fold variable neuron"]) -> Correlations:
    """Of standardised or normal scores."""
    covariance = scores @ np.swapaxes(scores, -1, -2)
    size = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    return covariance / (size[..., None] * size[..., None, :])


def r_squared(corr: Correlations, some: tuple[int, ...]) -> Float[np.ndarray, "*fold"]:
    """Of the regression of the last variable on some of the others."""
    rows = np.array(some, dtype=int)
    inverse = np.linalg.pinv(corr[..., rows[:, None], rows], rcond=SAME, hermitian=True)
    with_last = corr[..., rows, -1]
    return np.asarray(np.einsum("...i,...ij,...j->...", with_last, inverse, with_last))


def shapley(corr: Correlations) -> Float[np.ndarray, "*fold rival"]:
    """Each variable's part of the R squared of all (the last is explained); they add up to it."""
    rivals = range(corr.shape[-1] - 1)
    some = (one for size in range(len(rivals) + 1) for one in combinations(rivals, size))
    worth = {frozenset(one): r_squared(corr, one) for one in some}
    found, orders = np.zeros((*corr.shape[:-2], len(rivals))), list(permutations(rivals))
    for order in orders:
        for i, rival in enumerate(order):
            found[..., rival] += worth[frozenset(order[: i + 1])] - worth[frozenset(order[:i])]
    return found / len(orders)
