"""Do rare and common targets share their top neurons (O1)?

Three references, three questions.
*Chance*: rankings that have nothing to do with each other share k / n of their first k. Sharing
more contradicts "different top neurons". This is the test of O1: its null is the claim.
*Exchanged labels*: if it did not matter which positions of a document are rare, the two classes
would share nearly all. Sharing less says that they differ *somehow*, be it in signal against noise
alone: a class whose ranking is noise shares little with any other. So it cannot decide O1.
*The ceiling*: rankings of two halves of the documents share, within a class, as much as chance
has left of that class's order. If a neuron is in the two tops with chances q and p, independently,
then by Cauchy-Schwarz the mean of q p is at most the root of the means of q^2 and of p^2: no two
classes can be expected to share more than the geometric mean of what each shares with itself.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy.stats import spearmanr

from raretok.errors import UserError
from raretok.ledger.claims import Evidence
from raretok.sections.rankings import (
    Pair,
    Rows,
    class_pairs,
    document_rows,
    exchanged,
    mean_curve,
    position_rows,
    ranked_by,
    ranks,
    renamed,
    resampled,
    within_curves,
)
from raretok.sections.regimes import class_arrays
from raretok.stats.documents import (
    Interval,
    NullTest,
    document_halves,
    interval,
    null_test,
    percentile_interval,
    ratio_mean,
)
from raretok.stats.groups import Fold
from raretok.text.protocol import Protocol
from raretok.text.rarity import COMMON

SPLITS = 3  # random halves of the documents
MATTERS = 0.3  # of the top neurons shared

Curve = Float[np.ndarray, " neuron"]  # at k = 1 .. n


@dataclass(frozen=True)
class TopNeuron:
    """A neuron that matters most to rare targets; signed means, whatever it is ranked by."""

    neuron: int
    rare: float  # mean delta_loss, nats
    common: float
    common_interval: Interval  # 95 %, over documents
    common_rank: int  # 1 is the most influential on common targets


@dataclass(frozen=True)
class Overlap:
    """How far the two classes share their top neurons, under one protocol."""

    protocol: Protocol
    k: int  # neurons in the top: the size of the plateau group
    rare: Float[np.ndarray, " neuron"]  # what neurons are ranked by, nats
    common: Float[np.ndarray, " neuron"]
    curve: Curve  # share of the first k that both have
    permuted: tuple[Curve, Curve]  # the same with labels exchanged, 95 %
    ceiling: Curve
    within: dict[str, float]  # what halves of the documents share at k, for each class
    interval: Interval  # 95 % of the share at k, over documents
    chance: NullTest
    labels: NullTest
    carried: NullTest  # part of all positive common influence that the group carries
    top: list[TopNeuron]  # the first k, by rare influence

    @property
    def value(self) -> float:
        return float(self.curve[self.k - 1])

    @property
    def spearman(self) -> float:
        return float(spearmanr(self.rare, self.common).statistic)


def find_overlap(
    effects: xr.Dataset,
    folds: list[Fold],
    protocol: Protocol,
    *,
    n_boot: int,
    n_perm: int,
    rng: np.random.Generator,
) -> Overlap:
    """Everything about the two rankings; `folds` are the plateau group's, whose size is k.

    A cross-fitted protocol ranks rare targets on one half of the documents and common ones on the
    other, so that what a document does to both does not count as shared; mean over `SPLITS`.
    """
    k = folds[0].group.size
    if k >= effects.sizes["neuron"]:
        raise UserError(f"the top {k} of {effects.sizes['neuron']} neurons are all: lower k")
    rows = position_rows(class_arrays(effects))
    halves = [document_halves(rows.document, rng=rng) for _ in range(SPLITS)]
    everything = np.ones(len(rows.weight), dtype=bool)
    own = rows.of_class(rows.weight[None])
    rare, common = (ranked_by(rows, weight, everything, protocol)[0] for weight in own)
    pairs = class_pairs(rows, own, halves, protocol)
    within = [within_curves(rows, weight, halves, protocol)[0] for weight in own]
    curve = mean_curve(pairs)[0]
    permuted = mean_curve(class_pairs(rows, exchanged(rows, n_perm, rng=rng), halves, protocol))
    at = k - 1
    return Overlap(
        protocol=protocol,
        k=k,
        rare=rare,
        common=common,
        curve=curve,
        permuted=percentile_interval(permuted),
        ceiling=np.sqrt(within[0] * within[1]),
        within={"rare": float(within[0][at]), "common": float(within[1][at])},
        interval=share_interval(rows, k, protocol, n_boot, rng=rng),
        chance=chance_test(pairs, k, n_perm, rng=rng),
        labels=null_test(float(curve[at]), permuted[:, at], "less"),
        carried=carried_test(effects, folds),
        top=top_neurons(rows, np.argsort(-rare, kind="stable")[:k], common, n_boot, rng=rng),
    )


def chance_test(pairs: list[Pair], k: int, n_draws: int, *, rng: np.random.Generator) -> NullTest:
    """Do the rankings share more of their first k than rankings of unrelated neurons would?"""
    value = float(mean_curve(pairs)[0, k - 1])
    return null_test(value, renamed(pairs, k, n_draws, rng=rng), "greater")


def share_interval(
    rows: Rows, k: int, protocol: Protocol, n_boot: int, *, rng: np.random.Generator
) -> Interval:
    """Bootstrap over documents. A resample ranks with more noise, so it shares rather less."""
    cells = document_rows(rows)
    halves = [document_halves(cells.document, rng=rng) for _ in range(SPLITS)]
    weights = resampled(cells, n_boot, rng=rng)
    return interval(mean_curve(class_pairs(cells, weights, halves, protocol))[:, k - 1])


def carried_test(effects: xr.Dataset, folds: list[Fold]) -> NullTest:
    """Net effect of the top rare neurons on common targets, over all positive effects there.

    Negative where their ablation lowers the common loss. Controls of all folds in one heap: the
    groups of two folds share neurons, so their mean varies nearly as one of them does.
    """
    values, null = [], []
    for fold in folds:
        rows = fold.measured & (effects.stratum.values == COMMON)
        delta = effects.delta_loss.values[rows].astype(np.float64)
        mean = ratio_mean(delta, effects.weight.values[rows])
        positive = mean.clip(0).sum()
        values.append(mean[fold.group].sum() / positive)
        null.append(mean[fold.controls].sum(axis=1) / positive)
    return null_test(float(np.mean(values)), np.concatenate(null), "two-sided")


def top_neurons(
    rows: Rows,
    neurons: Int[np.ndarray, " top"],
    common: Float[np.ndarray, " neuron"],
    n_boot: int,
    *,
    rng: np.random.Generator,
) -> list[TopNeuron]:
    """What the top rare neurons do to either class."""
    cells = document_rows(rows)
    boot = resampled(cells, n_boot, rng=rng)[1]
    boot = boot[boot.sum(axis=1) > 0]
    draws = boot @ cells.signed[:, neurons] / boot.sum(axis=1, keepdims=True)
    rare, mean = (
        ratio_mean(rows.signed[m][:, neurons].astype(float), rows.weight[m])
        for m in (rows.rare, ~rows.rare)
    )
    place = ranks(common[None])[0, neurons] + 1
    return [
        TopNeuron(int(n), float(rare[i]), float(mean[i]), interval(draws[:, i]), int(place[i]))
        for i, n in enumerate(neurons)
    ]


def evidence(found: Overlap, untrained: Overlap, run: str = "") -> Evidence:
    """What the page found on O1: no more shared than chance, if so much could have been seen.

    Shared neurons show only as far as the rankings can be repeated. Counted is the class that can
    be repeated less; the ceiling is higher, but a bound.
    """
    test, repeated = found.chance, min(found.within.values())
    return Evidence(
        claim="O1",
        protocol=found.protocol.name,
        value=100 * found.value,
        interval=(100 * found.interval.low, 100 * found.interval.high),
        null="rankings that have nothing to do with each other: neurons renamed at random",
        p=test.p,
        null_world_p=untrained.chance.p,
        power=test.power(MATTERS * repeated),
        smallest=100 * test.smallest / repeated if repeated > 0 else None,
        figure="fig-overlap",
        run=run,
    )
