"""What a measurement is made from: the loaded model, its text, and the positions to score."""

import gc
from collections.abc import Iterable
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int

from raretok.ablation.batches import context_batches
from raretok.ablation.gather import Gathered, gather
from raretok.ablation.plan import Options
from raretok.ablation.stream import ablate_to_disk
from raretok.errors import NotTestableError, UserError
from raretok.measure.parameters import PageParameters, counts_of
from raretok.models import files as model_files
from raretok.models import loading as models
from raretok.models.rerun import run
from raretok.paths import RUNS, digest
from raretok.text import rarity
from raretok.text.corpus import (
    Contexts,
    Corpus,
    count_tokens,
    cut_contexts,
    load_corpus,
    token_ids,
)
from raretok.text.protocol import PROTOCOLS

RELEASED_CONTEXTS = 10  # the released code scores this many sequences
GATED = 100  # contexts in which the sign of gates is counted
MEMORY = 8.0  # GB above the model, for the ablation
WHOLE, STRATIFIED = "whole contexts", "stratified"  # the two ways to draw positions


class Source:
    """A model at work on a corpus, each part made once and only when asked for."""

    def __init__(self, parameters: PageParameters):
        self.parameters = parameters
        # Of this object alone: @cache on the methods would keep every source for good.
        self.classes, self.everything = cache(self.classes), cache(self.everything)
        self.positions, self.seen = cache(self.positions), cache(self.seen)

    @cached_property
    def model(self) -> models.LanguageModel:
        gc.collect()  # an earlier source refers to itself: else its model would stay beside this
        device, revision = self.parameters.device, self.parameters.revision or None
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("device cuda: no GPU is visible to PyTorch here, use device cpu")
        kept_in = None if self.parameters.dtype == "float32" else torch.bfloat16
        of = {"revision": revision, "device": device, "kept_in": kept_in}
        return models.load_model(self.parameters.model, **of)

    @cached_property
    def corpus(self) -> Corpus:
        return load_corpus(self.parameters.corpus, n_documents=self.parameters.n_documents)

    @cached_property
    def contexts(self) -> Contexts:
        n_ctx = min(self.parameters.n_ctx, self.model.architecture.n_ctx)
        how = {"n_ctx": n_ctx, "first": self.model.bos, "packed": self.parameters.packed}
        return cut_contexts(self.corpus, self.model.tokenizer, **how)

    @cached_property
    def counts(self) -> Int[np.ndarray, " entry"]:
        """How often each token occurs: as given, else as shipped with the model, else here."""
        found = counts_of(self.parameters)
        if isinstance(found, np.ndarray):
            return found
        texts = [document.text for document in (found or self.corpus).documents]
        return count_tokens(token_ids(texts, self.model.tokenizer), self.model.architecture.d_vocab)

    @cached_property
    def counted(self) -> Bool[np.ndarray, " d_vocab"]:
        """Types that have a frequency.

        Padding rows have none. In the text of the training, or what is taken for it, a type that
        never occurs has frequency 0. Where other text was counted, percentages are of the types
        that the scored text has: of the rest a sample tells next to nothing, and no target would
        be among them.
        """
        architecture = self.model.architecture
        counted = np.arange(architecture.d_vocab) < architecture.d_vocab - architecture.padded_rows
        folder = model_files.resolve_model(self.parameters.model)
        own = (folder / model_files.COUNTS_FILE).is_file() and (folder / "training.json").is_file()
        if not (self.parameters.unigram or own):
            tokens, length = self.contexts.tokens, self.contexts.length
            real = np.arange(tokens.shape[1]) < length[:, None]
            real[:, 0] = False  # every context begins with the same token
            counted &= np.bincount(tokens[real], minlength=counted.size) > 0
        return counted

    def classes(self, protocol: str) -> rarity.TypeClasses:
        """Rare and common token types under a protocol."""
        percentile = self.parameters.rare_percentile
        return rarity.classes_of(self.counts, self.counted, PROTOCOLS[protocol].rule, percentile)

    def everything(self, protocol: str) -> rarity.Positions:
        """Every position of the corpus, classed as the protocol does.

        Of packed contexts the token between documents is neither input nor target, as in the
        released code: no text has it, so that it would count among the rarest.
        """
        found = rarity.all_positions(self.contexts, self.classes(protocol), PROTOCOLS[protocol].by)
        if not self.parameters.packed:
            return found
        return found[(found.input != self.model.bos) & (found.target != self.model.bos)]

    def positions(self, draw: str) -> rarity.Positions:
        """Scored positions of one way to draw them, with their weights."""
        rng, n = self.parameters.rng(f"positions {draw}"), self.parameters.n_positions
        if draw == WHOLE:
            return rarity.draw_contexts(
                self.everything("code"), n_contexts=RELEASED_CONTEXTS, rng=rng
            )
        everything = self.everything("corrected")
        return rarity.draw_stratified(everything, n_per_class=n, n_middle=n // 4, rng=rng)

    def strata(
        self, positions: rarity.Positions, draw: str
    ) -> dict[str, Int[np.ndarray, " position"]]:
        """Class of each position under every protocol of this draw that can be formed."""
        found = {}
        for name, reading in PROTOCOLS.items():
            if reading.draw == draw:
                with suppress(NotTestableError):
                    found[name] = self.classes(name).stratum(getattr(positions, reading.by))
        return found

    def gathered(self, positions: rarity.Positions, include_first: bool = False) -> Gathered:
        """Residuals and activations at some positions, and mean activations: one pass."""
        return gather(self.model, self.contexts, positions, include_first=include_first)

    def seen(self, draw: str) -> Gathered:
        """The same at the positions of a draw."""
        return self.gathered(self.positions(draw), include_first=draw == WHOLE)

    def forward(self, draw: str) -> Path:
        """Where activations are kept, so that one forward pass serves every intervention."""
        return self.under_way("forward", vars(self.positions(draw)).values())

    def under_way(self, kind: str, of: Iterable[np.ndarray]) -> Path:
        """Where what is computed of the model, the text and some arrays is kept on the way."""
        key = digest([*of, self.contexts.tokens])
        return RUNS / f"{kind}-{self.model.files_sha256[:8]}-{key[:8]}"

    def asked(self, draw: str, **options: Any) -> dict[str, Any]:
        """What the ablation at the positions of a draw is asked for."""
        return {
            "model": self.model,
            "contexts": self.contexts,
            "positions": self.positions(draw),
            "options": Options(include_first=draw == WHOLE, **options),
            "source": {"corpus_sha256": self.corpus.sha256},
            "max_memory": MEMORY,
            "forward": self.forward(draw),
        }

    def run(self, draw: str, **options: Any) -> xr.Dataset:
        """Loss change of ablating each final-MLP neuron at each position of a draw.

        Raises `UserError` where its audit failed: what is wrong must not be kept.
        """
        folder, data = ablate_to_disk(**self.asked(draw, **options), wait=True)
        if not data.audit_passed:
            raise UserError(
                f"the ablation of {self.model.name} failed its audit: {folder} says how far"
            )
        return data.load()


@torch.no_grad()
def gate_rate(
    model: models.LanguageModel, contexts: Contexts, positions: rarity.Positions
) -> Float[np.ndarray, " neuron"]:
    """Share of the tokens, without first ones, at which each gate is positive.

    Of the first GATED contexts that hold any of the positions.
    """
    opened, count = np.zeros(model.architecture.d_mlp), 0
    name = f"blocks.{model.architecture.n_layers - 1}.mlp.hook_pre"
    used = np.unique(positions.context)[:GATED]
    for batch in context_batches(model, contexts, positions[np.isin(positions.context, used)]):
        seen = run(model, batch.tokens, [name])[name]
        opened += (seen[batch.ablated] > 0).sum(dim=0).cpu().numpy()
        count += int(batch.ablated.sum())
    return opened / count
