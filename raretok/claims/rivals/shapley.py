"""How much of a variable each of several others explains (Lindeman, Merenda and Gold, 1980)."""

from collections.abc import Iterable, Iterator
from itertools import combinations
from math import factorial

import numpy as np
from jaxtyping import Float

SAME = 1e-10  # of the largest: smaller eigenvalues are those of scores that say the same


def correlations(
    scores: Float[np.ndarray, "*fold variable neuron"],
) -> Float[np.ndarray, "*fold variable variable"]:
    """Of standardised or normal scores."""
    covariance = scores @ np.swapaxes(scores, -1, -2)
    size = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    return covariance / (size[..., None] * size[..., None, :])


def r_squared(
    corr: Float[np.ndarray, "*fold variable variable"], some: tuple[int, ...]
) -> Float[np.ndarray, "*fold"]:
    """Of the regression of the last variable on some of the others."""
    if not some:
        return np.zeros(corr.shape[:-2])
    rows = np.array(some)
    inverse = np.linalg.pinv(corr[..., rows[:, None], rows], rcond=SAME, hermitian=True)
    with_last = corr[..., rows, -1]
    return np.asarray(np.einsum("...i,...ij,...j->...", with_last, inverse, with_last))


def shapley(
    corr: Float[np.ndarray, "*fold variable variable"],
) -> Float[np.ndarray, "*fold rival"]:
    """Each variable's part of the R squared of all (the last is explained); they add up to it."""
    n = corr.shape[-1] - 1
    found = np.zeros((*corr.shape[:-2], n))
    worth = {some: r_squared(corr, some) for some in subsets(range(n))}
    for rival in range(n):
        for some in subsets([one for one in range(n) if one != rival]):
            turn = factorial(len(some)) * factorial(n - len(some) - 1) / factorial(n)
            more = worth[tuple(sorted((*some, rival)))] - worth[some]
            found[..., rival] += turn * more
    return found


def subsets(items: Iterable[int]) -> Iterator[tuple[int, ...]]:
    """All of them, the empty one first, each in order."""
    items = list(items)
    return (some for size in range(len(items) + 1) for some in combinations(items, size))
