r"""The page `rivals`: what else could the neurons that matter for rare targets be?

Written down before any of it was computed. Four rivals, one score a neuron each, of which the first
three read weights and how far the activation moves ($s$: its standard deviation over the text):

- token frequency: $|\mathrm{slope}|\,s$, how far a neuron moves the logits along log frequency;
- entropy: $\lVert W_\mathrm{out} \rVert\,s \times$ the share of $\lVert W_\mathrm{out} \rVert^2$
  that $W_U$ hardly reads, which acts through the final norm's scale (both: Stolfo et al. 2024);
- activation scale: $\lVert W_\mathrm{out} \rVert\,s$;
- difficulty: influence on targets that are not rare, weighted to be as surprising as the rare ones.

Scores and influence on rare targets are normal scores of their ranks over the layer. What a
regression on all four explains is split by Shapley values over the subsets (Lindeman, Merenda and
Gold, 1980). Difficulty is measured on one half of the documents, influence on the other; what
influence on the one half explains of that on the other is the ceiling. Three of the scores have no
sign while influence has one, so the same is computed for its size.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy.special import ndtri

from raretok.claims.finding import or_none
from raretok.claims.rivals.shapley import correlations, r_squared, shapley
from raretok.claims.rivals.surprisal import Matched, PerFold, matched
from raretok.claims.sample import KINDS, Sample, ranked
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate, block_sums, jackknife

RIVALS = ("token frequency", "entropy", "activation scale", "difficulty")


def normal_scores(
    values: Float[np.ndarray, "*fold neuron"],
) -> Float[np.ndarray, "*fold neuron"]:
    """Van der Waerden's scores of the ranks over the neurons."""
    return ndtri((ranked(values) + 0.5) / values.shape[-1])


def weight_scores(sample: Sample, unembedding: xr.Dataset) -> Float[np.ndarray, "rival neuron"]:
    """The three rivals that read no effect, as measured: logits or lengths of the residual."""
    mean, square = (
        np.average(power, axis=0, weights=sample.weight) for power in (sample.post, sample.post**2)
    )
    sd = np.sqrt(np.maximum(square - mean**2, 0.0))
    written = np.linalg.norm(sample.W_out, axis=1) * sd
    along = np.abs(unembedding.frequency.values) * sd
    return np.stack([along, written * unembedding.null_share.values, written])


@dataclass(frozen=True)
class Explained:
    """Shares of the variance of the neurons' influence on rare targets."""

    # By rival: its "part" (Shapley value), "alone", "last" (what is lost without it) and
    # "correlation", which is none of them but has a sign.
    by: dict[str, dict[str, Estimate]]
    all: Estimate
    ceiling: Estimate
    unexplained: Estimate  # up to the ceiling
    of_ceiling: Estimate


def explained(
    weights: Float[np.ndarray, "rival neuron"], frequent: PerFold, rare: tuple[PerFold, PerFold]
) -> Explained:
    """How much of influence on rare targets each rival explains.

    `frequent`: influence on others as surprising, on the documents of the first of `rare`; the
    second is explained.
    """
    outcome, difficulty = normal_scores(rare[1]), normal_scores(frequent)
    fixed = np.broadcast_to(normal_scores(weights), (*outcome.shape[:-1], *weights.shape))
    corr = correlations(np.concatenate([fixed, np.stack([difficulty, outcome], -2)], axis=-2))
    halves = correlations(np.stack([normal_scores(rare[0]), outcome], axis=-2))
    ceiling = (halves[..., 0, 1] ** 2).mean(axis=1)
    names, each = range(len(RIVALS)), corr[..., :-1, -1]
    total = r_squared(corr, tuple(names))
    without = [r_squared(corr, tuple(k for k in names if k != i)) for i in names]
    found = {
        "part": shapley(corr),
        "alone": each**2,
        "last": total[..., None] - np.stack(without, axis=-1),
        "correlation": each,
    }
    total = total.mean(axis=1)
    return Explained(
        {
            column: {
                name: jackknife(one)
                for name, one in zip(RIVALS, values.mean(axis=1).T, strict=True)
            }
            for column, values in found.items()
        },
        jackknife(total),
        jackknife(ceiling),
        jackknife(ceiling - total),
        jackknife(np.log(total / ceiling)).through(np.exp),
    )


def of_group(
    values: PerFold, groups: Int[np.ndarray, "left_out split member"]
) -> Float[np.ndarray, " left_out"]:
    """Mean over the members and the splits."""
    return np.take_along_axis(values, groups, axis=-1).mean(axis=(1, 2))


