"""What the neurons of the last MLP read, and which attention heads write it."""

import numpy as np
from jaxtyping import Float

from raretok.errors import UserError
from raretok.models.adapter import LanguageModel

RANK = 1e-6  # singular values of a head's output below this share of the largest are none


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


def mlp_gain(model: LanguageModel) -> Float[np.ndarray, " d_model"]:
    """Gain of the norm that the last MLP reads through."""
    block = model.last_block
    norm = getattr(block, "ln2", None) or block.ln1  # one norm may serve attention and MLP
    return norm.weight.detach().double().cpu().numpy() + bool(norm.uses_weight_offset)


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
