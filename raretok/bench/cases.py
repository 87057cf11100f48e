"""What `raretok bench` times, and how.

Models of known shapes, whole contexts for them to read; the seconds and the memory of a call.
"""

import gc
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor
from transformers import GPT2Config, GPTNeoXConfig, PreTrainedTokenizerFast

from raretok.ablation.plan import give_back
from raretok.errors import UserError
from raretok.models.adapter import LanguageModel
from raretok.models.loading import load_model, random_model
from raretok.text.corpus import cut_contexts, load_corpus

Tokens = Int[Tensor, "context pos"]
N_CTX = 256  # tokens a context, as in the released code
SHIPPED = "docs-gpt2"
SEED = 0  # of random weights and random tokens
PYTHIA_1B = {
    **{"vocab_size": 50_304, "hidden_size": 2_048, "intermediate_size": 8_192},
    **{"num_hidden_layers": 16, "num_attention_heads": 8, "max_position_embeddings": 2_048},
}
# Configurations to fill with random weights, and the most positions: one run takes minutes.
RANDOM = {
    "gpt2-small": (GPT2Config, {}, None),
    "pythia-1b": (GPTNeoXConfig, PYTHIA_1B, 1_020),
}
SHAPES = (SHIPPED, *RANDOM)


@dataclass(frozen=True)
class Case:
    """A model and whole contexts; every position but the last of each is scored."""

    name: str
    model: LanguageModel
    tokens: Tokens
    weights: str  # trained or random

    @property
    def positions(self) -> int:
        return self.tokens[:, 1:].numel()


def check_case(name: str, positions: int) -> None:
    """Raise `UserError` for a shape that is unknown or no position to score."""
    if name not in SHAPES:
        raise UserError(f"unknown shape {name!r}: choose from {', '.join(SHAPES)}")
    if positions < 1:
        raise UserError(f"positions must be 1 or more, got {positions}")


def load_case(name: str, positions: int, device: str = "cpu") -> Case:
    """The case of a shape: the fewest whole contexts that hold as many positions.

    The shipped model reads its held-out text, random weights read random tokens.
    Raises `UserError`.
    """
    if name == SHIPPED:
        model = load_model(name, device=device)
        return Case(name, model, held_out_tokens(model, positions).to(device), "trained")
    kind, given, most = RANDOM[name]
    model = random_model(kind(**given), byte_tokenizer(), name, seed=SEED, device=device)
    tokens = random_tokens(model, min(positions, most or positions))
    return Case(name, model, tokens.to(device), "random")


def held_out_tokens(model: LanguageModel, positions: int) -> Tokens:
    """Full contexts of the held-out part of the corpus docs, drawn at random."""
    n_ctx = min(N_CTX, model.architecture.n_ctx)
    contexts = cut_contexts(load_corpus(), model.tokenizer, n_ctx=n_ctx, first=model.bos)
    full, wanted = np.flatnonzero(contexts.length == n_ctx), n_contexts(positions, n_ctx)
    if wanted > len(full):
        raise UserError(
            f"{positions} positions were asked for; the held-out text has {len(full)} whole "
            f"contexts, {len(full) * (n_ctx - 1)} positions"
        )
    drawn = np.random.default_rng(SEED).choice(full, wanted, replace=False)
    return torch.from_numpy(contexts.tokens[drawn])


def random_tokens(model: LanguageModel, positions: int) -> Tokens:
    """Contexts of tokens drawn uniformly from the vocabulary."""
    n_ctx = min(N_CTX, model.architecture.n_ctx)
    shape = (n_contexts(positions, n_ctx), n_ctx)
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(model.architecture.d_vocab, shape, generator=generator)


def n_contexts(positions: int, n_ctx: int) -> int:
    """Whole contexts for as many positions; the last token of each predicts nothing."""
    return -(-positions // (n_ctx - 1))


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """The 256 bytes: a model needs some tokenizer, and here it reads ids only.

    With a token that begins texts, TransformerLens would look for its files.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """Most memory that `run` holds above what is held before it. Raises `UserError`."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    give_back()  # freed memory that the allocator keeps would be used again unseen
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far is what is held now
        before = resident("VmRSS")
    except OSError:
        raise UserError("no /proc on this system: raretok bench measures memory on Linux") from None
    run()
    return max(0, resident("VmHWM") - before)


def resident(name: str) -> int:
    """Resident memory of this process in bytes: VmRSS now, VmHWM at most."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", status)[1])