def share(part: Float[np.ndarray, " left_out"], whole: Float[np.ndarray, " left_out"]) -> Estimate:
    """One influence as a share of another. Raises `NotTestableError` where that is not positive."""
    if whole.min() <= 0:
        raise NotTestableError("the group's influence is not positive: it has no shares")
    return jackknife(part / whole)


def ratio(part: Float[np.ndarray, " left_out"], whole: Float[np.ndarray, " left_out"]) -> Estimate:
    """The same by its logarithm. Raises `NotTestableError` where either is not positive."""
    if min(part.min(), whole.min()) <= 0:
        raise NotTestableError("the group's influence is not positive: it has no ratio")
    return jackknife(np.log(part / whole)).through(np.exp)


def direct(sample: Sample, interventions: xr.Dataset) -> PerFold:
    """Influence on rare targets with the final norm's scale held, on the other documents; nats."""
    at = list(interventions.interventions).index("direct")
    cells = interventions.cell_stratum.values == KINDS["rare"]
    block = sample.deal.of(interventions.cell_document.values[cells])
    ones, n = np.ones(block.size), sample.deal.n_blocks
    sums = block_sums(interventions.delta_loss.values[at][cells], ones, block, n)
    weight = block_sums(interventions.weight.values[cells][:, None], ones, block, n)
    folds = sample.folds[1]
    return (folds @ sums) / (folds @ weight)


@dataclass(frozen=True)
class Group:
    """The most influential neurons; None where a number cannot be had."""

    influence: dict[str, Estimate]  # nats, by kind of target
    scores: dict[str, Estimate]  # mean normal score on each rival, in sd over the layer
    ratio: Estimate | None  # influence on rare targets over that on others as surprising
    left: Estimate | None  # one over that, as a share, for which either sign will do
    reverse: Estimate | None  # the ratio of the group that is chosen on the others instead
    through_scale: Estimate | None  # share of influence that goes through the final norm's scale


def group_of(
    sample: Sample,
    weights: Float[np.ndarray, "rival neuron"],
    both: Matched,
    interventions: xr.Dataset | None,
) -> Group:
    """What the group is; all of it, difficulty too, on documents that it was not chosen on."""
    (_, rare), (chosen_on, frequent) = both.rare, both.frequent
    other = np.argsort(-chosen_on, axis=-1, kind="stable")[..., : sample.size]
    kinds = {"rare": rare, "as surprising": frequent}
    kinds["common"] = sample.mean("common", sample.folds[1])
    scores = [*(np.broadcast_to(one, rare.shape) for one in normal_scores(weights))]
    scores = dict(zip(RIVALS, [*scores, normal_scores(frequent)], strict=True))
    mean = partial(of_group, groups=sample.groups)

    def through_scale() -> Estimate:
        total = mean(sample.mean("rare", sample.folds[1]))
        return share(total - mean(direct(sample, interventions)), total)

    return Group(
        {name: jackknife(mean(values)) for name, values in kinds.items()},
        {name: jackknife(mean(values)) for name, values in scores.items()},
        or_none(lambda: ratio(mean(rare), mean(frequent))),
        or_none(lambda: share(mean(frequent), mean(rare))),
        or_none(lambda: ratio(of_group(rare, other), of_group(frequent, other))),
        None if interventions is None else or_none(through_scale),
    )


@dataclass(frozen=True, eq=False)
class Compared:
    """Everything the page shows of one model."""

    weights: Float[np.ndarray, "rival neuron"]
    often: Float[np.ndarray, " neuron"]  # share of the splits in which a neuron is in the group
    matched: Matched
    explained: Explained
    size: Explained  # the same of the size of influence, whichever way it goes
    group: Group


def compared(
    sample: Sample,
    loss: Float[np.ndarray, " position"],
    unembedding: xr.Dataset,
    interventions: xr.Dataset | None = None,
) -> Compared:
    """The rivals of one model's neurons. Raises `NotTestableError` where they cannot be had."""
    weights, both = weight_scores(sample, unembedding), matched(sample, loss)
    rare = tuple(sample.mean("rare", folds) for folds in sample.folds)
    groups = sample.groups[0]
    return Compared(
        weights,
        np.bincount(groups.ravel(), minlength=weights.shape[1]) / len(groups),
        both,
        explained(weights, both.frequent[0], rare),
        explained(weights, np.abs(both.frequent[0]), tuple(map(np.abs, rare))),
        group_of(sample, weights, both, interventions),
    )
