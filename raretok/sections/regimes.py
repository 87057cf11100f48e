"""The page `regimes`: rare and common targets under one protocol, and the evidence on R1 to R3."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from raretok.ledger.claims import Evidence
from raretok.sections.contrast import Classes, Contrast, contrast
from raretok.sections.influence import (
    CurveBand,
    cross_fitted_band,
    influence,
    sorted_band,
    top_share,
)
from raretok.sections.pieces import RegimeTest, bootstrap_pieces, regime_test
from raretok.sections.plateau import (
    HEAD,
    HeadTest,
    head_lift,
    head_null,
    head_size,
    head_test,
    judge_heads,
    scan_heads,
    table_size,
)
from raretok.sections.spacings import draw_curves, normalised_spacings
from raretok.stats.documents import (
    ALPHA,
    Interval,
    bootstrap_means,
    document_sums,
    interval,
    resample_documents,
)
from raretok.text.protocol import Protocol
from raretok.text.rarity import COMMON, RARE

PLANTED_FACTOR = 3.0  # of the head that a claim of absence must have been able to see
SHAPE_DRAWS = 200  # bootstrap samples that the shape of the curve is refitted on


@dataclass(frozen=True)
class Settings:
    """How many draws the intervals and nulls of a page use."""

    n_bootstrap: int
    n_null: int


@dataclass(frozen=True)
class ClassRegimes:
    """The rank curve of one class of positions, and what the tests say of it."""

    n_positions: int
    n_documents: int
    neuron: Int[np.ndarray, " neuron"]  # which neurons are ranked: all, or the helping ones
    values: Float[np.ndarray, " neuron"]  # their influence, nats
    curve: CurveBand
    head: HeadTest
    size: Interval  # of the group that stands out most, % of all neurons
    lift: Interval  # of the top 1 % over the smooth curve, as a factor
    pieces: RegimeTest
    breaks: tuple[Interval, Interval]  # ranks at which the first and the second piece end

    @property
    def ranked(self) -> Int[np.ndarray, " neuron"]:
        """Neurons by influence, the most influential first."""
        return self.neuron[np.argsort(-self.values, kind="stable")]


@dataclass(frozen=True)
class Regimes:
    """Both classes under one protocol."""

    protocol: Protocol
    d_mlp: int
    rare: ClassRegimes
    common: ClassRegimes
    share: Contrast  # what the top 1 % hold of all positive influence, rare less common
    run: str = ""  # key of the ablation run

    def __iter__(self):
        return iter((("rare", self.rare), ("common", self.common)))


def find_regimes(
    effects: xr.Dataset, protocol: Protocol, settings: Settings, *, rng: np.random.Generator
) -> Regimes:
    """Rank curves, head tests, fits and the rare-common contrast of one ablation run.

    Raises `ValueError` ("not testable") where fewer than 200 neurons have positive influence.
    """
    classes = class_arrays(effects)
    return Regimes(
        protocol,
        effects.sizes["neuron"],
        class_regimes(classes, True, protocol, settings, rng=rng),
        class_regimes(classes, False, protocol, settings, rng=rng),
        contrast(
            classes,
            top_share,
            signed=protocol.signed,
            n_perm=settings.n_null,
            n_boot=settings.n_bootstrap,
            rng=rng,
        ),
        run=effects.attrs.get("measurement", ""),
    )


def class_arrays(effects: xr.Dataset) -> Classes:
    """The rare and common positions of a run."""
    chosen = effects.isel(position=np.isin(effects.stratum.values, (RARE, COMMON)))
    return Classes(
        chosen.delta_loss.values.astype(np.float64),
        chosen.weight.values,
        chosen.document.values,
        chosen.stratum.values == RARE,
    )


def class_regimes(
    classes: Classes,
    rare: bool,
    protocol: Protocol,
    settings: Settings,
    *,
    rng: np.random.Generator,
) -> ClassRegimes:
    """The tests on one class."""
    chosen = classes.rare == rare
    delta, weight = classes.delta_loss[chosen], classes.weight[chosen]
    present, document = np.unique(classes.document[chosen], return_inverse=True)
    neuron = np.arange(delta.shape[1])
    if protocol.boost_only:  # released code: only neurons whose ablation raises the mean loss
        neuron = np.flatnonzero(influence(delta, weight, signed=True) > 0)
        delta = delta[:, neuron]
    values = influence(delta, weight, signed=protocol.signed)
    sums = document_sums(delta if protocol.signed else np.abs(delta), document, weight)
    counts = resample_documents(present.size, settings.n_bootstrap, rng=rng)
    curve = sorted_band(sums, counts)
    if protocol.signed:
        curve = cross_fitted_band(sums, counts, document, rng=rng)
    draws = bootstrap_means(sums, counts[:SHAPE_DRAWS])
    draws = draws[np.isfinite(draws).all(axis=1)]
    sizes = np.array([head_size(values) for values in draws])
    lifts = np.array([head_lift(values) for values in draws])
    return ClassRegimes(
        n_positions=int(chosen.sum()),
        n_documents=present.size,
        neuron=neuron,
        values=values,
        curve=curve,
        head=head_test(values),
        size=interval(100 * sizes / classes.delta_loss.shape[1]),
        lift=interval(np.exp(lifts)),
        pieces=regime_test(values, rng=rng),
        breaks=bootstrap_pieces(draws)[1:],
    )


def head_power(found: ClassRegimes, n_draws: int, *, rng: np.random.Generator) -> float:
    """Chance that the head test sees a clean plateau on this class's own smooth curve.

    The lower of two chances: of the top 1 % tripled, and of the top 1 % set to their mean.
    """
    n = found.head.n_positive
    head = max(2, round(HEAD * n))
    slopes = normalised_spacings(found.pieces.smooth[None])[0]
    seen = []
    for plant in ("tripled", "flattened"):
        curves = draw_curves(slopes, n_draws, rng=rng)
        if plant == "tripled":
            curves[:, :head] += np.log(PLANTED_FACTOR)
        else:
            curves[:, :head] = np.log(np.exp(curves[:, :head]).mean(axis=1, keepdims=True))
        judged = judge_heads(scan_heads(curves, n), head_null(table_size(n)))
        seen.append(float((judged.p <= ALPHA).mean()))
    return min(seen)


def three_regimes_p(found: ClassRegimes) -> float:
    """p-value of "plateau, power law, rapid decay": every part must show, so the largest counts.

    A head set apart from the smooth tail, three pieces better than any smooth curve, and a last
    piece steeper than the middle one (p is 1 where it is not).
    """
    return max(found.head.p, found.pieces.p_curve) if found.pieces.decays_faster else 1.0


HEAD_NULL = "smooth rank curves: exponential spacings around the line fitted to this one"
CURVE_NULL = f"{HEAD_NULL}; and draws of the fitted smooth curve, for three pieces"


def evidence(
    found: Regimes, untrained: Regimes, *, n_draws: int, rng: np.random.Generator
) -> list[Evidence]:
    """What the page found on R1, R2 and R3, for the ledger.

    The power of R1 is that of its head test, the part without which there is no plateau.
    """
    name, d_mlp = found.protocol.name, found.d_mlp
    rare, common = found.rare, found.common
    power = {kind: head_power(one, n_draws, rng=rng) for kind, one in found}
    return [
        Evidence(
            claim="R1",
            protocol=name,
            value=float(np.exp(rare.head.lift)),
            interval=(rare.lift.low, rare.lift.high),
            null=CURVE_NULL,
            p=three_regimes_p(rare),
            null_world_p=three_regimes_p(untrained.rare),
            power=power["rare"],
            figure="fig-fits",
            run=found.run,
        ),
        Evidence(
            claim="R2",
            protocol=name,
            value=100 * rare.head.size / d_mlp,
            interval=(rare.size.low, rare.size.high),
            null=HEAD_NULL,
            p=rare.head.p,
            null_world_p=untrained.rare.head.p,
            power=power["rare"],
            figure="fig-heads",
            run=found.run,
        ),
        Evidence(
            claim="R3",
            protocol=name,
            value=100 * common.head.size / d_mlp,
            interval=(common.size.low, common.size.high),
            null=HEAD_NULL,
            p=common.head.p,
            null_world_p=untrained.common.head.p,
            power=power["common"],
            figure="fig-heads",
            run=found.run,
        ),
    ]
