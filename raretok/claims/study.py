"""What the notebooks call: the findings of every page for its parameters.

Everything here is computed from measurements (raretok/measure/); no model is loaded, unless one
is asked for that was never measured.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from raretok.claims.attention import estimate as attention
from raretok.claims.coordination import estimate as coordination
from raretok.claims.finding import Finding
from raretok.claims.modularity import estimate as modularity
from raretok.claims.regimes import estimate as regimes
from raretok.claims.sample import Sample, neurons_in
from raretok.claims.spectra import estimate as spectra
from raretok.errors import UserError
from raretok.measure.find import Measurements
from raretok.measure.head_sums import HeadSums
from raretok.measure.parameters import PageParameters, validated
from raretok.measure.rows import Rows
from raretok.models.architecture import Architecture
from raretok.stats.jackknife import Deal, deal
from raretok.text.protocol import PROTOCOLS, Protocol, protocol_named
from raretok.text.rarity import COMMON, RARE, TypeClasses, classes_of

STRATIFIED, RELEASED = "stratified", "whole contexts"
BOTH = tuple(f"effects: {draw}" for draw in (STRATIFIED, RELEASED))
# How heads are ablated; the first is what the claims are about, the others are shown beside it.
HEAD_MODES = {STRATIFIED: ("mean", "zero", "resample", "first"), RELEASED: ("first",)}
HEADS = tuple(f"heads: {draw}, {mode}" for draw, modes in HEAD_MODES.items() for mode in modes)
ROWS = tuple(f"attention: {protocol}" for protocol in PROTOCOLS)
# Parts that a page reads of the model and of its untrained twin, beside "model".
NEEDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "regimes": ((*BOTH, "interventions"), BOTH[:1]),
    "coordination": (BOTH, ()),
    "modularity": (BOTH, ()),
    "attention": ((*BOTH, *ROWS, *HEADS), ()),
    "spectra": (BOTH, ()),
}
ESTIMANDS = {
    "regimes": regimes.ESTIMANDS,
    "coordination": coordination.ESTIMANDS,
    "modularity": modularity.ESTIMANDS,
    "attention": attention.ESTIMANDS,
    "spectra": spectra.ESTIMANDS,
}


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

    @cache  # noqa: B019  (a page holds one study, for as long as it runs)
    def part(self, name: str, trained: bool = True) -> xr.Dataset:
        """One part of the measurement of the model, or of its untrained twin."""
        return (self.measurements if trained else self.measurements.twin).part(name)

    def prepare(self, pages: Iterable[str]) -> None:
        """Measure what these pages need and was not measured yet."""
        for page in [page for page in pages if page in NEEDS]:
            for names, trained in zip(NEEDS[page], (True, False), strict=True):
                for name in ("model", *names) if names else ():
                    self.part(name, trained)

    @cached_property
    def protocol(self) -> Protocol:
        return protocol_named(self.parameters.protocol)

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
    def classes(self, protocol: str) -> TypeClasses:
        """Rare and common token types under a protocol."""
        model, percentile = self.part("model"), self.parameters.rare_percentile
        counts, counted = model.counts.values, model.counted.values
        return classes_of(counts, counted, PROTOCOLS[protocol].rule, percentile)

    def effects(self, protocol: str, trained: bool = True) -> xr.Dataset:
        """The effects a protocol needs, their positions classed as that protocol does.

        `text` and `corrected` read one measurement: weights say what each position stands for, so
        classes may be cut across the strata it was drawn from.
        """
        reading = PROTOCOLS[protocol]
        found = self.part(f"effects: {reading.draw}", trained)
        stratum = self.classes(protocol).stratum(found[reading.by].values)
        return found.assign_coords(stratum=("position", stratum))

    @property
    def group_size(self) -> int:
        """Neurons in the plateau group: the percentage asked for (published: about 1 %)."""
        return neurons_in(self.parameters.group_percent, self.architecture.d_mlp)

    @cache  # noqa: B019
    def sample(self, protocol: str, trained: bool = True, heads: bool = False) -> Sample:
        """Positions, groups and controls under a protocol.

        `heads`: documents in which heads were ablated are spread evenly over the blocks.
        """
        effects = self.effects(protocol, trained)
        first = np.unique(self.heads(protocol).document) if heads else None
        dealt = deal(effects.document.values, first=first, rng=self.rng(f"deal {protocol}"))
        more = {"size": self.group_size, "seed": self.parameters.seed}
        return Sample.of(effects, self.part("model", trained), PROTOCOLS[protocol], dealt, **more)

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
    def findings(self, page: str) -> list[Finding]:
        """What a page found for each of its estimands under each reading."""
        return [one for protocol in PROTOCOLS for one in self.of_reading(page, protocol)]

    def of_reading(self, page: str, protocol: str) -> list[Finding]:
        """Under one reading; where that cannot be formed at all, the reason instead."""
        try:
            found = list(self.computed(page, protocol))
        except UserError as error:
            found = [Finding(*key, protocol, None, reason=str(error)) for key in ESTIMANDS[page]]
        where = {"model": self.measurements.label, "measurement": self.measurements.name}
        return [replace(one, **where) for one in found]

    def computed(self, page: str, protocol: str) -> Iterator[Finding]:
        if page == "regimes":
            stratified = PROTOCOLS[protocol].draw == STRATIFIED
            more = self.part("interventions") if stratified else None
            yield from regimes.findings(self.sample(protocol), more)
        elif page == "attention":
            rows, queries = self.rows(protocol), self.queries(protocol)
            yield from attention.attention_findings(rows, queries, PROTOCOLS[protocol])
            sample = self.sample(protocol, heads=True)
            yield from attention.head_findings(sample, self.heads(protocol), self.layers)
        else:
            module = {"coordination": coordination, "modularity": modularity, "spectra": spectra}
            yield from module[page].findings(self.sample(protocol))

    def run_table(self) -> pd.DataFrame:
        """What was scored for each protocol, and the largest error the audit found."""
        rows = []
        for name, reading in PROTOCOLS.items():
            effects = self.effects(name)
            stratum, document = effects.stratum.values, effects.document.values
            rows.append(
                {
                    "reading": name,
                    "rare by its": reading.by,
                    "rare types": int(self.classes(name).rare.sum()),
                    "rare positions": int((stratum == RARE).sum()),
                    "common positions": int((stratum == COMMON).sum()),
                    "documents": np.unique(document).size,
                    "largest error, nats": f"{effects.audit_max_error:.0e}",
                }
            )
        return pd.DataFrame(rows).set_index("reading")
