"""What the notebooks call: the results of every section for a page's parameters.

Everything here is computed from measurements (raretok/measure/); no model is loaded, unless one
is asked for that was never measured.
"""

from collections.abc import Iterable
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from raretok.claims.attention.head_sums import HeadSums
from raretok.claims.attention.rows import Rows
from raretok.errors import UserError
from raretok.ledger.claims import Evidence
from raretok.measure.find import Measurements
from raretok.measure.parameters import PageParameters, validated
from raretok.models.architecture import Architecture
from raretok.sections import labels
from raretok.sections.attention import EARLY, Attention, find_attention
from raretok.sections.coordination import (
    Coordination,
    Untestable,
    Weights,
    coordination_test,
    find_coordination,
)
from raretok.sections.eigenvalues import noise_spectra
from raretok.sections.interventions import Intervened, intervene
from raretok.sections.joint_activity import information_test, spectrum_of
from raretok.sections.modularity import Modularity, find_modularity
from raretok.sections.overlap import Overlap, find_overlap
from raretok.sections.overlap import evidence as overlap_evidence
from raretok.sections.regimes import Regimes, Settings, evidence, find_regimes
from raretok.sections.spectra import (
    Spectra,
    find_spectra,
    spectra_test,
    tail_size,
    weight_rows,
)
from raretok.sections.together import Together, joint_groups, together
from raretok.stats.documents import resample_documents
from raretok.stats.groups import Fold, find_folds
from raretok.text.protocol import PROTOCOLS, Protocol, protocol_named
from raretok.text.rarity import COMMON, RARE, TypeClasses, classes_of

