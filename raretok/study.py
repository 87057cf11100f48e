"""What the notebooks call: the results of every section for a page's parameters."""

from functools import cache, cached_property

import numpy as np
import torch
import xarray as xr

from raretok.ablation.gather import gather
from raretok.ablation.groups import delta_loss_group
from raretok.ablation.head import final_head
from raretok.claims import Evidence
from raretok.errors import UserError
from raretok.groups import Fold, find_folds
from raretok.protocol import PROTOCOLS
from raretok.rarity import RARE, all_positions
from raretok.runs import INTERVENTIONS, Runs
from raretok.sections import labels
from raretok.sections.attention import Attention, find_attention, run_heads
from raretok.sections.coordination import (
    Coordination,
    Untestable,
    Weights,
    coordination_test,
    find_coordination,
)
from raretok.sections.eigenvalues import noise_spectra
from raretok.sections.ground import Ground, find_ground
from raretok.sections.head_ablation import HeadEffects
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
from raretok.sections.together import Joint, Together, together
from raretok.stats import resample_documents

JOINT_CONTROLS = 100  # control groups that are ablated as a whole: each costs a product


class Study(Runs):
    """Everything a page computes from its parameters, each part once and only when asked for."""

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
                f"{effects.model}, protocol {protocol}: {error} "
                f"(its last MLP has {effects.sizes['neuron']} neurons)"
            ) from None

    @cache  # noqa: B019
    def coordination(self, protocol: str, trained: bool = True) -> Coordination | Untestable:
        """What the neurons of the plateau group do together under a protocol, or why not."""
        model = self.model if trained else self.twin
        effects = self.effects(protocol, trained)
        weights = Weights(*(w.cpu().numpy() for w in (model.W_in, model.W_out)))
        rng = self.rng(f"coordination {protocol} {trained}")
        try:
            return find_coordination(
                effects,
                self.folds(protocol, trained),
                PROTOCOLS[protocol],
                weights,
                n_bootstrap=self.parameters.n_bootstrap,
                rng=rng,
            )
        except UserError as error:
            return Untestable(PROTOCOLS[protocol], str(error))

    @cache  # noqa: B019
    def exchanged(self, protocol: str) -> list[tuple[xr.Dataset, list[Fold]]]:
        """Groups chosen as the plateau group is, under labels exchanged within documents."""
        rng, norms = self.rng(f"exchanged {protocol}"), self.model.W_out.norm(dim=1).cpu().numpy()
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
        """p of I1's test for `exchanged`, until they agree: each pair of neurons is dear."""
        rng, found = self.rng(f"information exchanged {protocol}"), []
        for one, folds in self.exchanged(protocol):
            rare, n_controls = one.stratum.values == RARE, labels.DEAR_CONTROLS
            options = {"n_controls": n_controls, "rng": rng}
            found.append(information_test(one.post.values, folds, rare, **options).p)
            if labels.agree(found):
                break
        return found

    def tail_when_exchanged(self, protocol: str) -> list[float]:
        """p of S1's test for each of `exchanged`."""
        found, size = self.spectra(protocol), self.group_size
        rows, rng = found.rows[found.matrix], self.rng(f"tail exchanged {protocol}")
        noise = noise_spectra(size, rows.shape[1], labels.CONTROLS, rng=rng)
        tail = tail_size(PROTOCOLS[protocol], size)
        return [spectra_test(rows, folds, noise, tail).p for _, folds in self.exchanged(protocol)]

    @cached_property
    def worlds(self) -> Ground:
        """What planted worlds are planted in: the model and its twin, read at some positions."""
        return find_ground(
            (self.model, self.twin),
            (self.effects("corrected"), self.effects("corrected", trained=False)),
            self.contexts,
            size=self.group_size,
            rng=self.rng("worlds"),
        )

    def interventions(self, protocol: str) -> dict[str, dict[str, Intervened]]:
        """Influence on rare and common targets under every intervention."""
        return {
            name: intervene(self.effects(protocol, intervention=name)) for name in INTERVENTIONS
        }

    @cache  # noqa: B019
    def together(self, protocol: str, part: str = "boost", kind: int = RARE) -> Together:
        """The plateau group ablated at once, beside control groups, on a class of targets."""
        effects, reading = self.effects(protocol), PROTOCOLS[protocol]
        n_documents = int(effects.document.max()) + 1
        rng = self.rng(f"together {protocol} {part}")
        return together(
            self.folds(protocol, part=part),
            effects.delta_loss.values,
            effects.weight.values,
            effects.document.values,
            effects.stratum.values == kind,
            self.joint_effects(reading.draw),
            n_controls=min(JOINT_CONTROLS, self.parameters.n_controls),
            counts=resample_documents(n_documents, self.parameters.n_bootstrap, rng=rng),
        )

    @cache  # noqa: B019
    def joint_effects(self, draw: str) -> Joint:
        """What ablates groups of neurons as a whole at the positions of a draw."""
        first, head = draw == "whole contexts", final_head(self.model)
        seen = gather(
            self.model, self.contexts, self.positions(draw), include_first=first, progress=False
        )
        target = torch.from_numpy(self.positions(draw).target).to(self.model.device)

        def joint(chosen, groups):
            rows = torch.from_numpy(np.flatnonzero(chosen)).to(target.device)
            there = (seen.resid[rows], seen.post[rows], target[rows], seen.mean_post)
            members = torch.from_numpy(groups).to(target.device)
            return delta_loss_group(head, *there, members).cpu().numpy()

        return joint

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
        model = self.model if trained else self.twin
        rows = weight_rows(*(W.double().cpu().numpy() for W in (model.W_in, model.W_out)))
        parts = {part: self.folds(protocol, trained, part) for part in ("boost", "suppress")}
        rng = self.rng(f"spectra {protocol} {trained}")
        family = model.architecture.family
        return find_spectra(rows, parts, PROTOCOLS[protocol], family, rng=rng)

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
    def head_effects(self, draw: str, trained: bool = True) -> dict[str, HeadEffects]:
        """What ablating attention heads does to the last MLP at positions of a draw."""
        return run_heads(
            self.model if trained else self.twin,
            self.contexts,
            self.positions(draw),
            released=draw == "whole contexts",
            trained=trained,
            rng=self.rng(f"heads {draw}"),
        )

    @cache  # noqa: B019
    def attention(self, protocol: str, trained: bool = True) -> Attention:
        """Attention of rare and common queries, and its effect on the group, under a protocol."""
        reading, d_mlp = PROTOCOLS[protocol], self.model.architecture.d_mlp
        asked = {"boost": {}}
        if trained:
            asked |= {"suppress": {"part": "suppress"}}
            asked |= {f"{percent} %": {"size": percent * d_mlp // 100} for percent in (2, 5)}
        return find_attention(
            self.model if trained else self.twin,
            self.contexts,
            all_positions(self.contexts, self.classes(protocol), reading.by),
            self.effects(protocol, trained),
            self.head_effects(reading.draw, trained),
            {name: lambda of=of: self.folds(protocol, trained, **of) for name, of in asked.items()},
            reading,
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
                    self.effects(name).attrs.get("run", ""),
                ),
            )
        ]
