r"""Is a rare target a class of its own, or the end of a gradient in frequency? (page `thresholds`)

A straight line $\Delta\ell_n(p) = a_n + b_n \log_{10} u(p)$ is fitted by weighted least squares to
the effects of each neuron $n$ at positions $p$ whose target is not rare ($u$: relative frequency of
the target's type) and continued to the rare ones.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from raretok.claims.compare import ratio
from raretok.claims.finding import or_none
from raretok.claims.regimes.estimate import head_of, lift_of
from raretok.claims.sample import KINDS, LeftOut, PerNeuron, Sample, by_rank, fold_means
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate, block_sums, jackknife
from raretok.text.rarity import elbow, unigram

BINS = (4, 6)  # of frequency: rare targets, all others
Frequency = Float[np.ndarray, " position"]  # log10 of that of the target
Rows = Bool[np.ndarray, " position"]


def log_frequency(effects: xr.Dataset, model: xr.Dataset) -> Frequency:
    """log10 of the relative frequency of each position's target, add-one smoothed."""
    return np.log10(unigram(model.counts.values, model.counted.size)[effects.target.values])


def log_elbow(model: xr.Dataset) -> float:
    """log10 of the relative frequency at the elbow. Raises `NotTestableError` where none is."""
    u = unigram(model.counts.values, model.counted.size)
    at = elbow(np.sort(u[model.counted.values])[::-1])
    if at == 0:
        raise NotTestableError("the token frequencies of this text have no elbow to look below")
    return float(np.log10(at))


def read(study: Any) -> tuple[Sample, Frequency]:
    """The sample of a study at its own percentage of rare types, and log frequencies."""
    sample = study.at(study.parameters.rare_percentile)
    return sample, log_frequency(study.part("effects: stratified"), study.part("model"))


def means(
    sample: Sample, values: Float[np.ndarray, "position column"], rows: Rows, measured: bool = True
) -> PerNeuron:
    """Weighted means at some positions over the blocks measured on (or chosen on)."""
    weight, block, n = sample.weight[rows], sample.block[rows], sample.deal.n_blocks
    sums, total = block_sums(values[rows], weight, block, n), np.bincount(block, weight, n)
    missing = "target of the frequencies asked for"
    return fold_means(sample.folds[measured], sums, total[:, None], missing)


def line(
    sample: Sample, x: Frequency, rows: Rows, measured: bool = True
) -> tuple[PerNeuron, PerNeuron]:
    """Level at x = 0 (nats) and slope (nats a decade) of each neuron's effect at some positions."""
    y = sample.delta_loss
    mean_x, mean_xx = np.split(means(sample, np.column_stack([x, x**2]), rows, measured), 2, axis=2)
    mean_y, spread = means(sample, y, rows, measured), mean_xx - mean_x**2
    if (spread < 1e-6).any():
        raise NotTestableError("a part of the documents has targets of one frequency only")
    slope = (means(sample, x[:, None] * y, rows, measured) - mean_x * mean_y) / spread
    return mean_y - slope * mean_x, slope


def continued(sample: Sample, x: Frequency, measured: bool = True) -> PerNeuron:
    """Effect on rare targets that the line through the others predicts for each neuron, nats."""
    rare = sample.stratum == KINDS["rare"]
    level, slope = line(sample, x, ~rare, measured)
    return level + slope * means(sample, x[:, None], rare, measured)


def group_at(sample: Sample, rows: Rows) -> LeftOut:
    """Mean influence of the group at some positions of documents it was not chosen on, nats."""
    return sample.of_group(means(sample, sample.delta_loss, rows))


def step(sample: Sample, x: Frequency) -> Estimate:
    """Influence of the group on rare targets over what the line through the others predicts."""
    observed, predicted = group_at(sample, sample.stratum == KINDS["rare"]), continued(sample, x)
    return ratio(observed, sample.of_group(predicted), "influence over what the line predicts")


