"""What a model is built of, as far as anything said of it depends on that."""

from dataclasses import dataclass


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
    scaled: bool  # logits or residual carry a multiplier
    n_parameters: int

    @property
    def closed_form_refusal(self) -> str | None:
        """Why the closed form does not hold for this model; None where it does."""
        if self.sandwich:
            return "a norm stands between its last MLP and the residual (sandwich norm)"
        if self.softcap is not None:
            return f"its logits are soft-capped at {self.softcap:g}"
        if self.scaled:
            return "its logits or residual carry a multiplier"
        return None

    def reaches_last_mlp(self, layer: int) -> bool:
        """Whether anything a head of the layer writes can be read by the last MLP.

        In a parallel block attention and MLP read the same residual, so heads of the last layer
        write only after its MLP has read: their effect on it is exactly none.
        """
        return not (self.parallel and layer == self.n_layers - 1)
