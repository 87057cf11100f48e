"""The page `attention`: do rare targets use attention of their own? Evidence on A1 to A4."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr
from jaxtyping import Int

from raretok.claims.attention.head_sums import HeadSums, Target
from raretok.claims.attention.rows import Rows
from raretok.errors import UserError
from raretok.ledger.verdicts import Evidence
from raretok.models.architecture import Architecture
from raretok.sections.attention_profiles import (
    LAST,
    Concentration,
    Profiles,
    Tested,
    compare_gini,
    compare_profiles,
    design_of,
    gini_test,
    profile_test,
)
from raretok.sections.knockout import (
    Knockout,
    LayerKnockout,
    head_effects,
    knock_out,
    knock_out_layers,
    part_of,
    unit_of,
)
from raretok.sections.regimes import Settings
from raretok.stats.groups import Fold
from raretok.text.protocol import Protocol
from raretok.text.rarity import Positions

EARLY = "mean, early layers"  # name of that run
MATTERS_R, MATTERS_GINI = 0.05, 0.02  # effects that a claim of absence must be able to see
MATTERS_HEAD, MATTERS_LAYER = 0.5, 20.0  # of the controls' largest head; percentage points


@dataclass(frozen=True)
class Alike:
    """Attention of rare and common queries, compared."""

    queries: Positions
    edges: Int[np.ndarray, " edge"]
    profiles: Profiles
    profile: Tested
    gini: Concentration
    gini_tested: Tested
    gini_rest: Concentration  # without the first token
    gini_rest_tested: Tested


@dataclass(frozen=True)
class Attention:
    """What was found under one protocol; what could not be tested has a reason instead."""

    protocol: Protocol
    architecture: Architecture
    mode: str  # of ablation, that the claims are about
    layers: list[int]  # tested: those of the last two that reach the last MLP
    heads: dict[str, HeadSums]  # by mode
    alike: Alike | None = None
    knockouts: dict[tuple[str, str], Knockout] = field(default_factory=dict)  # by group and mode
    whole: LayerKnockout | None = None  # of the group under `mode`
    early: dict[str, dict[Target, float]] = field(default_factory=dict)  # of earlier layers
    group: Int[np.ndarray, " member"] | None = None  # of the first fold
    reasons: dict[str, str] = field(default_factory=dict)  # by claim
    run: str = ""

    @property
    def knockout(self) -> Knockout | None:
        """Of the plateau group under the mode that the claims are about."""
        return self.knockouts.get(("boost", self.mode))


def tested_layers(architecture: Architecture) -> list[int]:
    """Those of the last two layers whose heads can reach the last MLP."""
    n = architecture.n_layers
    return [n_ for n_ in range(max(0, n - LAST), n) if architecture.reaches_last_mlp(n_)]


def find_attention(
    architecture: Architecture,
    rows: Callable[[], Rows],
    effects: xr.Dataset,
    heads: dict[str, HeadSums],
    groups: dict[str, Callable[[], list[Fold]]],
    protocol: Protocol,
    settings: Settings,
    *,
    trained: bool = True,
    rng: np.random.Generator,
) -> Attention:
    """Compare attention, and test every group under every mode that was run.

    `rows` are the attention rows of rare and common queries. `groups` gives the folds of "boost",
    which the claims are about, and then of others to be shown beside it; one that cannot be formed
    is left out, with a reason. Of an untrained model whole layers alone are tested.
    """
    released = protocol.draw == "whole contexts"
    found = Attention(
        protocol=protocol,
        architecture=architecture,
        mode="first" if released else "mean",
        layers=tested_layers(architecture),
        heads=heads,
        run=effects.attrs.get("measurement", ""),
    )
    reasons: dict[str, str] = {}
    alike, knockouts, whole = None, {}, None
    if trained:
        try:
            alike = find_alike(rows(), protocol, settings, rng=rng)
        except UserError as error:
            reasons |= {"A1": str(error), "A2": str(error)}
    # The released code sums changes as they are; elsewhere they are in units of a neuron's sd.
    unit = np.ones(effects.sizes["neuron"]) if released else unit_of(effects.post.values)
    tested = {"n_boot": settings.n_bootstrap, "rng": rng}
    folds: dict[str, list[Fold]] = {}
    for name, form in groups.items():
        try:
            if not found.layers:
                raise UserError("no head of the last two layers reaches the last MLP")
            folds[name] = form()
            for mode in [mode for mode in heads if mode != EARLY]:
                parts = [
                    part_of(heads[mode], fold, measured_documents(effects, fold), unit)
                    for fold in folds[name]
                ]
                if trained:
                    knockouts[name, mode] = knock_out(mode, parts, found.layers, **tested)
                elif mode == found.mode:
                    whole = knock_out_layers(parts, found.layers, **tested)
        except ValueError as error:
            if not isinstance(error, UserError) and not str(error).startswith("not testable"):
                raise
            if name == "boost" and ("boost", found.mode) not in knockouts:
                reasons |= {"A3": str(error), "A4": str(error)}
    lead = knockouts.get(("boost", found.mode))
    early: dict[str, dict[Target, float]] = {}
    if lead is not None and EARLY in heads:
        parts = [
            part_of(heads[EARLY], fold, measured_documents(effects, fold), unit)
            for fold in folds["boost"]
        ]
        early = dict(zip(("effect", "control"), head_effects(parts), strict=True))
    return replace(
        found,
        alike=alike,
        early=early,
        group=folds["boost"][0].group if "boost" in folds else None,
        knockouts=knockouts,
        whole=whole if lead is None else lead.whole,
        reasons=reasons,
    )


def find_alike(
    rows: Rows, protocol: Protocol, settings: Settings, *, rng: np.random.Generator
) -> Alike:
    """Compare the rows of rare and common queries.

    These are matched on position (and document) where the protocol matches its controls too.
    """
    design = design_of(rows, protocol.matched)
    draws = {"n_null": settings.n_null, "n_boot": settings.n_bootstrap, "rng": rng}
    profiles = compare_profiles(rows, design, **draws)
    gini, rest = (compare_gini(one, design, **draws) for one in (rows.gini, rows.gini_rest))
    return Alike(
        queries=rows.queries,
        edges=rows.edges,
        profiles=profiles,
        profile=profile_test(profiles),
        gini=gini,
        gini_tested=gini_test(gini),
        gini_rest=rest,
        gini_rest_tested=gini_test(rest),
    )


def measured_documents(effects: xr.Dataset, fold: Fold) -> Int[np.ndarray, " document"]:
    """Documents that a fold measures: it holds out documents as a whole."""
    return np.unique(effects.document.values[fold.measured])


def evidence(found: Attention, untrained: Attention) -> list[Evidence]:
    """What the page found on A1 to A4 under one protocol, for the ledger."""
    alike, knockout, whole = found.alike, found.knockout, found.whole
    random = "matched on their traits" if found.protocol.matched else "drawn at random"
    exchanged = "labels exchanged within documents" + (
        ", position matched" if found.protocol.matched else ""
    )
    world = untrained.whole.change.test.p if untrained.whole else None
    return [
        one_claim(found, "A1", alike and alike.profile, exchanged, MATTERS_R, "fig-r"),
        one_claim(found, "A2", alike and alike.gini_tested, exchanged, MATTERS_GINI, "fig-gini"),
        one_claim(
            found,
            "A3",
            knockout and knockout.largest,
            f"largest head effect on control groups, {random}",
            MATTERS_HEAD,
            "fig-largest",
        ),
        one_claim(
            found,
            "A4",
            whole and whole.change,
            f"change of control groups, {random}",
            MATTERS_LAYER,
            "fig-layers",
            null_world_p=world,
        ),
    ]


def one_claim(
    found: Attention,
    claim: str,
    tested: Tested | None,
    null: str,
    matters: float,
    figure: str,
    null_world_p: float | None = None,
) -> Evidence:
    """Evidence from one test, or the reason why there is none."""
    place = {"claim": claim, "protocol": found.protocol.name, "figure": figure, "run": found.run}
    if tested is None:
        reason = found.reasons.get(claim, "not tested")
        return Evidence(
            **place, value=None, interval=None, null=null, p=None, null_world_p=None, reason=reason
        )
    return Evidence(
        **place,
        value=tested.test.value,
        interval=(tested.interval.low, tested.interval.high),
        null=null,
        p=tested.test.p,
        null_world_p=null_world_p,
        power=tested.test.power(matters),
        smallest=tested.test.smallest,
    )
