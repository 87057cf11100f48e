"""What follows from a page's parameters: model, corpus, positions, ablation runs, groups."""

from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Bool, Int

from raretok import model_files, models
from raretok.ablation.plan import Options
from raretok.ablation.stream import ablate_to_disk
from raretok.corpus import (
    Contexts,
    Corpus,
    count_tokens,
    cut_contexts,
    load_corpus,
    token_ids,
)
from raretok.errors import UserError
from raretok.groups import Fold, find_folds
from raretok.parameters import PageParameters, validated
from raretok.protocol import PROTOCOLS, Protocol, protocol_named
from raretok.rarity import (
    COMMON,
    RARE,
    Positions,
    TypeClasses,
    all_positions,
    draw_contexts,
    draw_stratified,
    type_classes,
    unigram,
)

COUNTS_FILE = "unigram_counts.npy"
RELEASED_CONTEXTS = 10  # the released code scores this many sequences
PAGE_MEMORY = 8.0  # GB above the model, for the ablation of a page
INTERVENTIONS: dict[str, dict[str, str]] = {
    "mean": {},
    "zero": {"mode": "zero"},
    "resample": {"mode": "resample"},
    "direct": {"effect": "direct"},  # mean ablation, the scale of the final norm held
}


class Runs:
    """What all pages share, each part made once and only when asked for."""

    def __init__(self, parameters: PageParameters):
        self.parameters = parameters

    @classmethod
    def of(cls, namespace: dict[str, Any]) -> Self:
        """Of a page, from the variables of its parameters cell."""
        return cls(validated({name: namespace[name] for name in PageParameters.model_fields}))

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose: independent of what was drawn before."""
        return np.random.default_rng([self.parameters.seed, *purpose.encode()])

    @cached_property
    def protocol(self) -> Protocol:
        return protocol_named(self.parameters.protocol)

    @cached_property
    def model(self) -> models.LanguageModel:
        return self._load(self.parameters.model)

    @cached_property
    def twin(self) -> models.LanguageModel:
        """Same configuration, fresh random weights: what training did not do."""
        return self._load(self.parameters.model.removesuffix(model_files.TWIN) + model_files.TWIN)

    def _load(self, name: str) -> models.LanguageModel:
        device, revision = self.parameters.device, self.parameters.revision or None
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("device cuda: no GPU is visible to PyTorch here, use device cpu")
        return models.load_model(name, revision=revision, device=device)

    @cached_property
    def corpus(self) -> Corpus:
        return load_corpus(self.parameters.corpus)

    @cached_property
    def contexts(self) -> Contexts:
        n_ctx = min(self.parameters.n_ctx, self.model.architecture.n_ctx)
        return cut_contexts(self.corpus, self.model.tokenizer, n_ctx=n_ctx, first=self.model.bos)

    @cached_property
    def counts(self) -> Int[np.ndarray, " entry"]:
        """How often each token occurs: as given, else as shipped with the model, else here."""
        given = self.parameters.unigram
        shipped = model_files.resolve_model(self.parameters.model) / COUNTS_FILE
        if given or shipped.is_file():
            return read_counts(Path(given) if given else shipped)
        self.counted_here = True
        ids = token_ids([document.text for document in self.corpus.documents], self.model.tokenizer)
        return count_tokens(ids, self.model.architecture.d_vocab)

    counted_here = False  # counts come from the scored corpus: a type it lacks has no frequency

    @cached_property
    def counted(self) -> Bool[np.ndarray, " d_vocab"]:
        """Types that have a frequency: padding rows have none."""
        architecture = self.model.architecture
        counted = np.arange(architecture.d_vocab) < architecture.d_vocab - architecture.padded_rows
        counts = self.counts
        if self.counted_here:
            counted[: counts.size] &= counts > 0
        return counted

    @cache  # noqa: B019  (a page holds one study, for as long as it runs)
    def classes(self, protocol: str) -> TypeClasses:
        """Rare and common token types under a protocol."""
        return type_classes(
            unigram(self.counts, self.model.architecture.d_vocab),
            PROTOCOLS[protocol].rule,
            percentile=self.parameters.rare_percentile,
            counted=self.counted,
        )

    @cache  # noqa: B019
    def positions(self, draw: str) -> Positions:
        """Scored positions of one way to draw them, with their weights."""
        rng = self.rng(f"positions {draw}")
        if draw == "whole contexts":
            everything = all_positions(self.contexts, self.classes("code"), "input")
            return draw_contexts(everything, n_contexts=RELEASED_CONTEXTS, rng=rng)
        n = self.parameters.n_positions
        everything = all_positions(self.contexts, self.classes("corrected"), "target")
        return draw_stratified(everything, n_per_class=n, n_middle=n // 4, rng=rng)

    @cache  # noqa: B019
    def run(self, draw: str, trained: bool = True, intervention: str = "mean") -> xr.Dataset:
        """Loss change of ablating each final-MLP neuron at each position of a draw.

        Kept on disk, so that pages share it; attribute `run` names it. Raises `UserError` where its
        audit failed: a page must not show wrong numbers.
        """
        model = self.model if trained else self.twin
        folder, data = ablate_to_disk(
            model,
            self.contexts,
            self.positions(draw),
            options=Options(include_first=draw == "whole contexts", **INTERVENTIONS[intervention]),
            source={"corpus_sha256": self.corpus.sha256},
            max_memory=PAGE_MEMORY,
            wait=True,
            progress=False,
        )
        if not data.audit_passed:
            raise UserError(f"the ablation of {model.name} failed its audit: {folder} says how far")
        return data.load().assign_attrs(run=folder.name)

    def effects(
        self, protocol: str, trained: bool = True, intervention: str = "mean"
    ) -> xr.Dataset:
        """The run a protocol needs, its positions classed as that protocol does.

        `text` and `corrected` read one run: weights say what each position stands for, so classes
        may be cut across the strata it was drawn from.
        """
        reading = PROTOCOLS[protocol]
        run = self.run(reading.draw, trained, intervention)
        stratum = self.classes(protocol).stratum(run[reading.by].values)
        return run.assign_coords(stratum=("position", stratum))

    @property
    def group_size(self) -> int:
        """Neurons in the plateau group: the percentage asked for (published: about 1 %)."""
        return round(self.parameters.group_percent / 100 * self.model.architecture.d_mlp)

    @cache  # noqa: B019
    def folds(
        self, protocol: str, trained: bool = True, part: str = "boost", size: int | None = None
    ) -> list[Fold]:
        """The plateau group under a protocol and its control groups; `size` in place of the 1 %."""
        model = self.model if trained else self.twin
        return find_folds(
            self.effects(protocol, trained),
            PROTOCOLS[protocol],
            model.W_out.norm(dim=1).cpu().numpy(),
            size=self.group_size if size is None else size,
            n_controls=self.parameters.n_controls,
            rng=self.rng(f"folds {protocol} {trained} {part} {size}"),
            part=part,
        )

    def run_table(self) -> pd.DataFrame:
        """What was scored for each protocol, and the largest error the audit found."""
        rows = []
        for name, reading in PROTOCOLS.items():
            effects = self.effects(name)
            stratum, document = effects.stratum.values, effects.document.values
            rows.append(
                {
                    "protocol": name,
                    "rare by its": reading.by,
                    "rare types": int(self.classes(name).rare.sum()),
                    "rare positions": int((stratum == RARE).sum()),
                    "common positions": int((stratum == COMMON).sum()),
                    "documents": np.unique(document).size,
                    "neurons": effects.sizes["neuron"],
                    "largest error, nats": f"{effects.audit_max_error:.0e}",
                }
            )
        return pd.DataFrame(rows).set_index("protocol")


def read_counts(path: Path) -> Int[np.ndarray, " entry"]:
    """Token counts from a .npy file of non-negative whole numbers, one a token id."""
    try:
        counts = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        raise UserError(f"cannot read token counts from {path.name}: give a .npy array") from None
    if counts.ndim != 1 or not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
        raise UserError(
            f"{path.name} holds {counts.dtype} values of shape {counts.shape}: "
            "token counts are one non-negative whole number a token id"
        )
    return counts.astype(np.int64)
