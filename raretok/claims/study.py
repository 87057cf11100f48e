"""What the notebooks call: the findings of every page for its parameters.

Everything here is computed from measurements (raretok/measure/); no model is loaded, unless one
is asked for that was never measured.
"""

import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import xarray as xr

from raretok.claims.attention import estimate as attention
from raretok.claims.coordination import estimate as coordination
from raretok.claims.domains import estimate as domains
from raretok.claims.dynamics import estimate as dynamics
from raretok.claims.finding import Finding, or_none, untested
from raretok.claims.layers import estimate as layers
from raretok.claims.modularity import estimate as modularity
from raretok.claims.regimes import estimate as regimes
from raretok.claims.sample import Sample, neurons_in
from raretok.claims.spectra import estimate as spectra
from raretok.claims.thresholds import estimate as thresholds
from raretok.errors import NotTestableError, UserError
from raretok.measure.attention import HeadSums, Rows
from raretok.measure.find import (
    DEEP,
    HISTORY,
    WITHOUT,
    Measurements,
    revisions_of,
    step_of,
    step_parameters,
)
from raretok.measure.parameters import PageParameters, validated
from raretok.models.architecture import Architecture
from raretok.stats.jackknife import Deal, deal
from raretok.text.protocol import PROTOCOLS, Rule
from raretok.text.rarity import TypeClasses, classes_of

STRATIFIED, RELEASED = "stratified", "whole contexts"
BOTH = tuple(f"effects: {draw}" for draw in (STRATIFIED, RELEASED))
# How heads are ablated; the first is what the claims are about, the others are shown beside it.
HEAD_MODES = {STRATIFIED: ("mean", "zero", "resample", "first"), RELEASED: ("first",)}
HEADS = tuple(f"heads: {draw}, {mode}" for draw, modes in HEAD_MODES.items() for mode in modes)
ROWS = tuple(f"attention: {protocol}" for protocol in PROTOCOLS)
# Parts that a page reads of a model, beside "model".
NEEDS: dict[str, tuple[str, ...]] = {
    "regimes": (*BOTH, "interventions"),
    "coordination": BOTH,
    "modularity": BOTH,
    "attention": (*BOTH, *ROWS, *HEADS),
    "spectra": BOTH,
    "dynamics": (),  # of the checkpoints, not of the model itself
    "thresholds": BOTH[:1],
    "layers": (BOTH[0], *(f"layer: {back}" for back in layers.BACK)),
    "domains": (BOTH[0], "domains"),
    "rivals": (BOTH[0], "interventions", "unembedding"),
    "groups": (BOTH[0], "groups"),
}
CORRECTED = "corrected"  # the only reading of the pages that go beyond the paper
# What is measured of replicates and of checkpoints: the primary estimands under `corrected`.
REPLICATED = (BOTH[0], "attention: corrected", HEADS[0])
STEPS = BOTH[:1]
# What else is measured of the models that stand beside the lead model beyond the paper.
BEYOND = (*NEEDS["layers"], "domains", "unembedding", "groups")
UNSEEN = ("influence: mathematics",)  # of a model trained without it, and of one trained with it
ON_TEXT = ("influence",)  # of the texts of the shelf
FIXED = 10  # neurons in the group that is shown beside 1 %
PAGES = {
    "regimes": regimes,
    "coordination": coordination,
    "modularity": modularity,
    "attention": attention,
    "spectra": spectra,
    "dynamics": dynamics,
    "thresholds": thresholds,
    "layers": layers,
    "domains": domains,
}
ESTIMANDS = {page: module.ESTIMANDS for page, module in PAGES.items()}
# What findings are computed of, where that is not the sample of the reading.
READ: dict[str, Callable[["Study", str], tuple[Any, ...]]] = {
    "regimes": lambda study, reading: (study.sample(reading), study.interventions()),
    "attention": lambda study, reading: (study, reading),
    "thresholds": lambda study, _: (study,),
    "layers": lambda study, _: (layers.read(study),),
    "domains": lambda study, _: (study.places(),),
}
PAPER = ("regimes", "coordination", "modularity", "attention", "spectra")  # of its own claims
SEEN = "docs-gpt2"  # trained on all domains, and once more without one


