"""Where a group's neurons "are": what can be tested where neurons have no positions.

The neurons of an MLP layer can be renumbered without changing the network, so no distance between
them means anything, and the graph of a group is built from activations: it is functional. What is
left of "spatial" is closeness in index (a renumbering that training might have left a trace in),
in what neurons read and write, and in the attention heads that feed them.
"""

import numpy as np
from jaxtyping import Float, Int

from raretok.errors import UserError
from raretok.models import LanguageModel

RANK = 1e-6  # singular values of a head's output below this share of the largest are none


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


def expected_index_distance(d_mlp: int) -> float:
    """Mean distance in index of two different neurons drawn at random: (N + 1) / 3."""
    return (d_mlp + 1) / 3


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


def head_cosines(
    reading: Float[np.ndarray, "neuron d_model"], W_O: Float[np.ndarray, "head d_head d_model"]
) -> Float[np.ndarray, "neuron head"]:
    """Cosine between what a neuron reads and the subspace each head writes to, 0 to 1.

    By chance its square is about d_head / d_model.
    """
    length = np.linalg.norm(reading, axis=1)
    unit = reading / np.where(length > 0, length, np.inf)[:, None]
    cosines = []
    for written in W_O:
        _, sizes, directions = np.linalg.svd(written, full_matrices=False)
        basis = directions[sizes > RANK * max(sizes.max(), RANK)]
        cosines.append(np.linalg.norm(unit @ basis.T, axis=1))
    return np.stack(cosines, axis=1)


def reading_directions(model: LanguageModel) -> Float[np.ndarray, "neuron d_model"]:
    """Direction in the residual stream that each neuron of the last MLP responds to.

    W_in behind the norm's gain; a LayerNorm also takes the mean out of what is read.
    """
    block = model.last_block
    norm = getattr(block, "ln2", None) or block.ln1  # one norm may serve attention and MLP
    gain = norm.weight.detach().double().cpu().numpy() + bool(norm.uses_weight_offset)
    directions = model.W_in.double().cpu().numpy() * gain
    if model.architecture.norm == "LayerNorm":
        directions = directions - directions.mean(axis=1, keepdims=True)
    return directions


def feeding_heads(model: LanguageModel) -> Float[np.ndarray, "head d_head d_model"]:
    """Output weights of the heads with a path to the last MLP, layer by layer.

    In a parallel block the MLP does not see the attention beside it: there the heads of the last
    layer are left out. Raises `UserError` where no head is left.
    """
    architecture = model.architecture
    n_layers = architecture.n_layers - architecture.parallel
    if n_layers == 0:
        raise UserError(
            f"{model.name} has one parallel block: no attention head has a path to its MLP"
        )
    blocks = [model.bridge.blocks[layer] for layer in range(n_layers)]
    return np.concatenate([block.attn.W_O.detach().double().cpu().numpy() for block in blocks])
