"""Language models: the one adapter over TransformerLens, reading Hugging Face directories."""

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from raretok.errors import NotTestableError, UserError, first_line
from raretok.models.architecture import Architecture
from raretok.models.files import (
    TWIN,
    check_files,
    files_digest,
    model_folder,
    resolve_model,
    source_record,
    twin_seed,
)
from raretok.models.storage import keep_blocks_in
from raretok.text.corpus import SHORTEST

# What checkpoints hold beside weights: masks and frequencies that a model makes itself.
WIDE = ("F64", "F32", "F16", "BF16")
LEFTOVER = re.compile(r"(attn|attention)\.(masked_)?bias$|inv_freq$|position_ids$")
PROBE = 8  # tokens on which TransformerLens must compute what transformers does
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


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

    def down(self, layer: int) -> tuple[Float[Tensor, "d_mlp d_model"], Float[Tensor, " d_model"]]:
        """W_out and b_out of a layer; zeros for a layer without a bias."""
        mlp = self.bridge.blocks[layer % self.architecture.n_layers].mlp
        W_out = mlp.W_out.detach().to(self.W_U)
        bias = getattr(self.down_projection(layer), "bias", None)
        return W_out, torch.zeros_like(W_out[0]) if bias is None else bias.detach().to(W_out)

    def down_projection(self, layer: int = -1) -> Any:
        """The module that multiplies by W_out; of a dense layer among experts, its own."""
        mlp = self.bridge.blocks[layer % self.architecture.n_layers].mlp
        return getattr(mlp, "dense_out", None) or mlp.out

    def hook_post(self, layer: int = -1) -> str:
        """Name of the hook that sees the input of W_out."""
        layer %= self.architecture.n_layers
        inner = "dense_out.hook_in" if hasattr(self.bridge.blocks[layer].mlp, "dense_out") else ""
        return f"blocks.{layer}.mlp.{inner or 'hook_post'}"

    @cached_property
    def n_outputs(self) -> list[int]:
        """How many outputs each block hands on as a tuple; 0 where it is the residual alone."""
        found: dict[int, int] = {}
        blocks = [block.original_component for block in self.bridge.blocks]

        def note(module: Any, args: Any, out: Any) -> None:
            found[id(module)] = len(out) if isinstance(out, tuple) else 0

        handles = [block.register_forward_hook(note) for block in blocks]
        with torch.no_grad():
            self.bridge(_probe(self.device, 1), return_type=None, use_cache=False)
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
            self.bridge.run_with_hooks(_probe(self.device, self.W_U.shape[1]), **options)
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
        return getattr(self.bridge.blocks[layer % self.architecture.n_layers], "ln2_post", None)

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


@dataclass(frozen=True)
class Capture:
    """What the last MLP and the final norm see."""

    resid: Float[Tensor, "batch pos d_model"]  # before the final norm
    post: Float[Tensor, "batch pos d_mlp"]  # input of W_out, last layer


def capture(model: LanguageModel, tokens: Int[Tensor, "batch pos"]) -> Capture:
    """Run the blocks once; the logits of all but the last position are never computed.

    Right padding needs no mask in a causal model: no real position reads it.
    """
    layer = model.architecture.n_layers - 1
    seen: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[..., None]:
        def keep(activation: Tensor, hook: Any) -> None:
            seen[name] = activation.detach()

        return keep

    names = (f"blocks.{layer}.hook_resid_post", model.hook_post())
    with torch.no_grad():
        model.bridge.run_with_hooks(
            tokens.to(model.device),
            fwd_hooks=[(name, keeper(name)) for name in names],
            return_type=None,
            logits_to_keep=1,
            use_cache=False,
        )
    # OPT joins batch and positions before its MLP; blocks may lie on other devices than W_U.
    shape = (*tokens.shape, -1)
    return Capture(*(seen[name].reshape(shape).to(model.device) for name in names))