def parts_of(pages: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The parts that each page reads of a model; none of a page that reads other pages."""
    return {page: ("model", *NEEDS[page]) if NEEDS.get(page) else () for page in pages}


class Missing:
    """In place of a sample that cannot be formed: whatever is asked of it says why."""

    def __init__(self, reason: str):
        self.__dict__["reason"] = reason

    def __getattr__(self, name: str) -> Any:
        raise NotTestableError(self.reason)


class Study:
    """Everything a page computes from its parameters, each part once and only when asked for."""

    def __init__(self, parameters: PageParameters, measurements: Measurements | None = None):
        self.parameters = parameters
        self.measurements = measurements or Measurements(parameters)

    @classmethod
    def of(cls, namespace: dict[str, Any]) -> "Study":
        """Of a page, from the variables of its parameters cell."""
        return cls(validated({name: namespace[name] for name in PageParameters.model_fields}))

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose: independent of what was drawn before."""
        return self.parameters.rng(purpose)

    @classmethod
    def shipped(cls, model: str, revision: str = "") -> "Study":
        """Of a model as it ships: what was not measured of it is a gap, and never measured."""
        parameters = PageParameters(model=model, revision=revision)
        return cls(parameters, Measurements(parameters, only_shipped=True))

    @cache  # noqa: B019  (a page holds one study, for as long as it runs)
    def part(self, name: str) -> xr.Dataset:
        """One part of the measurement of the model."""
        return self.measurements.part(name)

    def prepare(self, pages: Collection[str]) -> None:
        """Measure what these pages need and was not measured yet."""
        wanted = [name for page in pages for name in NEEDS.get(page, ())]
        if wanted:
            self.measure(["model", *wanted])
        if "dynamics" in pages and self.parameters.revisions:
            for revision in self.revisions:
                self.checkpoint(revision).measure(["model", *STEPS])

    def measure(self, names: Iterable[str]) -> None:
        """Measure these parts; say of what cannot be had why not."""
        for name in dict.fromkeys(names):
            try:
                self.part(name)
            except NotTestableError as error:
                print(f"raretok: {name} is not testable: {error}", file=sys.stderr)

    @cached_property
    def architecture(self) -> Architecture:
        return Architecture(**self.part("model").attrs["architecture"])

    @cached_property
    def layers(self) -> list[int]:
        """Those of the last two layers whose heads can reach the last MLP."""
        n = self.architecture.n_layers
        last = range(max(0, n - attention.LAST), n)
        return [layer for layer in last if self.architecture.reaches_last_mlp(layer)]

    @cache  # noqa: B019
    def types(self, rule: Rule, percentile: float) -> TypeClasses:
        """Rare and common token types. Raises `NotTestableError` where no rare one is left."""
        model = self.part("model")
        return classes_of(model.counts.values, model.counted.values, rule, percentile)

    def classes(self, protocol: str) -> TypeClasses:
        """Rare and common token types under a protocol."""
        return self.types(PROTOCOLS[protocol].rule, self.parameters.rare_percentile)

    def effects(self, protocol: str) -> xr.Dataset:
        """The effects a protocol needs, their positions classed as that protocol does.

        `text` and `corrected` read one measurement: weights say what each position stands for, so
        classes may be cut across the strata it was drawn from.
        """
        reading = PROTOCOLS[protocol]
        return classed(self.part(f"effects: {reading.draw}"), self.classes(protocol), reading.by)

    @property
    def group_size(self) -> int:
        """Neurons in the plateau group: the percentage asked for (published: about 1 %)."""
        return neurons_in(self.parameters.group_percent, self.architecture.d_mlp)

    @cache  # noqa: B019
    def sample(self, protocol: str, heads: bool = False, size: int = 0) -> Sample:
        """Positions, groups and controls under a protocol; `size`: neurons in the group.

        `heads`: documents in which heads were ablated are spread evenly over the blocks.
        """
        first = np.unique(self.heads(protocol).document) if heads else None
        return self.sampled(self.effects(protocol), protocol, first=first, size=size)

    def sampled(
        self, effects: xr.Dataset, protocol: str, *, first: np.ndarray | None = None, size: int = 0
    ) -> Sample:
        """A sample of classed effects, the documents in `first` dealt into blocks before others."""
        dealt = deal(effects.document.values, first=first, rng=self.rng(f"deal {protocol}"))
        more = {"size": size or self.group_size, "seed": self.parameters.seed}
        return Sample.of(effects, self.part("model"), PROTOCOLS[protocol], dealt, **more)

    def shown(self, protocol: str) -> Sample | Missing:
        """The sample that figures are drawn of; where it cannot be formed, what says so in them."""
        try:
            return self.sample(protocol)
        except NotTestableError as error:
            return Missing(str(error))

    @cache  # noqa: B019
    def heads(self, protocol: str, mode: str = "") -> HeadSums:
        """What ablating attention heads does to the last MLP, as the claims read it by default."""
        draw = PROTOCOLS[protocol].draw
        return HeadSums.of(self.part(f"heads: {draw}, {mode or HEAD_MODES[draw][0]}"), protocol)

    @cache  # noqa: B019
    def rows(self, protocol: str) -> Rows:
        """Attention of rare and common queries under a protocol."""
        return Rows.of(self.part(f"attention: {protocol}"))

    def queries(self, protocol: str) -> Deal:
        """Documents of the queries, dealt into blocks."""
        return deal(self.rows(protocol).queries.document, rng=self.rng(f"queries {protocol}"))

    @cache  # noqa: B019
    def beside(self) -> dict[str, "Study"]:
        """The models that ship and stand beside this one on the pages beyond the paper."""
        own = self.measurements.label
        return {name: Study.shipped(name) for name in DEEP if name != own}

    @cache  # noqa: B019
    def at(self, percentile: float, rule: Rule = "percentile", by: str = "target") -> Sample:
        """The sample under `corrected` with other rare types or by `input`; same positions, blocks.

        Raises `NotTestableError` where no rare type is left.
        """
        effects = classed(self.part(BOTH[0]), self.types(rule, percentile), by)
        return self.sampled(effects, CORRECTED)

    def blocks(self, data: xr.Dataset, name: str) -> Sample:
        """A sample of sums over blocks of documents, of a part that keeps these."""
        more = {"size": self.group_size, "rng": self.rng("deal of blocks")}
        return Sample.of_blocks(data[name].values, data.weight.values, PROTOCOLS[CORRECTED], **more)

    def on(self, corpus: str) -> xr.Dataset:
        """Influence of the neurons on another text, as it ships. Raises `NotTestableError`."""
        asked = self.parameters.model_copy(update={"corpus": corpus})
        return Measurements(asked, only_shipped=True).part("influence")

    def places(self) -> domains.Places:
        """Where the page `domains` looks for the same neurons."""
        return domains.Places(self)

    def two_models(self) -> tuple[xr.Dataset, xr.Dataset]:
        """Influence in one domain and in the others: of a model that never saw it, and of one."""
        if self.measurements.label != SEEN:
            raise NotTestableError(f"only {SEEN} was trained once more, without a domain")
        return Study.shipped(WITHOUT).part(UNSEEN[0]), Study.shipped(SEEN).part(UNSEEN[0])

    def interventions(self) -> xr.Dataset | None:
        """Effects under other interventions, where they were measured."""
        return or_none(self.part, "interventions")

    def replicate(self) -> list[Finding]:
        """What every page finds under `corrected`, of what was measured."""
        return [one for page in PAPER for one in self.of_reading(page, CORRECTED)]

    @cache  # noqa: B019
    def findings(self, page: str) -> list[Finding]:
        """What a page found for each of its estimands under each reading that it is asked under."""
        readings = PROTOCOLS if page in PAPER else (CORRECTED,)
        return [one for protocol in readings for one in self.of_reading(page, protocol)]

    def of_reading(self, page: str, reading: str) -> list[Finding]:
        """Under one reading; where that cannot be formed at all, the reason instead."""
        of = READ.get(page, lambda study, reading: (study.sample(reading),))
        try:
            return self.named(PAGES[page].findings(*of(self, reading)))
        except UserError as error:
            return self.named(untested(ESTIMANDS[page], str(error), reading))

    def named(self, found: Iterable[Finding], **other: str) -> list[Finding]:
        """Findings with the model and the measurement that they are of: its own, or another."""
        own = {"model": self.measurements.label, "measurement": self.measurements.name}
        return [replace(one, **own | other) for one in found]

    @property
    def history_model(self) -> str:
        """The model whose checkpoints are looked at: the page's own, if it names any."""
        return self.parameters.model if self.parameters.revisions else HISTORY

    @property
    def revisions(self) -> list[str]:
        """The checkpoints asked for, else those that ship."""
        given = self.parameters.revisions
        return given.split(",") if given else revisions_of(HISTORY)

    def checkpoints(self) -> tuple[dict[int, Sample], dict[int, str]]:
        """Samples by step, and for steps without one the reason."""
        samples, gaps = {}, {}
        for revision in self.revisions:
            try:
                samples[step_of(revision)] = self.checkpoint(revision).sample("corrected")
            except UserError as error:
                gaps[step_of(revision)] = str(error)
        return samples, gaps

    def history(self, samples: dict[int, Sample]) -> tuple[list[Finding], list[Finding]]:
        """D1 of this model, and of the one that ships with checkpoints where this has none."""
        own = self.parameters.revisions or self.parameters.model == HISTORY
        of = self.measurements.label if own else self.history_model
        where = {"model": of, "measurement": f"{self.history_model}/checkpoints"}
        found = self.named(dynamics.findings(samples), **where)
        if own:
            return found, []
        why = f"no checkpoints of {self.measurements.label} are there"
        return self.named(untested(dynamics.ESTIMANDS, why)), found

    def checkpoint(self, revision: str) -> "Study":
        """The study of one step; what ships is never measured again."""
        shipped = not self.parameters.revisions
        asked_too = {"corpus", "n_documents", "packed", "unigram", "device", "dtype"}
        given = self.parameters.model_dump(include=set() if shipped else asked_too)
        asked = step_parameters(self.history_model, revision, **given)
        return Study(asked, Measurements(asked, loud=True, only_shipped=shipped))

    def fixed(self, page: str) -> list[Finding]:
        """What a page finds under `corrected` for a group of FIXED neurons; I1 is too dear."""
        sample = self.sample(CORRECTED, size=FIXED)
        more = {"dear": False} if page == "coordination" else {}
        return list(PAGES[page].findings(sample, **more))


def classed(effects: xr.Dataset, classes: TypeClasses, by: str) -> xr.Dataset:
    """Effects whose positions are rare or common by their `input` or `target`."""
    return effects.assign_coords(stratum=("position", classes.stratum(effects[by].values)))
