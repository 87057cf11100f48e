"""Where a group's neurons "are": what can be tested where neurons have no positions.

The neurons of an MLP layer can be renumbered without changing the network, so no distance between
them means anything, and the graph of a group is built from activations: it is functional. What is
left of "spatial" is closeness in index (a renumbering that training might have left a trace in),
in what neurons read and write, and in the attention heads that feed them.
"""

import numpy as np
from jaxtyping import Float, Int


def pair_means(
    of_pair: Float[np.ndarray, "draw member member"],
) -> Float[np.ndarray, " draw"]:
    """Mean over the pairs of different members of each group."""
    n_members = of_pair.shape[-1]
    off = ~np.eye(n_members, dtype=bool)
    return of_pair[:, off].mean(axis=1)


def index_distance(groups: Int[np.ndarray, "draw member"]) -> Float[np.ndarray, " draw"]:
    """Mean distance of two members in neuron index."""
    return pair_means(np.abs(groups[:, :, None] - groups[:, None, :]).astype(float))


def absolute_cosine(
    rows: Float[np.ndarray, "neuron d_model"], groups: Int[np.ndarray, "draw member"]
) -> Float[np.ndarray, " draw"]:
    """Mean |cosine| between the weight vectors of two members; one of zeros is at 0 to all."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = (rows / np.where(length > 0, length, np.inf))[groups]
    return pair_means(np.abs(unit @ unit.transpose(0, 2, 1)))


def same_head(
    cosine: Float[np.ndarray, "neuron head"], groups: Int[np.ndarray, "draw member"]
) -> Float[np.ndarray, " draw"]:
    """Share of pairs of members that read most from the same head."""
    best = cosine.argmax(axis=1)[groups]
    return pair_means((best[:, :, None] == best[:, None, :]).astype(float))


def reading_directions(
    W_in: Float[np.ndarray, "neuron d_model"], gain: Float[np.ndarray, " d_model"], norm: str
) -> Float[np.ndarray, "neuron d_model"]:
    """Direction in the residual stream that each neuron of the last MLP responds to.

    W_in behind the norm's gain; a LayerNorm also takes the mean out of what is read.
    """
    directions = W_in * gain
    if norm == "LayerNorm":
        directions = directions - directions.mean(axis=1, keepdims=True)
    return directions
