r"""Directions of the last MLP's input, and neurons made to read them.

What a neuron reads is mixed, at a strength $s$ in [0, 1], with a direction $u$ of the MLP's input:
with $\tilde x = x - \bar x$ and $w_\perp$ the part of the row that $\bar x$ does not see,

$$w' = (w - w_\perp) + \sigma\, \frac{(1 - s)\, w_\perp / \sigma + s\, u}{sd}, \qquad
\sigma = \mathrm{sd}(\tilde x \cdot w_\perp),$$

where $sd$ is that of the mixture, so that the neuron keeps its mean and its spread before the
nonlinearity: only *what* moves it changes. Directions have $\bar x \cdot u = 0$ and unit variance,
and those of different modules are uncorrelated. At strength 0 nothing is changed.
"""

import numpy as np
from jaxtyping import Float

from raretok.worlds.last_mlp import LastMLP


def mixed(
    rows: Float[np.ndarray, "member d_model"],
    directions: Float[np.ndarray, "#member d_model"],
    strength: float,
    x: Float[np.ndarray, "position d_model"],
) -> Float[np.ndarray, "member d_model"]:
    """Rows w' (see the module): mixed with a direction, same mean and spread."""
    if strength == 0:
        return rows
    mean = x.mean(axis=0, dtype=np.float64)
    along = np.outer(rows @ mean, mean) / (mean @ mean)
    across = rows - along
    sd = (x @ across.T).std(axis=0)[:, None]
    mixture = (1 - strength) * across / sd + strength * directions
    mixture = mixture / (x @ mixture.T).std(axis=0)[:, None]
    return (along + sd * mixture).astype(np.float32)


def random_directions(
    mlp: LastMLP, n: int, *, rng: np.random.Generator
) -> Float[np.ndarray, "direction d_model"]:
    """Random mixtures of what the layer's neurons read, made uncorrelated and of unit variance."""
    reads = mlp.W_in[rng.choice(len(mlp.W_in), size=min(len(mlp.W_in), 8 * n), replace=False)]
    return whitened(mlp.x, rng.standard_normal((n, len(reads))) @ reads)


def head_direction(mlp: LastMLP, head: int) -> Float[np.ndarray, " d_model"]:
    """The direction of the input that moves most when one head's output is held at its mean."""
    moved = mlp.x[mlp.heard_at] - mlp.x_without[head]
    _, _, directions = np.linalg.svd(moved - moved.mean(axis=0), full_matrices=False)
    return whitened(mlp.x, directions[:1])[0]


def whitened(
    x: Float[np.ndarray, "position d_model"], directions: Float[np.ndarray, "direction d_model"]
) -> Float[np.ndarray, "direction d_model"]:
    """Directions without the mean input, one after the other made uncorrelated (Gram-Schmidt)."""
    mean = x.mean(axis=0, dtype=np.float64)
    across = directions - np.outer(directions @ mean, mean) / (mean @ mean)
    seen = (x - x.mean(axis=0)) @ across.T
    upper = np.linalg.cholesky(seen.T @ seen / len(x)).T
    return np.linalg.solve(upper.T, across)
