"""Do neurons of a group read and write alike? Cosines of their weight vectors."""

import numpy as np
from jaxtyping import Float, Int


def cosines(weights: Float[np.ndarray, "neuron d_model"]) -> Float[np.ndarray, "neuron neuron"]:
    """Cosine of each pair of weight vectors; 0 where one of them is 0."""
    norm = np.linalg.norm(weights, axis=1, keepdims=True)
    unit = weights / np.where(norm > 0, norm, 1.0)
    return unit @ unit.T


def within(
    matrix: Float[np.ndarray, "neuron neuron"], groups: Int[np.ndarray, "draw member"]
) -> Float[np.ndarray, " draw"]:
    """Mean over the pairs of each group."""
    first, second = np.triu_indices(groups.shape[1], k=1)
    return matrix[groups[:, first], groups[:, second]].mean(axis=1).astype(np.float64)


def between(
    matrix: Float[np.ndarray, "neuron neuron"],
    group: Int[np.ndarray, " member"],
    groups: Int[np.ndarray, "draw member"],
) -> Float[np.ndarray, " draw"]:
    """Mean over the pairs of one neuron of the group and one of each other group."""
    return matrix[group][:, groups].mean(axis=(0, 2)).astype(np.float64)
