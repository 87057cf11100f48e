r"""The page `rivals`: what else could the neurons that matter for rare targets be?

Four rivals, one score a neuron each, written down before any of it was computed; the page says what
each is. Scores and influence on rare targets are normal scores of their ranks over the layer. What
a regression on all four explains is split by Shapley values over the subsets (Lindeman, Merenda
and Gold, 1980). Difficulty is measured on one half of the documents, influence on the other; what
influence on the one half explains of that on the other is the ceiling.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import ndtri

from raretok.claims.compare import ratio
from raretok.claims.finding import or_none
from raretok.claims.regimes.estimate import under
from raretok.claims.rivals.shapley import correlations, r_squared, shapley
from raretok.claims.rivals.surprisal import (
    matched,
)
from raretok.claims.sample import LeftOut, PerNeuron, Sample, correlation, ranked
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate, jackknife

RIVALS = ("token frequency", "entropy", "activation scale", "difficulty")


def normal_scores(values: Float[np.ndarray, "*fold neuron"]) -> Float[np.ndarray, "*fold neuron"]:
    """Van der Waerden's scores of the ranks over the neurons."""
    return ndtri((ranked(values) + 0.5) / values.shape[-1])


def weight_scores(sample: Sample, unembedding: xr.Dataset) -> Float[np.ndarray, "rival neuron"]:
    """The three rivals that read no effect, by one standard deviation of the activation."""
    mean = np.average(sample.post, axis=0, weights=sample.weight)
    sd = np.sqrt(np.average((sample.post - mean) ** 2, axis=0, weights=sample.weight))
    written = np.linalg.norm(sample.W_out, axis=1) * sd
    along = np.abs(unembedding.frequency.values) * sd
    return np.stack([along, written * unembedding.null_share.values, written])


@dataclass(frozen=True)
class Explained:
    """Shares of the variance of the neurons' influence on rare targets."""

    # By rival: its "part" (Shapley value), what it explains "alone", and the "last" of all.
    by: dict[str, dict[str, Estimate]]
    all: Estimate
    ceiling: Estimate


def explained(
    weights: Float[np.ndarray, "rival neuron"],
    frequent: PerNeuron,
    rare: tuple[PerNeuron, PerNeuron],
) -> Explained:
    """How much of influence on rare targets each rival explains.

    `frequent`: influence on others as surprising, on the documents of the first of `rare`; the
    second is explained.
    """
    outcome, difficulty = normal_scores(rare[1]), normal_scores(frequent)
    fixed = np.broadcast_to(normal_scores(weights), (*outcome.shape[:-1], *weights.shape))
    corr = correlations(np.concatenate([fixed, np.stack([difficulty, outcome], -2)], axis=-2))
    ceiling, names = correlation(normal_scores(rare[0]), outcome) ** 2, range(len(RIVALS))
    total = r_squared(corr, tuple(names))
    without = [r_squared(corr, tuple(k for k in names if k != i)) for i in names]
    found = {
        "part": shapley(corr),
        "alone": corr[..., :-1, -1] ** 2,
        "last": total[..., None] - np.stack(without, axis=-1),
    }
    by = {
        column: dict(zip(RIVALS, map(jackknife, values.mean(axis=1).T), strict=True))
        for column, values in found.items()
    }
    return Explained(by, *(jackknife(one.mean(axis=1)) for one in (total, ceiling)))


def share(part: LeftOut, whole: LeftOut) -> Estimate:
    """One influence as a share of another. Raises `NotTestableError` where that is not positive."""
    if whole.min() <= 0:
        raise NotTestableError("the group's influence is not positive: it has no shares")
    return jackknife(part / whole)


def through_scale(sample: Sample, interventions: xr.Dataset) -> Estimate:
    """Share of the group's influence on rare targets that goes through the final norm's scale."""
    total = sample.mean("rare", sample.folds[1])
    direct = under(sample, interventions, "direct").mean("rare", sample.folds[1])
    return share(*map(sample.of_group, (total - direct, total)))


@dataclass(frozen=True)
class Compared:
    """Everything the page shows of one model; None where a number cannot be had.

    All that is said of the group is measured on documents that it was not chosen on.
    """

    explained: Explained
    matched: float  # share of the rare targets that others are as surprising as
    influence: dict[str, Estimate]  # of the group, nats, by kind of target
    scores: dict[str, Estimate]  # its mean normal score on each rival, in sd over the layer
    ratio: Estimate | None  # its influence on rare targets over that on others as surprising
    left: Estimate | None  # one over that, as a share, for which either sign will do
    reverse: Estimate | None  # the ratio of the group that is chosen on the others instead
    through_scale: Estimate | str | None  # words where it was not measured


def compared(
    sample: Sample,
    loss: Float[np.ndarray, " position"],
    unembedding: xr.Dataset,
    interventions: xr.Dataset | None = None,
) -> Compared:
    """The rivals of one model's neurons. Raises `NotTestableError` where they cannot be had."""
    weights, both = weight_scores(sample, unembedding), matched(sample, loss)
    (_, rare), (chosen_on, frequent) = both.rare, both.frequent
    every, common = (sample.mean(kind, sample.folds[1]) for kind in ("rare", "common"))
    fixed = [np.broadcast_to(one, rare.shape) for one in normal_scores(weights)]
    scores = dict(zip(RIVALS, [*fixed, normal_scores(frequent)], strict=True))
    kinds = {"rare": rare, "as surprising": frequent, "common": common}
    other = np.argsort(-chosen_on, axis=-1, kind="stable")[..., : sample.size]
    mean, what = sample.of_group, "rare over as surprising"
    return Compared(
        explained(weights, chosen_on, (sample.mean("rare", sample.folds[0]), every)),
        both.kept,
        {name: jackknife(mean(values)) for name, values in kinds.items()},
        {name: jackknife(mean(values)) for name, values in scores.items()},
        or_none(lambda: ratio(mean(rare), mean(frequent), what)),
        or_none(lambda: share(mean(frequent), mean(rare))),
        or_none(lambda: ratio(mean(rare, other), mean(frequent, other), what)),
        "not measured" if interventions is None else or_none(through_scale, sample, interventions),
    )
