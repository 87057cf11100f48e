"""Tiny random models on disk, for tests: real Hugging Face directories, made in milliseconds."""

import os
import shutil
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from raretok.models.loading import untrained_twin
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions

D_VOCAB = 300  # the tokenizer has 257 ids, so 43 columns of W_U are padding
D_MODEL, D_MLP, N_CTX = 16, 48, 32
FAMILIES = ("gpt2", "neox-parallel", "neox-sequential", "llama", "qwen2", "qwen3", "gemma")
SANDWICH = ("gemma2", "gemma3")  # a norm behind the MLP; the first has soft-capped logits too
GROUPED = {"num_key_value_heads": 1}  # both query heads share their keys and values
WITH_HEAD_DIM = {
    "qwen3": Qwen3Config,
    "gemma": GemmaConfig,
    "gemma2": Gemma2Config,
    "gemma3": Gemma3TextConfig,
}


def config(family: str, d_mlp: int = D_MLP, n_layers: int = 2) -> PretrainedConfig:
    ids = {"vocab_size": D_VOCAB, "bos_token_id": 0, "eos_token_id": 0}
    shape = {
        "hidden_size": D_MODEL,
        "intermediate_size": d_mlp,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 2,
        "max_position_embeddings": N_CTX,
    }
    if family == "gpt2":
        return GPT2Config(
            n_embd=D_MODEL, n_inner=d_mlp, n_layer=n_layers, n_head=2, n_positions=N_CTX, **ids
        )
    if family.startswith("neox"):
        return GPTNeoXConfig(use_parallel_residual=family == "neox-parallel", **shape, **ids)
    if family in ("llama", "qwen2"):
        make = LlamaConfig if family == "llama" else Qwen2Config
        return make(**GROUPED, **shape, **ids)
    if family in WITH_HEAD_DIM:
        return WITH_HEAD_DIM[family](head_dim=8, **GROUPED, **shape, **ids)
    raise ValueError(f"no tiny model of family {family!r}")


def write_model(
    folder: Path, family: str = "gpt2", seed: int = 0, d_mlp: int = D_MLP, n_layers: int = 2
) -> Path:
    """A model directory whose neurons matter: every weight is random, norms and biases too."""
    model = untrained_twin(config(family, d_mlp, n_layers), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.3 * noise)
    model.save_pretrained(folder)
    return write_tokenizer(folder)


def write_tokenizer(folder: Path) -> Path:
    """A byte tokenizer: id 0 begins a text, 1 to 256 are the bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0} | {byte: i for i, byte in enumerate(alphabet, start=1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    fast.save_pretrained(folder)
    return folder


def fake_hub_cache(
    cache: Path,
    model_dir: Path,
    hub_id: str = "openai-community/gpt2",
    revision: str = "main",
) -> Path:
    """Lay a model directory out as the Hub's cache would hold it (blobs, snapshots, refs).

    Use it with HF_HUB_CACHE=cache and HF_HUB_OFFLINE=1.
    """
    repo = cache / f"models--{hub_id.replace('/', '--')}"
    commit = f"{len(list(repo.glob('snapshots/*'))):040d}"
    snapshot = repo / "snapshots" / commit
    for folder in (repo / "blobs", repo / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(model_dir.iterdir()):
        blob = repo / "blobs" / f"{commit}-{file.name}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    (repo / "refs" / revision).write_text(commit)
    return cache


def positions_at(
    contexts: Contexts, context: np.ndarray, pos: np.ndarray, stratum: np.ndarray
) -> Positions:
    """Scored positions of some contexts, each with another weight."""
    return Positions(
        context=context,
        pos=pos,
        input=contexts.tokens[context, pos],
        target=contexts.tokens[context, pos + 1],
        document=contexts.document[context],
        stratum=stratum,
        weight=np.linspace(1, 2, len(context)),
    )
