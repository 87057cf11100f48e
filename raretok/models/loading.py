"""Loading models: what is read, what is refused, and how it is wrapped into a `LanguageModel`."""

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
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

from raretok.errors import UserError, first_line
from raretok.models.adapter import LanguageModel, probe_tokens
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
from raretok.paths import sha256_of
from raretok.text.corpus import SHORTEST

OWN_FILES = {"trust_remote_code": False, "local_files_only": True}
# What checkpoints hold beside weights: masks and frequencies that a model makes itself.
LEFTOVER = re.compile(r"(attn|attention)\.(masked_)?bias$|inv_freq$|position_ids$")
WIDE = ("F64", "F32", "F16", "BF16")
LEAST = {"num_hidden_layers": (1, "layers"), "max_position_embeddings": (SHORTEST, "positions")}
# How far TransformerLens may be from transformers on the probe.
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


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
        config, seed, unused = _config(folder, label), None, ""
        if untrained:
            seed = twin_seed(folder)
            hf_model = _fresh(config, seed, label).to(dtype)
        else:
            hf_model, unused = _weights(folder, config, kept_in or dtype, device, label)
        sha256 = files_digest(folder, seed)
        if device != "auto":
            hf_model = hf_model.to(device)
        if kept_in:  # another model than its files, whose weights it rounds
            sha256 = sha256_of(f"{sha256} in {kept_in}".encode())
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
        sha256 = sha256_of(record.encode())
        return _assemble(hf_model, tokenizer, name, f"random/{name}", sha256)


def untrained_twin(config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """Model of this configuration with random weights in float32; equal for equal seeds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        )


@contextmanager
def refused(
    what: str, kinds: tuple[type[Exception], ...] = (Exception,), after: str = ""
) -> Iterator[None]:
    """Turn what a library raises into a `UserError` that says what could not be done, and why."""
    try:
        yield
    except UserError:
        raise
    except kinds as error:  # each library raises its own
        raise UserError(f"{what}: {first_line(error)}{after}") from None


def _config(folder: Path, label: str) -> PretrainedConfig:
    with refused(f"cannot read config.json of {label}"):
        config = AutoConfig.from_pretrained(folder, **OWN_FILES)
    for name, (smallest, what) in LEAST.items():
        value = getattr(config, name, None)
        if value is not None and value < smallest:
            raise UserError(f"{label} has {value} {what}, and {smallest} or more are needed")
    return config


def _fresh(config: PretrainedConfig, seed: int, label: str) -> PreTrainedModel:
    with refused(f"{label} is no causal language model", (ValueError,)):
        return untrained_twin(config, seed)


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
    with refused(f"cannot load the weights of {label}"):
        _check_stored(folder, config, label)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            device_map="auto" if device == "auto" else None,
            use_safetensors=True,
            attn_implementation="eager",  # as TransformerLens has it
            ignore_mismatched_sizes=True,  # so that they are reported, and refused below
            output_loading_info=True,
            **OWN_FILES,
        )
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
    with refused(f"cannot read the tokenizer of {label}"):
        tokenizer = AutoTokenizer.from_pretrained(folder, **OWN_FILES)
        file = folder / "tokenizer.json"
        added = json.loads(file.read_text("utf-8"))["added_tokens"] if file.is_file() else []
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
    return model


@torch.no_grad()
def _own_logits(hf_model: PreTrainedModel, label: str) -> Float[Tensor, "1 pos d_vocab"]:
    """Logits of a few tokens before anything is wrapped, with the attention that will be."""
    d_vocab = hf_model.get_input_embeddings().weight.shape[0]
    kinds = RuntimeError, ValueError, TypeError, LookupError, AttributeError
    what = f"{label} ({hf_model.config.model_type}) cannot be run"
    with refused(what, kinds, after="; its config.json may be of another model"):
        hf_model.set_attn_implementation("eager")
        logits = hf_model(probe_tokens(hf_model.device, d_vocab), use_cache=False).logits
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
    kinds = RuntimeError, ValueError, TypeError, KeyError, AttributeError
    with refused(f"TransformerLens cannot run {model.name} ({family})", kinds):
        tokens = probe_tokens(own.device, model.bridge.W_E.shape[0])
        seen = model.bridge(tokens, return_type="logits", use_cache=False)
    apart, size = (seen - own).abs().max(), own.abs().max()
    if own.isfinite().all() and not apart <= limit * size:
        raise UserError(
            f"TransformerLens does not compute {model.name} ({family}) as transformers does: its "
            f"logits differ by up to {float(apart):.1g}; choose another model"
        )


def _bos(tokenizer: Any, first_token: str | None) -> int:
    if first_token is not None:
        return int(tokenizer.convert_tokens_to_ids(first_token))
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, 0)
    return int(next(token for token in known if token is not None))


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
