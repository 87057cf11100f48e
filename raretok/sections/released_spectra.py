"""What the paper's released code computes from the spectrum of a group's weights."""

import numpy as np
from jaxtyping import Float

from raretok.sections.eigenvalues import ZERO, hill

TAIL = 0.1  # share of the eigenvalues in the tail


def released_matrix(family: str) -> str:
    """Whose rows it correlates: what neurons read (Pythia), what they write (GPT-2).

    Two matrices for two families, so its comparison between families compares two things.
    """
    return "W_in" if family == "gpt_neox" else "W_out"


def released_tail(n: int) -> int:
    """Eigenvalues in the tail: a tenth, at least one; 1 of a group of 10, 3 of one of 30."""
    return max(1, int(TAIL * n))


def released_hill(spectra: Float[np.ndarray, "draw rank"]) -> Float[np.ndarray, " draw"]:
    """Its tail index: the survival exponent of a tenth of the eigenvalues, without the + 1."""
    return hill(spectra, released_tail(spectra.shape[1]))


def released_all(spectra: Float[np.ndarray, "draw rank"]) -> Float[np.ndarray, " draw"]:
    """Its second exponent: all eigenvalues over the smallest, 1 + n / sum of logs (density)."""
    logs = np.log(np.maximum(spectra, ZERO))
    return 1 + spectra.shape[1] / (logs - logs[:, -1:]).sum(axis=1)


def released_noise_distance(eigenvalues: Float[np.ndarray, " rank"], points: int = 1000) -> float:
    """Its distance to the Marchenko-Pastur law: NaN, whatever the eigenvalues.

    Released code: Q = n / n = 1 in place of d / n, so the lower edge is 0 and the density at the
    first grid point is 0 / 0. The running sum carries that NaN to the distance, the distance to
    the "phase" it decides.
    """
    q = eigenvalues.size / eigenvalues.size
    low, high = (1 - 1 / np.sqrt(q)) ** 2, (1 + 1 / np.sqrt(q)) ** 2
    grid = np.linspace(low, high, points)
    with np.errstate(invalid="ignore", divide="ignore"):
        density = q / (2 * np.pi) * np.sqrt((high - grid) * (grid - low)) / grid
        expected = np.cumsum(density) / density.sum()
    observed = np.searchsorted(np.sort(eigenvalues), grid, side="right") / eigenvalues.size
    return float(np.max(np.abs(observed - expected)))
