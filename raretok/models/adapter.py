"""Language models: the one adapter over TransformerLens."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.errors import NotTestableError, UserError
from raretok.models.architecture import Architecture

PROBE = 8  # tokens on which it is tried what a model can do


@dataclass(frozen=True)
class LanguageModel:
    """A loaded model in its raw basis: no weight is folded, centred or scaled."""

    name: str  # as asked for; of a local directory only the last folder
    bridge: Any  # transformer_lens.model_bridge.TransformerBridge
    tokenizer: Any
    architecture: Architecture
    bos: int  # first token of every context
    files_sha256: str  # of configuration, weights and tokenizer

    @property
    def dtype(self) -> torch.dtype:
        return self.W_U.dtype

    @property
    def device(self) -> torch.device:
        return self.W_U.device

    @property
    def last_block(self) -> Any:
        return self.bridge.blocks[self.architecture.n_layers - 1]

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        return self.down(-1)[0]

    def index(self, layer: int) -> int:
        """A layer counted from the first; a negative one counts from the end, -1 being the last.

        Raises `UserError` for a layer that the model does not have.
        """
        n_layers = self.architecture.n_layers
        if not -n_layers <= layer < n_layers:
            raise UserError(
                f"{self.name} has no layer {layer}: it has 0 to {n_layers - 1}, "
                f"or -{n_layers} to -1 counted from the last"
            )
        return layer % n_layers

    def mlp(self, layer: int) -> Any:
        """The MLP of a layer, as TransformerLens has it."""
        return self.bridge.blocks[self.index(layer)].mlp

    def down(self, layer: int) -> tuple[Float[Tensor, "d_mlp d_model"], Float[Tensor, " d_model"]]:
        """W_out and b_out of a layer; zeros for a layer without a bias."""
        W_out = self.mlp(layer).W_out.detach().to(self.W_U)
        bias = getattr(self.down_projection(layer), "bias", None)
        return W_out, torch.zeros_like(W_out[0]) if bias is None else bias.detach().to(W_out)

    def down_projection(self, layer: int = -1) -> Any:
        """The module that multiplies by W_out; of a dense layer among experts, its own."""
        return getattr(self.mlp(layer), "dense_out", None) or self.mlp(layer).out

    def hook_post(self, layer: int = -1) -> str:
        """Name of the hook that sees the input of W_out."""
        inner = "dense_out.hook_in" if hasattr(self.mlp(layer), "dense_out") else "hook_post"
        return f"blocks.{self.index(layer)}.mlp.{inner}"

    @cached_property
    def n_outputs(self) -> list[int]:
        """How many outputs each block hands on as a tuple; 0 where it is the residual alone."""
        found: dict[int, int] = {}
        blocks = [block.original_component for block in self.bridge.blocks]

        def note(module: Any, args: Any, out: Any) -> None:
            found[id(module)] = len(out) if isinstance(out, tuple) else 0

        handles = [block.register_forward_hook(note) for block in blocks]
        with torch.no_grad():
            self.bridge(probe_tokens(self.device, 1), return_type=None, use_cache=False)
        for handle in handles:
            handle.remove()
        return [found.get(id(block), 0) for block in blocks]

    @cached_property
    def resumes(self) -> bool:
        """Whether TransformerLens can run it from its middle: the second block on what the first
        hands on must end where the whole does."""
        if self.architecture.n_layers == 1:
            return True
        seen: list[Tensor] = []
        names = ("blocks.1.hook_resid_pre", f"blocks.{self.architecture.n_layers - 1}.hook_out")
        hooks = [(name, lambda value, hook: seen.append(value)) for name in names]
        options = {"fwd_hooks": hooks, "return_type": None, "use_cache": False}
        with torch.no_grad():
            self.bridge.run_with_hooks(probe_tokens(self.device, self.W_U.shape[1]), **options)
            self.bridge.run_with_hooks(seen[0], start_at_layer=1, **options)
        return bool(torch.allclose(seen[-1], seen[1], rtol=1e-3, atol=1e-3))

    def check_heads(self, layers: range) -> None:
        """Raise `NotTestableError` unless each of these layers has attention heads."""
        known = self.bridge.hook_dict
        without = [n for n in layers if f"blocks.{n}.attn.hook_pattern" not in known]
        if without:
            raise NotTestableError(
                f"{self.name} ({self.architecture.family}) has no attention heads in layer "
                f"{', '.join(map(str, without))}: heads of its other layers alone are not what "
                "the claims are about"
            )

    def post_norm(self, layer: int = -1) -> Any:
        """The norm between an MLP and the residual (sandwich norm); None where there is none."""
        return getattr(self.bridge.blocks[self.index(layer)], "ln2_post", None)

    @property
    def W_in(self) -> Float[Tensor, "d_mlp d_model"]:
        """What each neuron of the last MLP reads; of a gated one the ungated branch."""
        return self.last_block.mlp.W_in.detach().T

    @property
    def W_gate(self) -> Float[Tensor, "d_mlp d_model"]:
        """What the gate of each neuron of a gated last MLP reads."""
        return self.last_block.mlp.W_gate.detach().T

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        return self.bridge.W_U.detach()

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        return self.bridge.b_U.detach()

    @property
    def gain(self) -> Float[Tensor, " d_model"]:
        """Gain of the final norm, as it acts (Gemma stores it minus one), in float64."""
        return gain_of(self.bridge.ln_final, self.W_U[:, 0])

    @property
    def bias(self) -> Float[Tensor, " d_model"]:
        """Bias of the final norm: zeros for RMSNorm."""
        bias = getattr(self.bridge.ln_final, "bias", None)
        return torch.zeros_like(self.W_U[:, 0]) if bias is None else bias.detach()

    @cached_property
    def eps(self) -> float:
        return eps_of(self.bridge.ln_final)


def gain_of(norm: Any, like: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    """Gain of a norm as it acts, in float64: ones for a norm without weights (OLMo)."""
    weight = getattr(norm, "weight", None)
    if weight is None:
        return torch.ones_like(like, dtype=torch.float64)
    # In the dtype of the weight the sum would be rounded, in bfloat16 to two or three digits.
    return weight.detach().double() + (1 if norm.uses_weight_offset else 0)


def eps_of(norm: Any) -> float:
    """What a norm adds to the mean square; OLMo's, which has no weights, does not say its own."""
    inner = norm.original_component
    given = (getattr(inner, name, None) for name in ("variance_epsilon", "eps", "norm_eps"))
    return float(next((eps for eps in given if eps is not None), 1e-5))


def W_out_of(model: LanguageModel, layer: int) -> Float[Tensor, "d_mlp d_model"]:
    """Output weights of the MLP of a layer, times the multiplier of its output.

    Raises `NotTestableError` for a layer without one dense MLP.
    """
    try:
        W_out = model.down(layer)[0]
        sandwich = model.post_norm(layer) is not None  # its gain has the multiplier
        return W_out if sandwich else W_out * model.architecture.out_scale
    except AttributeError:
        raise NotTestableError(
            f"layer {layer} of {model.name} has no dense MLP: choose another layer"
        ) from None


def probe_tokens(device: torch.device, d_vocab: int) -> Int[Tensor, "1 pos"]:
    """A few tokens to try a model on."""
    return torch.arange(PROBE, device=device)[None] % d_vocab
