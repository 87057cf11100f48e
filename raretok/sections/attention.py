"""The page `attention`: do rare targets use attention of their own? Evidence on A1 to A4."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr
from jaxtyping import Int

from raretok.corpus import Contexts
from raretok.errors import UserError
from raretok.groups import Fold
from raretok.ledger import Evidence
from raretok.models import Architecture, LanguageModel
from raretok.protocol import Protocol
from raretok.rarity import Positions
from raretok.sections.attention_capture import capture_rows, choose_queries, contexts_of
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
from raretok.sections.head_ablation import (
    WHOLE,
    HeadEffects,
    Target,
    ablate_heads,
    reaches_last_mlp,
    targets_of,
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

QUERIES = 400  # rare queries whose rows are captured
ABLATED = 200  # rare positions at which the heads of the last two layers are mean-ablated
ABLATED_MORE = 64  # the same for the other modes, and for earlier layers
RELEASED_QUERIES = 5  # of a class and context that the released ablation is measured at
MEMORY = 2e9  # bytes; a model whose early layers would take more has its last two ablated only
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
    heads: dict[str, HeadEffects]  # by mode
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
    return [n_ for n_ in range(max(0, n - LAST), n) if reaches_last_mlp(architecture, n_)]


def run_heads(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    released: bool,
    trained: bool,
    *,
    rng: np.random.Generator,
) -> dict[str, HeadEffects]:
    """Every ablation of heads that the protocols on these positions need, by mode.

    `released`: the redirect to the first token alone. An untrained model has whole layers ablated
    only, which is what a claim of presence is compared with.
    """
    architecture = model.architecture
    last = range(max(0, architecture.n_layers - LAST), architecture.n_layers)
    targets, early = (targets_of(architecture, part) for part in (last, range(last.start)))
    if not trained:
        targets = [target for target in targets if target[1] == WHOLE]

    def run(n_rare: int | None, targets: list[Target], modes: tuple[str, ...], **more: int):
        used = np.unique(positions.context)
        if n_rare is not None:
            used = contexts_of(positions, n_rare, rng=rng)
        chosen = np.flatnonzero(np.isin(positions.context, used))
        found = ablate_heads(model, contexts, positions[chosen], targets, modes, rng=rng, **more)
        return {mode: replace(one, row=chosen[one.row]) for mode, one in found.items()}

    if released:
        return run(None, targets, ("first",), per_context=RELEASED_QUERIES)
    found = run(ABLATED, targets, ("mean",))
    if trained:
        found |= run(ABLATED_MORE, targets, ("zero", "resample", "first"))
    # About as many common as rare positions come with them.
    bytes_early = 8 * ABLATED_MORE * len(early) * architecture.d_mlp
    if trained and early and bytes_early < MEMORY:
        found[EARLY] = run(ABLATED_MORE, early, ("mean",))["mean"]
    return found


def find_attention(
    model: LanguageModel,
    contexts: Contexts,
    everything: Positions,
    effects: xr.Dataset,
    heads: dict[str, HeadEffects],
    groups: dict[str, Callable[[], list[Fold]]],
    protocol: Protocol,
    settings: Settings,
    *,
    trained: bool = True,
    rng: np.random.Generator,
) -> Attention:
    """Compare attention, and test every group under every mode that was run.

    `everything`: all positions, classed as the protocol does. `groups` gives the folds of "boost",
    which the claims are about, and then of others to be shown beside it; one that cannot be formed
    is left out, with a reason. Of an untrained model whole layers alone are tested.
    """
    released = protocol.draw == "whole contexts"
    found = Attention(
        protocol=protocol,
        architecture=model.architecture,
        mode="first" if released else "mean",
        layers=tested_layers(model.architecture),
        heads=heads,
        run=effects.attrs.get("run", ""),
    )
    reasons: dict[str, str] = {}
    alike, knockouts, whole = None, {}, None
    if trained:
        try:
            alike = find_alike(model, contexts, everything, effects, protocol, settings, rng=rng)
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
                    part_of(heads[mode], fold, effects.stratum.values, unit) for fold in folds[name]
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
        parts = [part_of(heads[EARLY], f, effects.stratum.values, unit) for f in folds["boost"]]
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
    model: LanguageModel,
    contexts: Contexts,
    everything: Positions,
    effects: xr.Dataset,
    protocol: Protocol,
    settings: Settings,
    *,
    rng: np.random.Generator,
) -> Alike:
    """Capture the rows of rare and common queries of the run's contexts, and compare them.

    Queries are matched on position (and document) where the protocol matches its controls too.
    Raises `UserError` for too few.
    """
    scored = Positions(**{name: effects[name].values for name in Positions.__annotations__})
    used = contexts_of(scored, QUERIES, rng=rng)
    pool = everything[np.isin(everything.context, used)]
    queries = choose_queries(pool, protocol.matched, rng=rng)
    rows = capture_rows(model, contexts, queries)
    design = design_of(rows, protocol.matched)
    draws = {"n_null": settings.n_null, "n_boot": settings.n_bootstrap, "rng": rng}
    profiles = compare_profiles(rows, design, **draws)
    gini, rest = (compare_gini(one, design, **draws) for one in (rows.gini, rows.gini_rest))
    return Alike(
        queries=queries,
        edges=rows.edges,
        profiles=profiles,
        profile=profile_test(profiles),
        gini=gini,
        gini_tested=gini_test(gini),
        gini_rest=rest,
        gini_rest_tested=gini_test(rest),
    )


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
