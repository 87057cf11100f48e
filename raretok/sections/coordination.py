"""The page `coordination`: what the neurons of the plateau group do together, and C1 and I1."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from raretok.errors import UserError
from raretok.ledger.claims import Evidence
from raretok.sections import similarity
from raretok.sections.dimension import Spectrum, correlations, participation_ratio
from raretok.sections.joint_activity import (
    KINDS,
    ClassCoordination,
    Sample,
    Shared,
    class_coordination,
    class_rows,
    compare_spectra,
    relative_interval,
    spectrum_of,
)
from raretok.stats.documents import Interval, NullTest, Side, null_test, resample_documents
from raretok.stats.groups import Compared, Fold, balance, compare, neuron_traits
from raretok.text.protocol import Protocol

LOWER, SHARED = 0.1, 0.02  # effects that matter: 10 % fewer dimensions, 0.02 nats a pair


@dataclass(frozen=True)
class Weights:
    """Of the last MLP; one row a neuron."""

    W_in: Float[np.ndarray, "neuron d_model"]
    W_out: Float[np.ndarray, "neuron d_model"]


@dataclass(frozen=True)
class Similarity:
    """Cosines of one kind of weight vectors."""

    signed: Compared  # mean over the pairs of a group
    size: Compared  # mean of its absolute value
    apart: float  # mean size over pairs of one neuron of the group and one of a control


@dataclass(frozen=True)
class Coordination:
    """All that the page shows of one protocol."""

    protocol: Protocol
    d_mlp: int
    folds: list[Fold]
    rows: list[dict[str, Int[np.ndarray, "_"]]]  # positions measured, by fold and class
    rare: ClassCoordination
    common: ClassCoordination
    relative: Interval  # of the group's dimension on rare targets over the mean of its controls
    weights: dict[str, Similarity]
    traits: Float[np.ndarray, "neuron trait"]
    balance: dict[str, Float[np.ndarray, " trait"]]

    def __iter__(self):
        return iter((("rare", self.rare), ("common", self.common)))

    @property
    def group_size(self) -> int:
        return self.folds[0].group.size


@dataclass(frozen=True)
class Untested:
    """A statistic without a usable null."""

    value: float
    reason: str
    p: None = None
    smallest: None = None


@dataclass(frozen=True)
class Untestable:
    """A protocol under which nothing can be measured, and why."""

    protocol: Protocol
    reason: str


def find_coordination(
    effects: xr.Dataset,
    folds: list[Fold],
    protocol: Protocol,
    weights: Weights,
    *,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> Coordination:
    """Dimension, information and weight similarity of the group against its controls.

    Raises `UserError` for too few positions of a class and for a group that never varies.
    """
    rows = [class_rows(effects, fold, rng=rng) for fold in folds]
    present, document = np.unique(effects.document.values, return_inverse=True)
    if present.size < 2:
        raise UserError("one document is too few: an interval over documents needs at least 2")
    counts = resample_documents(present.size, n_bootstrap, rng=rng)
    sample = Sample(effects.post.values, document, counts)
    rare, common = (
        class_coordination(sample, folds, [kept[kind] for kept in rows], protocol, rng=rng)
        for kind in KINDS
    )
    traits = neuron_traits(sample.post, np.linalg.norm(weights.W_out, axis=1))
    return Coordination(
        protocol=protocol,
        d_mlp=effects.sizes["neuron"],
        folds=folds,
        rows=rows,
        rare=rare,
        common=common,
        relative=relative_interval(
            sample, folds, [kept["rare"] for kept in rows], spectrum_of(protocol), rare.dimension
        ),
        weights={name: compare_cosines(vectors, folds) for name, vectors in vars(weights).items()},
        traits=traits,
        balance=balance(traits, folds),
    )


def compare_cosines(weights: Float[np.ndarray, "neuron d_model"], folds: list[Fold]) -> Similarity:
    """Cosines within each group, and between the group and its controls."""
    signed = similarity.cosines(weights)
    size = np.abs(signed)
    return Similarity(
        compare(folds, lambda _, groups: similarity.within(signed, groups)),
        compare(folds, lambda _, groups: similarity.within(size, groups)),
        float(np.mean([similarity.between(size, fold.group, fold.controls) for fold in folds])),
    )


def coordination_test(
    post: Float[np.ndarray, "position neuron"],
    folds: list[Fold],
    kept: Bool[np.ndarray, " position"],
    spectrum: Spectrum = participation_ratio,
) -> NullTest:
    """Is the dimension of the group, over the mean of its controls, lower than theirs?

    `kept`: the positions of one class; each fold measures those of its own half.
    Raises `UserError` for a group that never varies.
    """
    matrices = [correlations(post[fold.measured & kept]) for fold in folds]
    return dimension_test(compare_spectra(folds, matrices, spectrum))


def dimension_test(found: Compared) -> NullTest:
    """Test of a dimension as a multiple of the controls' mean, on the side of fewer dimensions."""
    if not np.isfinite(found.value):
        raise UserError("every neuron of the group is constant: nothing varies together")
    mean = np.nanmean(found.null)
    return null_test(float(found.value / mean), found.null / mean, "less")


def excess_test(found: Compared | Shared, side: Side = "greater") -> NullTest:
    """Test of a number less the mean of the controls."""
    mean = np.nanmean(found.null)
    return null_test(float(found.value - mean), found.null - mean, side)


def tried(
    test: Callable[..., NullTest], found: Compared | Shared, *side: Side
) -> NullTest | Untested:
    """The result of a test, or why there is none: a null without scatter."""
    try:
        return test(found, *side)
    except ValueError as error:
        value = float(found.value / np.nanmean(found.null))
        return Untested(value, str(error).removeprefix("not testable: "))


def tests(found: Coordination) -> dict[str, NullTest | Untested]:
    """The test of each claim, on rare targets."""
    return {
        "C1": tried(dimension_test, found.rare.dimension),
        "I1": tried(excess_test, found.rare.shared),
    }


def evidence(
    found: Coordination | Untestable, untrained: Coordination | Untestable, run: str = ""
) -> list[Evidence]:
    """What the page found on C1 and I1 under one protocol, for the ledger."""
    if isinstance(found, Untestable):
        return [nothing(claim, found.protocol, found.reason, run) for claim in ("C1", "I1")]
    chance = {} if isinstance(untrained, Untestable) else tests(untrained)
    kind = "matched" if found.protocol.matched else "random"
    shown = {"C1": "fig-dimension", "I1": "fig-information"}
    intervals = {"C1": found.relative, "I1": found.rare.excess}
    matters = {"C1": LOWER, "I1": SHARED}
    rows = []
    for claim, test in tests(found).items():
        if isinstance(test, Untested):
            rows.append(nothing(claim, found.protocol, test.reason, run))
            continue
        rows.append(
            Evidence(
                claim=claim,
                protocol=found.protocol.name,
                value=test.value,
                interval=(intervals[claim].low, intervals[claim].high),
                null=f"{test.null.size:,} {kind} groups of the same size",
                p=test.p,
                null_world_p=chance[claim].p if claim in chance else None,
                power=test.power(matters[claim]),
                smallest=test.smallest,
                figure=shown[claim],
                run=run,
            )
        )
    return rows


def nothing(claim: str, protocol: Protocol, reason: str, run: str) -> Evidence:
    """A claim that could not be tested."""
    return Evidence(
        claim=claim,
        protocol=protocol.name,
        value=None,
        interval=None,
        null="",
        p=None,
        null_world_p=None,
        run=run,
        reason=reason,
    )
