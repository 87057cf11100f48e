"""What a model is built of, as far as anything said of it depends on that."""

from dataclasses import dataclass
from typing import Literal

Family = Literal["gpt2", "neox", "llama"]  # of the architectures that can be trained


@dataclass(frozen=True)
class Architecture:
    """What a model is built of, as far as ablating its last MLP depends on it."""

    family: str  # model_type of its configuration
    n_layers: int
    d_model: int
    d_mlp: int  # of the last layer
    n_heads: int
    d_vocab: int  # columns of W_U
    n_ctx: int
    norm: str  # LayerNorm or RMSNorm
    parallel: bool  # attention and MLP of a block read the same residual
    gated: bool
    tied: bool  # W_U is the embedding
    padded_rows: int  # d_vocab minus the ids of the tokenizer: columns without a token
    softcap: float | None
    sandwich: bool  # a norm between the MLP and the residual
    n_parameters: int
    scaled: bool = False  # of measurements made before multipliers were counted in
    out_scale: float = 1.0  # what the MLP's output is multiplied by on its way to the residual
    logit_scale: float = 1.0  # what the logits are multiplied by

    @property
    def earlier_layers_refusal(self) -> str | None:
        """Why neurons of layers before the last cannot be pushed; None where they can."""
        if self.softcap is not None:
            return f"its logits are soft-capped at {self.softcap:g}"
        return None

    def reaches_last_mlp(self, layer: int) -> bool:
        """Whether anything a head of the layer writes can be read by the last MLP.

        In a parallel block attention and MLP read the same residual, so heads of the last layer
        write only after its MLP has read: their effect on it is exactly none.
        """
        return not (self.parallel and layer == self.n_layers - 1)