JOINT_CONTROLS = 100  # control groups that are ablated as a whole: each costs a product
STRATIFIED, RELEASED = "stratified", "whole contexts"
HEAD_MODES = {STRATIFIED: ("mean", "zero", "resample", "first", "early"), RELEASED: ("first",)}
BOTH = tuple(f"effects: {draw}" for draw in HEAD_MODES)
TESTED = tuple(f"heads: {draw}, {modes[0]}" for draw, modes in HEAD_MODES.items())
# Parts that a page reads of the model and of its untrained twin, beside "model".
NEEDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "regimes": ((*BOTH, "interventions"), BOTH),
    "coordination": (BOTH, BOTH),
    "modularity": (BOTH, BOTH),
    "attention": (
        (
            *BOTH,
            *(f"attention: {protocol}" for protocol in PROTOCOLS),
            *(f"heads: {draw}, {mode}" for draw, modes in HEAD_MODES.items() for mode in modes),
        ),
        (*BOTH, *TESTED),
    ),
    "spectra": (BOTH, BOTH),
    "detectors": ((f"effects: {STRATIFIED}",), (f"effects: {STRATIFIED}",)),
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
                for name in ("model", *names):
                    self.part(name, trained)
            if page == "regimes":
                self.together(self.protocol.name)
            if page == "detectors":
                _ = self.detectors

    @cached_property
    def protocol(self) -> Protocol:
        return protocol_named(self.parameters.protocol)

    @cached_property
    def architecture(self) -> Architecture:
        return Architecture(**self.part("model").attrs["architecture"])

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
        return self.percentage(self.parameters.group_percent)

    def percentage(self, percent: float) -> int:
        """How many neurons a percentage of the layer is."""
        return round(percent / 100 * self.architecture.d_mlp)

    def weights(self, trained: bool = True) -> Weights:
        """What each neuron reads and writes."""
        model = self.part("model", trained)
        return Weights(model.W_in.values, model.W_out.values)

    @cache  # noqa: B019
    def folds(
        self, protocol: str, trained: bool = True, part: str = "boost", size: int | None = None
    ) -> list[Fold]:
        """The plateau group under a protocol and its control groups; `size` in place of the 1 %."""
        return find_folds(
            self.effects(protocol, trained),
            PROTOCOLS[protocol],
            np.linalg.norm(self.weights(trained).W_out, axis=1),
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

    @cache  # noqa: B019
    def regimes(self, protocol: str, trained: bool = True) -> Regimes:
        """Rank curves and their tests under a protocol."""
        settings = Settings(self.parameters.n_bootstrap, self.parameters.n_null)
        rng = self.rng(f"regimes {protocol}")
        effects = self.effects(protocol, trained)
        try:
            return find_regimes(effects, PROTOCOLS[protocol], settings, rng=rng)
        except ValueError as error:
            if not str(error).startswith("not testable"):
                raise
            raise UserError(
                f"{effects.attrs['model']}, protocol {protocol}: {error} "
                f"(its last MLP has {effects.sizes['neuron']} neurons)"
            ) from None

    @cache  # noqa: B019
    def coordination(self, protocol: str, trained: bool = True) -> Coordination | Untestable:
        """What the neurons of the plateau group do together under a protocol, or why not."""
        effects = self.effects(protocol, trained)
        rng = self.rng(f"coordination {protocol} {trained}")
        try:
            return find_coordination(
                effects,
                self.folds(protocol, trained),
                PROTOCOLS[protocol],
                self.weights(trained),
                n_bootstrap=self.parameters.n_bootstrap,
                rng=rng,
            )
        except UserError as error:
            return Untestable(PROTOCOLS[protocol], str(error))

    @cache  # noqa: B019
    def exchanged(self, protocol: str) -> list[tuple[xr.Dataset, list[Fold]]]:
        """Groups chosen as the plateau group is, under labels exchanged within documents."""
        rng = self.rng(f"exchanged {protocol}")
        norms = np.linalg.norm(self.weights().W_out, axis=1)
        worlds = [labels.exchanged(self.effects(protocol), rng=rng) for _ in range(labels.DRAWS)]
        n_controls = min(labels.CONTROLS, self.parameters.n_controls)
        options = {"size": self.group_size, "n_controls": n_controls, "rng": rng}
        return [(one, find_folds(one, PROTOCOLS[protocol], norms, **options)) for one in worlds]

    def dimension_when_exchanged(self, protocol: str) -> list[float]:
        """p of C1's test for each of `exchanged`."""
        spectrum = spectrum_of(PROTOCOLS[protocol])
        return [
            coordination_test(one.post.values, folds, one.stratum.values == RARE, spectrum).p
            for one, folds in self.exchanged(protocol)
        ]

    def information_when_exchanged(self, protocol: str) -> list[float]:
        """p of I1's test for the first of `exchanged`: each pair of neurons is dear."""
        rng, found = self.rng(f"information exchanged {protocol}"), []
        for one, folds in self.exchanged(protocol)[: labels.DEAR_DRAWS]:
            rare, n_controls = one.stratum.values == RARE, labels.DEAR_CONTROLS
            options = {"n_controls": n_controls, "rng": rng}
            found.append(information_test(one.post.values, folds, rare, **options).p)
        return found

    def tail_when_exchanged(self, protocol: str) -> list[float]:
        """p of S1's test for each of `exchanged`."""
        found, size = self.spectra(protocol), self.group_size
        rows, rng = found.rows[found.matrix], self.rng(f"tail exchanged {protocol}")
        noise = noise_spectra(size, rows.shape[1], labels.CONTROLS, rng=rng)
        tail = tail_size(PROTOCOLS[protocol], size)
        return [spectra_test(rows, folds, noise, tail).p for _, folds in self.exchanged(protocol)]

    @cached_property
    def detectors(self) -> xr.Dataset:
        """What the tests of the pages say of planted worlds, and where nothing is planted."""
        return self.part(f"detectors: {self.group_size}")

    def interventions(self, protocol: str) -> dict[str, dict[str, Intervened]]:
        """Influence on rare and common targets under every intervention."""
        return intervene(self.effects(protocol), self.part("interventions"))

    @cache  # noqa: B019
    def together(self, protocol: str, kind: int = RARE) -> Together:
        """The plateau group ablated at once, beside control groups, on a class of targets."""
        effects, folds = self.effects(protocol), self.folds(protocol)
        n_documents = int(effects.document.max()) + 1
        groups = joint_groups(folds, min(JOINT_CONTROLS, self.parameters.n_controls))
        return together(
            folds,
            effects,
            self.measurements.part(f"joint: {protocol}", groups=groups),
            protocol,
            kind,
            counts=resample_documents(
                n_documents, self.parameters.n_bootstrap, rng=self.rng(f"together {protocol} boost")
            ),
        )

    @cache  # noqa: B019
    def overlap(self, protocol: str, trained: bool = True) -> Overlap:
        """How far rare and common targets share their top neurons, under a protocol."""
        return find_overlap(
            self.effects(protocol, trained),
            self.folds(protocol, trained),
            PROTOCOLS[protocol],
            n_boot=self.parameters.n_bootstrap,
            n_perm=self.parameters.n_null,
            rng=self.rng(f"overlap {protocol} {trained}"),
        )

    @cache  # noqa: B019
    def spectra(self, protocol: str, trained: bool = True) -> Spectra:
        """Weight spectra of the plateau group, boost and suppress part, under a protocol."""
        weights = self.weights(trained)
        rows = weight_rows(weights.W_in, weights.W_out)
        parts = {part: self.folds(protocol, trained, part) for part in ("boost", "suppress")}
        rng = self.rng(f"spectra {protocol} {trained}")
        return find_spectra(rows, parts, PROTOCOLS[protocol], self.architecture.family, rng=rng)

    @cache  # noqa: B019
    def modularity(self, protocol: str, trained: bool = True) -> Modularity:
        """Modules of the plateau group and of its controls under a protocol."""
        return find_modularity(
            self.effects(protocol, trained),
            self.folds(protocol, trained),
            PROTOCOLS[protocol],
            rng=self.rng(f"modularity {protocol} {trained}"),
        )

    @cache  # noqa: B019
    def heads(self, protocol: str, trained: bool = True) -> dict[str, HeadSums]:
        """What ablating attention heads does to the last MLP, by how they are ablated."""
        draw = PROTOCOLS[protocol].draw
        modes = HEAD_MODES[draw] if trained else HEAD_MODES[draw][:1]
        names = {mode: EARLY if mode == "early" else mode for mode in modes}
        found = {
            name: HeadSums.of(self.part(f"heads: {draw}, {mode}", trained), protocol)
            for mode, name in names.items()
        }
        return {name: one for name, one in found.items() if one.targets}

    @cache  # noqa: B019
    def attention(self, protocol: str, trained: bool = True) -> Attention:
        """Attention of rare and common queries, and its effect on the group, under a protocol."""
        asked = {"boost": {}}
        if trained:
            asked |= {"suppress": {"part": "suppress"}}
            asked |= {f"{percent} %": {"size": self.percentage(percent)} for percent in (2, 5)}
        return find_attention(
            self.architecture,
            lambda: Rows.of(self.part(f"attention: {protocol}")),
            self.effects(protocol, trained),
            self.heads(protocol, trained),
            {name: lambda of=of: self.folds(protocol, trained, **of) for name, of in asked.items()},
            PROTOCOLS[protocol],
            Settings(self.parameters.n_bootstrap, self.parameters.n_null),
            trained=trained,
            rng=self.rng(f"attention {protocol}"),
        )

    def verdicts(self, found: dict[str, Regimes], untrained: dict[str, Regimes]) -> list[Evidence]:
        """Evidence on the page's claims under each protocol, for the ledger."""
        rng = self.rng("power")
        n = self.parameters.n_null
        return [
            one
            for name in found
            for one in (
                *evidence(found[name], untrained[name], n_draws=n, rng=rng),
                overlap_evidence(
                    self.overlap(name),
                    self.overlap(name, trained=False),
                    self.effects(name).attrs["measurement"],
                ),
            )
        ]