def load_model(
    name: str,
    *,
    revision: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    kept_in: torch.dtype | None = None,
) -> LanguageModel:
    """Load a shipped model by name, a local Hugging Face directory, a GGUF file, or a Hub id.

    `NAME@untrained` is the same configuration with fresh random weights; the seed is that of the
    directory's training.json if it has one, else 0, so it is where a shipped model's training
    began. `device="auto"` spreads it over the GPUs there are. With `kept_in` weights are rounded to
    that dtype, and kept in it for all blocks but the last (models/storage.py); all is computed in
    float32. Only safetensors are read and no code of the model's is run. Raises `UserError`, and
    warns of weights that have no place in the model.
    """
    place, folder = resolve_model(name), model_folder(name, revision)
    untrained = name.endswith(TWIN)
    known = place.name if place.is_dir() else place.stem if place.is_file() else str(place)
    label = known + TWIN * untrained
    with _quiet(), torch.random.fork_rng(devices=[]):  # building a model draws random weights
        check_files(folder, label, weights=not untrained)
        config = _config(folder, label)
        if untrained:
            seed = twin_seed(folder)
            hf_model, sha256 = _fresh(config, seed, label), files_digest(folder, seed)
            hf_model, unused = hf_model.to(dtype), ""
        else:
            hf_model, unused = _weights(folder, config, kept_in or dtype, device, label)
            sha256 = files_digest(folder, None)
        if device != "auto":
            hf_model = hf_model.to(device)
        if kept_in:  # another model than its files, whose weights it rounds
            sha256 = hashlib.sha256(f"{sha256} in {kept_in}".encode()).hexdigest()
            keep_blocks_in(hf_model, kept_in)
        tokenizer = _tokenizer(folder, label)
        first = source_record(place).get("first_token")
        model = _assemble(hf_model, tokenizer, label, str(folder), sha256, first, kept_in)
    if unused:
        warnings.warn(unused, stacklevel=2)
    return model


def random_model(
    config: PretrainedConfig, tokenizer: Any, name: str, *, seed: int, device: str = "cpu"
) -> LanguageModel:
    """A model with random weights, straight from a configuration: what a shape costs to run.

    Raises `UserError` for one that TransformerLens cannot wrap.
    """
    record = f"{config.to_json_string()}, seed {seed}\n"
    with _quiet():
        hf_model = _fresh(config, seed, name).to(device)
        # The source is a label here; a name that TransformerLens knows would be looked up.
        sha256 = hashlib.sha256(record.encode()).hexdigest()
        return _assemble(hf_model, tokenizer, name, f"random/{name}", sha256)