def unbiased_step(sample: Sample, x: Frequency) -> Estimate:
    """The same of the neurons that the line puts highest: chosen without rare effects.

    A group chosen for its influence on rare targets stands above any line, even where neurons
    scatter about their lines by chance alone; this one does not.
    """
    order = np.argsort(-continued(sample, x, measured=False), axis=-1, kind="stable")
    return step(replace(sample, given_groups=order[..., : sample.size]), x)


def below_elbow(sample: Sample, x: Frequency, at: float) -> Estimate:
    """Influence of the group on rare targets at or below log10 of the elbow over the other rare."""
    rare = sample.stratum == KINDS["rare"]
    low, high = (group_at(sample, rows) for rows in (rare & (x <= at), rare & (x > at)))
    return ratio(low, high, "influence below the elbow over that above")


@dataclass(frozen=True)
class Gradient:
    """Mean influence of the group by frequency of the target, nats, and the line beside it."""

    x: list[float]  # mean log10 frequency of each bin, rarest first
    bins: list[Estimate | None]  # None: not in every part of the documents
    line: list[Estimate]
    threshold: float  # log10 frequency of the most frequent rare target
    across: Estimate | None  # the bin just below the threshold less the one just above


def gradient(sample: Sample, x: Frequency) -> Gradient:
    """The group's influence in bins of frequency and along the line fitted to what is not rare."""
    rare = sample.stratum == KINDS["rare"]
    below, above = bins_of(sample, x)
    level, slope = (sample.of_group(one) for one in line(sample, x, ~rare))
    at = mean_frequency(sample, x, below + above)
    return Gradient(
        at,
        [or_none(lambda rows=rows: jackknife(group_at(sample, rows))) for rows in below + above],
        [jackknife(level + slope * one) for one in at],
        float(x[rare].max()),
        or_none(lambda: jackknife(group_at(sample, below[-1]) - group_at(sample, above[0]))),
    )


def bins_of(sample: Sample, x: Frequency) -> tuple[list[Rows], list[Rows]]:
    """Positions with rare targets, and all others, in bins of frequency."""
    rare = sample.stratum == KINDS["rare"]
    below, above = (in_bins(x, rows, n) for rows, n in zip((rare, ~rare), BINS, strict=True))
    return below, above


def mean_frequency(sample: Sample, x: Frequency, bins: list[Rows]) -> list[float]:
    """Mean log10 frequency of the targets of each bin."""
    return [float(np.average(x[rows], weights=sample.weight[rows])) for rows in bins]


def in_bins(x: Frequency, rows: Rows, n: int) -> list[Rows]:
    """Some positions in up to n bins of nearly as many each; a type is never split."""
    highs = np.unique(np.quantile(x[rows], np.arange(1, n + 1) / n, method="lower"))
    return [rows & (x > low) & (x <= high) for low, high in pairwise([-np.inf, *highs])]


@dataclass(frozen=True, eq=False)
class Slopes:
    """Each neuron's change of effect over a decade of frequency, and where the group lies."""

    slope: Float[np.ndarray, " neuron"]  # nats
    influence: Float[np.ndarray, " neuron"]  # on rare targets, nats
    member: Bool[np.ndarray, " neuron"]  # chosen on most halves of the documents
    same_sign: float  # share of neurons whose slope has the sign of the group's mean
    distance: Estimate  # of the group's mean slope from the mean of all, in their sd
    lift: Estimate | None  # of the 1 % that fall most with frequency, over the smooth curve


def slopes(sample: Sample, x: Frequency) -> Slopes:
    """Of the line through all positions; chosen and measured on different documents."""
    chosen, held = (line(sample, x, np.ones(x.size, bool), on)[1] for on in (False, True))
    falls = -by_rank(-chosen, held).mean(axis=1)
    apart = (held - held.mean(axis=-1, keepdims=True)) / held.std(axis=-1, keepdims=True)
    slope = held[0].mean(axis=0)
    return Slopes(
        slope,
        sample.influence("rare", measured=True)[0].mean(axis=0),
        sample.chosen > 0.5,
        float((np.sign(slope) == np.sign(sample.of_group(held)[0])).mean()),
        jackknife(sample.of_group(apart)),
        or_none(lambda: lift_of(falls, head_of(sample))),
    )
