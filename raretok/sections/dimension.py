"""How many dimensions a group of neurons uses: the spectrum of its correlation matrix.

Two readings of one spectrum: the participation ratio, which weighs all of it, and the number of
principal components that hold 95 % of the variance (released code).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from raretok.stats.documents import document_sums

SHARE = 0.95  # of the variance (released code)
CHUNK = 100  # groups whose matrices are held at once
ROUNDING = 1e-9  # a share of exactly 95 % counts as reached

# One number for each correlation matrix.
Spectrum = Callable[[Float[np.ndarray, "draw member member"]], Float[np.ndarray, " draw"]]


def correlations(post: Float[np.ndarray, "position neuron"]) -> Float[np.ndarray, "neuron neuron"]:
    """Pearson correlations; a constant neuron has none, not even with itself (row of zeros)."""
    centred = post.astype(np.float64)
    centred -= centred.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    # Below rounding error a neuron is constant: its mean need not be exact.
    still = norm <= 1e-10 * np.sqrt(len(post)) * np.abs(post).max(axis=0, initial=0)
    unit = np.where(still, 0.0, centred / np.where(norm > 0, norm, 1.0))
    return unit.T @ unit


def participation_ratio(
    matrices: Float[np.ndarray, "draw member member"],
) -> Float[np.ndarray, " draw"]:
    r"""Effective number of dimensions of each correlation matrix; NaN where all is constant.

    $$\frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}
    = \frac{(\mathrm{tr} R)^2}{\sum_{ij} R_{ij}^2} = \frac{n}{1 + (n - 1)\, \overline{r^2}}$$

    From 1 (all n neurons alike) to n (none correlated): the mean square of the correlations in
    another unit. The last form holds where no neuron is constant.
    """
    squares = (matrices**2).sum(axis=(1, 2))
    trace = np.trace(matrices, axis1=1, axis2=2)
    return trace**2 / np.where(squares > 0, squares, np.nan)


def variance_count(matrices: Float[np.ndarray, "draw member member"]) -> Float[np.ndarray, " draw"]:
    """Fewest principal components of z-scored neurons that hold 95 % of their variance.

    NaN where all is constant. (released code, which divides it by the number of neurons)
    """
    finite = np.isfinite(matrices).all(axis=(1, 2))
    spectrum = np.linalg.eigvalsh(np.where(finite[:, None, None], matrices, 0.0))[:, ::-1].clip(0)
    total = spectrum.sum(axis=1, keepdims=True)
    reached = np.cumsum(spectrum, axis=1) >= (SHARE - ROUNDING) * total
    return np.where(total[:, 0] > 0, reached.argmax(axis=1) + 1.0, np.nan)


def of_groups(
    matrix: Float[np.ndarray, "neuron neuron"],
    groups: Int[np.ndarray, "draw member"],
    spectrum: Spectrum,
) -> Float[np.ndarray, " draw"]:
    """The number `spectrum` gives for each group, from the correlations of all neurons."""
    parts = [groups[at : at + CHUNK] for at in range(0, len(groups), CHUNK)]
    return np.concatenate([spectrum(matrix[g[:, :, None], g[:, None, :]]) for g in parts])


def shuffled(
    post: Float[np.ndarray, "position member"],
    spectrum: Spectrum,
    n_draws: int,
    *,
    rng: np.random.Generator,
) -> Float[np.ndarray, " draw"]:
    """The number `spectrum` gives once each neuron's activations are permuted over positions.

    That keeps what each neuron does and destroys what they do together.
    """
    draws = (correlations(rng.permuted(post, axis=0)) for _ in range(n_draws))
    return spectrum(np.stack(list(draws)))


def resampled(
    post: Float[np.ndarray, "position neuron"],
    document: Int[np.ndarray, " position"],
    groups: Int[np.ndarray, "draw member"],
    counts: Float[np.ndarray, "boot document"],
    spectrum: Spectrum,
) -> Float[np.ndarray, "draw boot"]:
    """The number `spectrum` gives for each group in each bootstrap sample of documents.

    From sums of x and x x^T over each document, so no position is read twice.
    """
    centred = post - post.mean(axis=0)
    draws = []
    for group in groups:
        x = centred[:, group].astype(np.float64)
        products = np.einsum("ti,tj->tij", x, x).reshape(len(x), -1)
        both = np.concatenate([x, products], axis=1)
        sums = document_sums(both, document, np.ones(len(x)), counts.shape[1])
        total = (counts @ sums.weight)[:, None]
        moments = (counts @ sums.value) / np.where(total > 0, total, np.nan)
        draws.append(spectrum(_from_moments(moments, group.size)))
    return np.stack(draws)


def _from_moments(
    moments: Float[np.ndarray, "boot moment"], n: int
) -> Float[np.ndarray, "boot member member"]:
    """Correlation matrices from the means of x and of x x^T."""
    mean, second = moments[:, :n], moments[:, n:].reshape(-1, n, n)
    covariance = second - mean[:, :, None] * mean[:, None, :]
    variance = np.einsum("bii->bi", covariance)
    still = variance <= 1e-12 * np.einsum("bii->bi", second)
    sd = np.sqrt(np.where(still, np.inf, variance))
    return covariance / (sd[:, :, None] * sd[:, None, :])


def independent(
    n_positions: int,
    n_neurons: int,
    spectrum: Spectrum,
    n_draws: int,
    *,
    rng: np.random.Generator,
) -> Float[np.ndarray, " draw"]:
    """The number `spectrum` gives for unrelated neurons: how far it is from their number."""
    draws = (correlations(rng.normal(size=(n_positions, n_neurons))) for _ in range(n_draws))
    return spectrum(np.stack(list(draws)))
