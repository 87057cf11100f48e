"""What a training run reads: tokenizer, token stream and batches of the corpus `docs`."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Integer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from raretok.errors import say
from raretok.paths import write_json
from raretok.text.corpus import DOCUMENT_MARK, count_tokens, load_corpus, token_ids


def train_tokenizer(texts: list[str], d_vocab: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE; token 0 marks the start of a context and the end of a document."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=d_vocab,
        special_tokens=[DOCUMENT_MARK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=DOCUMENT_MARK, eos_token=DOCUMENT_MARK
    )


@lru_cache(maxsize=2)
def epoch_starts(pieces: int, width: int, seed: int, epoch: int) -> Int[np.ndarray, " piece"]:
    """Where each piece of one epoch starts: a random order, and one random shift for all."""
    rng = np.random.default_rng([seed, epoch])
    return rng.permutation(pieces) * width + int(rng.integers(width))


def batch_tokens(
    stream: Integer[np.ndarray, " token"], step: int, *, batch: int, n_ctx: int, seed: int
) -> Int[Tensor, "batch n_ctx"]:
    """Contexts of one step; each epoch cuts the stream anew and visits every piece once.

    A pure function of the step, so that a resumed run sees the same batches.
    """
    width = n_ctx - 1
    pieces = (len(stream) - width) // width
    tokens = np.zeros((batch, n_ctx), dtype=np.int64)
    for row in range(batch):
        epoch, place = divmod(step * batch + row, pieces)
        start = epoch_starts(pieces, width, seed, epoch)[place]
        tokens[row, 1:] = stream[start : start + width]
    return torch.from_numpy(tokens)


def prepare(work: Path, d_vocab: int, without: str = "") -> tuple[Path, str]:
    """Tokenizer, token stream and unigram counts of the train part, made once for a run.

    `without`: a domain whose documents are left out of stream and counts. The tokenizer is that of
    all domains, so that models with and without it score the same tokens.
    """
    done = work / "corpus.json"
    if not done.exists():
        say("reading the train part of the corpus docs (about a minute)")
        corpus = load_corpus("docs", part="train")
        texts = [document.text for document in corpus.documents]
        tokenizer = train_tokenizer(texts, d_vocab)
        tokenizer.save_pretrained(work / "tokenizer")
        kept = [one.text for one in corpus.documents if one.domain != without]
        ids = token_ids(kept, tokenizer, marks=True)
        np.save(work / "unigram_counts.npy", count_tokens(ids, d_vocab))
        # A document ends with the token that starts a context: the model learns to begin afresh.
        stream = np.concatenate([np.array([*i, 0], dtype=np.uint16) for i in ids])
        np.save(work / "tokens.npy", stream)
        write_json(done, {"sha256": corpus.sha256, "documents": len(ids), "tokens": len(stream)})
    return work / "tokens.npy", json.loads(done.read_text())["sha256"]