def untrained_twin(config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """Model of this configuration with random weights in float32; equal for equal seeds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        )


def _config(folder: Path, label: str) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # each model type checks its own fields in its own way
        raise UserError(f"cannot read config.json of {label}: {first_line(error)}") from None
    least = {"num_hidden_layers": (1, "layers"), "max_position_embeddings": (SHORTEST, "positions")}
    for name, (smallest, what) in least.items():
        value = getattr(config, name, None)
        if value is not None and value < smallest:
            raise UserError(f"{label} has {value} {what}, and {smallest} or more are needed")
    return config


def _fresh(config: PretrainedConfig, seed: int, label: str) -> PreTrainedModel:
    try:
        return untrained_twin(config, seed)
    except ValueError as error:
        raise UserError(f"{label} is no causal language model: {first_line(error)}") from None


def _check_stored(folder: Path, config: PretrainedConfig, label: str) -> None:
    """Raise `UserError` for weights of few bits without a word on how they were quantised."""
    if getattr(config, "quantization_config", None):
        return
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (no mapping)
                kind = opened.get_slice(name).get_dtype()
                if name.endswith("weight") and kind not in WIDE:
                    raise UserError(
                        f"{name} of {label} is stored as {kind}, and config.json does not say with "
                        "which scales: take the model as bfloat16 or float32"
                    )


def _weights(
    folder: Path, config: PretrainedConfig, dtype: torch.dtype, device: str, label: str
) -> tuple[PreTrainedModel, str]:
    """A model, and what is to be said of weights that it has no place for."""
    try:
        _check_stored(folder, config, label)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            device_map="auto" if device == "auto" else None,
            use_safetensors=True,
            attn_implementation="eager",  # as TransformerLens has it
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # so that they are reported, and refused below
            output_loading_info=True,
        )
    except UserError:
        raise
    except Exception as error:  # safetensors, torch and transformers each raise their own
        raise UserError(f"cannot load the weights of {label}: {first_line(error)}") from None
    absent = sorted(report["missing_keys"]) or sorted(k[0] for k in report["mismatched_keys"])
    if absent:
        raise UserError(
            f"the weights of {label} do not fit its config.json: {len(absent)} are missing or "
            f"misshapen, such as {absent[0]}"
        )
    places = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
    if "disk" in places or {"cpu"} < places:
        raise UserError(
            f"{label} does not fit the memory here: take dtype bfloat16, or more or larger GPUs"
        )
    return model, left_out(sorted(report["unexpected_keys"]), model, label)


def left_out(unused: list[str], model: PreTrainedModel, label: str) -> str:
    """What to say of weights without a place in the model; `UserError` where they make layers."""
    unused = [name for name in unused if not LEFTOVER.search(name)]
    if not unused:
        return ""
    what = f"no place in the model for {len(unused)} of the weights of {label}, such as {unused[0]}"
    n_layers, own = model.config.num_hidden_layers, list(model.state_dict())
    numbered = filter(None, (re.match(r"(.*?\.)(\d+)\.", name) for name in unused))
    if any(int(n[2]) >= n_layers and any(n[1] in name for name in own) for n in numbered):
        raise UserError(f"{what}: its config.json has fewer layers, {n_layers}, than its weights")
    return f"{what}: they are left out"


def _tokenizer(folder: Path, label: str) -> Any:
    try:
        options = {"trust_remote_code": False, "local_files_only": True}
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        file = folder / "tokenizer.json"
        added = json.loads(file.read_text("utf-8"))["added_tokens"] if file.is_file() else []
    except Exception as error:  # as above
        raise UserError(f"cannot read the tokenizer of {label}: {first_line(error)}") from None
    for token in added:  # the library gives them other ids where theirs leave a gap
        known = tokenizer.convert_tokens_to_ids(token["content"])
        if known != token["id"]:
            raise UserError(
                f"the tokenizer of {label} is damaged: {token['content']!r} is {token['id']} in "
                f"tokenizer.json, and {known} when it is read"
            )
    return tokenizer


def _assemble(
    hf_model: PreTrainedModel,
    tokenizer: Any,
    label: str,
    source: str,
    sha256: str,
    first_token: str | None = None,
    kept_in: torch.dtype | None = None,
) -> LanguageModel:
    from transformer_lens.model_bridge import TransformerBridge

    head = hf_model.get_output_embeddings()
    tied = head is not None and hf_model.get_input_embeddings().weight is head.weight
    n_parameters = sum(p.numel() for p in hf_model.parameters())
    hf_model = hf_model.eval().requires_grad_(False)
    device, dtype = str(hf_model.device), hf_model.dtype
    own = _own_logits(hf_model, label)
    try:
        bridge = TransformerBridge.boot_transformers(
            source,
            hf_model=hf_model,
            tokenizer=tokenizer,
            dtype=kept_in or dtype,  # it makes all weights this
            device=None if hasattr(hf_model, "hf_device_map") else device,
        )
        if kept_in:
            keep_blocks_in(bridge.original_model, kept_in)
            bridge.cfg.dtype = dtype
        architecture = _architecture(bridge, hf_model.config, tokenizer, tied, n_parameters)
    except (ValueError, AttributeError, NotImplementedError, RuntimeError) as error:
        why = first_line(error).partition(" Available architectures:")[0]  # hundreds of names
        raise UserError(
            f"{label} ({hf_model.config.model_type}) is not a decoder with a dense last MLP that "
            f"TransformerLens can wrap: {why}"
        ) from None
    if architecture.padded_rows < 0:
        raise UserError(
            f"tokenizer and model do not fit: the tokenizer of {label} has "
            f"{architecture.d_vocab - architecture.padded_rows} ids, the model has "
            f"{architecture.d_vocab} rows"
        )
    model = LanguageModel(
        label, bridge, tokenizer, architecture, _bos(tokenizer, first_token), sha256
    )
    _check_wrapped(model, own)
    if model.dtype != dtype:  # TransformerLens reports the dtype asked for, not the one it has
        raise TypeError(f"{label} was loaded as {model.dtype}, asked for {dtype}")
    return model


def _probe(device: torch.device, d_vocab: int) -> Int[Tensor, "1 pos"]:
    return torch.arange(PROBE, device=device)[None] % d_vocab


@torch.no_grad()
def _own_logits(hf_model: PreTrainedModel, label: str) -> Float[Tensor, "1 pos d_vocab"]:
    """Logits of a few tokens before anything is wrapped, with the attention that will be."""
    d_vocab = hf_model.get_input_embeddings().weight.shape[0]
    try:
        hf_model.set_attn_implementation("eager")
        logits = hf_model(_probe(hf_model.device, d_vocab), use_cache=False).logits
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise UserError(
            f"{label} ({hf_model.config.model_type}) cannot be run: {first_line(error)}; its "
            "config.json may be of another model"
        ) from None
    if not logits.isfinite().all():
        every = hf_model.named_parameters()
        damaged = [name for name, weight in every if not weight.isfinite().all()]
        if damaged:
            raise UserError(
                f"the weights of {label} are damaged: {damaged[0]} holds values that are no numbers"
            )
    return logits


@torch.no_grad()
def _check_wrapped(model: LanguageModel, own: Float[Tensor, "1 pos d_vocab"]) -> None:
    """Raise `UserError` where TransformerLens computes another model than transformers does."""
    family, limit = model.architecture.family, ROUNDING[model.dtype]
    try:
        tokens = _probe(own.device, model.bridge.W_E.shape[0])
        seen = model.bridge(tokens, return_type="logits", use_cache=False)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"TransformerLens cannot run {model.name} ({family}): {first_line(error)}"
        ) from None
    apart, size = (seen - own).abs().max(), own.abs().max()
    if own.isfinite().all() and not apart <= limit * size:
        raise UserError(
            f"TransformerLens does not compute {model.name} ({family}) as transformers does: its "
            f"logits differ by up to {float(apart):.1g}; choose another model"
        )


def _bos(tokenizer: Any, first_token: str | None) -> int:
    if first_token is not None:
        return int(tokenizer.convert_tokens_to_ids(first_token))
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def _architecture(
    bridge: Any, config: PretrainedConfig, tokenizer: Any, tied: bool, n_parameters: int
) -> Architecture:
    cfg, last = bridge.cfg, bridge.blocks[bridge.cfg.n_layers - 1]
    d_vocab = bridge.W_U.shape[1]
    softcap = getattr(cfg, "output_logits_soft_cap", None)
    return Architecture(
        family=config.model_type,
        n_layers=cfg.n_layers,
        d_model=cfg.d_model,
        d_mlp=last.mlp.W_out.shape[0],
        n_heads=cfg.n_heads,
        d_vocab=d_vocab,
        n_ctx=cfg.n_ctx,
        norm="RMSNorm" if bridge.ln_final.uses_rms_norm else "LayerNorm",
        parallel=bool(cfg.parallel_attn_mlp),
        gated=bool(cfg.gated_mlp),
        tied=tied,
        padded_rows=d_vocab - 1 - max(tokenizer.get_vocab().values()),
        softcap=float(softcap) if softcap and softcap > 0 else None,
        sandwich=hasattr(last, "ln2_post"),
        n_parameters=n_parameters,
        **multipliers(config),
    )


def multipliers(config: PretrainedConfig) -> dict[str, float]:
    """Constants behind the last MLP: of its output and of the logits, by their names in a config.

    The audit refuses a model that has others, or that reads these in another way.
    """
    out = getattr(config, "residual_multiplier", None) or 1.0
    if inside := getattr(config, "mlp_multipliers", None):
        out *= inside[-1]  # of Falcon-H1: the first is of its gate
    logits = getattr(config, "lm_head_multiplier", None) or 1.0
    if config.model_type.startswith("cohere"):  # MPT has the name too, and does not use it
        logits *= config.logit_scale
    logits /= getattr(config, "logits_scaling", None) or 1.0
    return {"out_scale": float(out), "logit_scale": float(logits)}


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, log lines or warnings of the libraries while they load a model."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
