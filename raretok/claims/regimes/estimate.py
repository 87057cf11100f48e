"""The page `regimes`: estimands of R0 to R3 and O1 (data/claims.yaml)."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Float

from raretok.claims.finding import Finding, found
from raretok.claims.regimes.curve import bin_weights, head_size, lift_scatter, log_lift
from raretok.claims.sample import (
    KINDS,
    LeftOut,
    Sample,
    by_rank,
    correlation,
    neurons_in,
    over_ceiling,
    ranked,
)
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate, jackknife

Curves = Float[np.ndarray, "left_out rank"]
ESTIMANDS = (
    ("R0", "concentration"),
    ("R1", "lift"),
    ("R1", "direct effect"),
    ("R2", "size"),
    ("R3", "lift"),
    ("O1", "rank correlation"),
)
HEADS = (0.003, 0.005, 0.01, 0.02, 0.03)  # shares of the neurons that a lift is shown for


def rank_curves(sample: Sample, kind: str) -> Curves:
    """Influence by rank, each neuron ranked on some blocks and measured on others; nats."""
    return by_rank(*sample.influences(kind)).mean(axis=1)


def head_of(sample: Sample, share: float = 0.01) -> int:
    """Neurons in a share of the layer."""
    return neurons_in(100 * share, sample.delta_loss.shape[1])


def lift(sample: Sample, kind: str, share: float = 0.01) -> Estimate:
    """Mean influence of the head over the smooth curve below it."""
    return lift_of(rank_curves(sample, kind), head_of(sample, share))


def lift_of(curves: Curves, head: int) -> Estimate:
    """Of rank curves; the interval counts what documents and a sample of neurons leave open."""
    return jackknife(*log_lifts(curves, head)).through(np.exp)


def log_lifts(curves: Curves, head: int) -> tuple[LeftOut, float]:
    """ln of the lift of each rank curve, and its scatter over samples of neurons."""
    weights = bin_weights(curves, head)
    scatter = lift_scatter(curves[0], head, weights, rng=np.random.default_rng(head))
    return np.array([log_lift(one, head, weights) for one in curves]), scatter


def size(sample: Sample) -> Estimate:
    """Neurons in the head that is set apart most, % of the layer: median and range over halves.

    A count that jumps has no jackknife. How far it jumps between halves of the documents is what it
    scatters by on all of them (McCarthy, 1969), and more.
    """
    curves = by_rank(*sample.of_halves("rare", slice(1)))[0]
    shares = [100 * head_size(one) / one.size for one in curves]
    low, middle, high = np.quantile(shares, [0.025, 0.5, 0.975])
    return Estimate(float(middle), float(low), float(high))


def concentration(sample: Sample) -> Estimate:
    """Share of all positive influence that the top 1 % hold, rare less common."""
    rare, common = (top_share(sample, kind).mean(axis=1) for kind in KINDS)
    return jackknife(rare - common)


def top_share(sample: Sample, kind: str) -> Float[np.ndarray, "left_out split"]:
    """Part of the influence of all neurons that seem to help which the first 1 % hold.

    Both are chosen on one part of the documents and measured on the other.
    """
    ranking, values = sample.influences(kind)
    head = by_rank(ranking, values)[..., : head_of(sample)].sum(axis=-1)
    total = np.where(ranking > 0, values, 0.0).sum(axis=-1)
    if not (total > 0).all():
        raise NotTestableError(f"no neuron helps {kind} targets")
    return np.asarray(head / total)


def shared_order(sample: Sample) -> Estimate:
    """Rank correlation of rare and common influence over the root of both reliabilities."""
    ranks = {kind: [ranked(half) for half in sample.of_halves(kind)] for kind in KINDS}
    across = correlation(ranks["rare"][0], ranks["common"][1]).mean(axis=1)
    within = [correlation(*both).mean(axis=1) for both in ranks.values()]
    what = "the order of the neurons does not repeat"
    return jackknife(over_ceiling(across, *within, what))


def under(sample: Sample, interventions: xr.Dataset, name: str) -> Sample:
    """The sample with effects under another intervention.

    Sums were measured, so that all targets of a class in a document are one position: enough for
    what reads means of effects alone.
    """
    at, weight = list(interventions.interventions).index(name), interventions.weight.values
    mean = interventions.delta_loss.values[at] / weight[:, None]
    labels = {of: interventions[f"cell_{of}"].values for of in ("document", "stratum")}
    return replace(sample, delta_loss=mean, post=np.zeros_like(mean), weight=weight, **labels)


def direct_lift(sample: Sample, interventions: xr.Dataset | None) -> Estimate:
    """R1's lift for effects that do not go through the scale of the final norm."""
    if interventions is None or not sample.protocol.signed:
        raise NotTestableError("other interventions are measured for the reading corrected only")
    return lift(under(sample, interventions, "direct"), "rare")


def findings(sample: Sample, interventions: xr.Dataset | None = None) -> Iterator[Finding]:
    """Every estimand of the page under one reading."""
    gates = sample.gates | {
        "reliability": sample.reliability("rare"),
        "reliability of common": sample.reliability("common"),
    }
    computed = (
        (concentration, sample),
        (lift, sample, "rare"),
        (direct_lift, sample, interventions),
        (size, sample),
        (lift, sample, "common"),
        (shared_order, sample),
    )
    for key, of in zip(ESTIMANDS, computed, strict=True):
        yield found(key, sample.protocol.name, gates, *of)
