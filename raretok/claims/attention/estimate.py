"""The page `attention`: estimands of A1 to A4 (data/claims.yaml)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from raretok.claims.attention.profiles import (
    bands,
    class_sums,
    deviations,
)
from raretok.claims.compare import Compared, Spread, of_group, over_controls, together
from raretok.claims.finding import Finding, found, untested
from raretok.claims.sample import DRAWS, Sample, correlation, fold_means, over_ceiling
from raretok.errors import NotTestableError
from raretok.measure.attention import WHOLE, HeadSums, Rows
from raretok.stats.jackknife import Deal, Estimate, block_sums, jackknife
from raretok.text.protocol import PROTOCOLS, Protocol
from raretok.text.rarity import RARE

ATTENTION = (
    ("A1", "correlation"),
    ("A1", "first token removed"),
    ("A1", "as published"),
    ("A2", "Gini"),
    ("A2", "first token removed"),
)
HEADS = (
    ("A3", "largest"),
    ("A3", "against the median head"),
    ("A4", "layer"),
    ("A4", "against controls"),
)
ESTIMANDS = ATTENTION + HEADS
LAST = 2  # layers the claims are about
FIRST_TOKEN = 0  # category of attention rows


@dataclass(frozen=True, eq=False)
class Alike:
    """Correlations of attention profiles, means over the heads of the last layers."""

    across: Float[np.ndarray, "left_out split"]  # rare with common, of different halves
    within: dict[str, Float[np.ndarray, "left_out split"]]  # a class with itself
    whole: Float[np.ndarray, " left_out"]  # rare with common, all documents

    @property
    def agreement(self) -> float:
        """The lower of the two correlations of a class with itself."""
        return float(min(one[0].mean() for one in self.within.values()))

    def over_ceiling(self) -> Estimate:
        """The correlation over what halves of the documents leave of either profile."""
        within = [one.mean(axis=1) for one in self.within.values()]
        what = "profiles of one class do not agree"
        return jackknife(over_ceiling(self.across.mean(axis=1), *within, what))

    def raw(self) -> Estimate:
        """The correlation itself; its interval by Fisher's z."""
        return jackknife(np.arctanh(self.whole)).through(np.tanh)


def alike(rows: Rows, deal: Deal, matched: bool, first_token: bool = True) -> Alike:
    """Profiles of rare and common queries in the heads of the last two layers, compared."""
    keep = rows.keys.sum(axis=0) > 0
    keep[FIRST_TOKEN] &= first_token
    kept = deal.kept[:, None].astype(float)
    halves = kept * deal.halves, kept * ~deal.halves
    pieces = []
    for mass in rows.mass[-LAST:, ..., keep]:
        sums = class_sums(mass, rows.keys[:, keep], rows, deal, matched)

        rare, common = (
            [sums[kind].profile(over) for over in (*halves, kept)] for kind in ("rare", "common")
        )
        pairs = (rare[0], common[1]), rare[:2], common[:2], (rare[2], common[2])
        pieces.append([correlation(*pair) for pair in pairs])
    across, *within, whole = (
        np.mean(piece, axis=0).mean(axis=-1) for piece in zip(*pieces, strict=True)
    )
    return Alike(across, dict(zip(("rare", "common"), within, strict=True)), whole[:, 0])


def gini_difference(
    gini: Float[np.ndarray, "layer query head"], rows: Rows, deal: Deal, matched: bool
) -> Estimate:
    """Mean Gini of rare less that of common queries, over the heads of the last two layers."""
    mean = gini[-LAST:].mean(axis=(0, 2), dtype=np.float64)[:, None]
    ones = np.ones_like(mean)
    columns = np.hstack([deviations(mean, ones, bands(rows, matched)), ones])
    block, means = deal.of(rows.queries.document), []
    for chosen in (rows.rare, ~rows.rare):
        sums = deal.kept @ block_sums(columns, chosen.astype(float), block, deal.n_blocks)
        means.append(sums[:, 0] / sums[:, 1])
    return jackknife(means[0] - means[1])


@dataclass(frozen=True, eq=False)
class Moved:
    """What ablated heads and layers do to the neurons of a sample, in every fold."""

    chosen: Float[np.ndarray, "left_out split group head"]  # mean |change|, chosen blocks
    measured: Float[np.ndarray, "left_out split group head"]
    layer: Compared  # % of the activation, mean over the layers

    def largest(self) -> Compared:
        """Change by the head that changes most on the documents the group was chosen on."""
        at = self.chosen.argmax(axis=-1)[..., None]
        return np.take_along_axis(self.measured, at, axis=-1)[..., 0]

    def over_median(self) -> Compared:
        """ln of that change over the change by the median head."""
        median = np.median(self.measured, axis=-1)
        if not (median > 0).all():
            raise NotTestableError("the median head changes nothing")
        return np.log(self.largest() / median)


def check_reach(layers: list[int]) -> None:
    """Raise `NotTestableError` unless heads of some layer reach the last MLP."""
    if not layers:
        raise NotTestableError("no head of the last two layers reaches the last MLP")


def moved(sample: Sample, sums: HeadSums, layers: list[int]) -> Moved:
    """Effects of the heads, and of whole layers, at rare positions.

    In units of a neuron's standard deviation under every reading: sums over a group grow with it.
    """
    check_reach(layers)
    sd = sample.post.std(axis=0, dtype=np.float64)
    unit = np.where(sd > 0, sd, 1.0)
    rare = np.flatnonzero(sums.stratum == RARE)
    block, n, ones = sample.deal.of(sums.document[rare]), sample.deal.n_blocks, np.ones(rare.size)
    total = np.bincount(block, sums.count[rare], n)[:, None]
    groups, (chosen, measured) = sample.with_controls(DRAWS), sample.folds

    def mean_of(folds: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Mean over blocks of a fold, then over the neurons of its groups."""
        summed = block_sums(of[rare], ones, block, n)
        means = fold_means(folds, summed, total, "rare position at which heads were ablated")
        return np.take_along_axis(means[:, :, None], groups, axis=-1).mean(axis=-1)

    heads = [i for i, (layer, h) in enumerate(sums.targets) if layer in layers and h != WHOLE]
    by_head = [
        np.stack([mean_of(folds, sums.change[i] / unit) for i in heads], axis=-1)
        for folds in (chosen, measured)
    ]
    ablated = [sums.after[sums.layers.index(layer)] for layer in layers]
    after = np.mean(ablated, axis=0, dtype=np.float64)
    size, left = (mean_of(measured, of) for of in (sums.before, after))
    layer = 100 * np.where(size > 0, left / np.where(size > 0, size, 1.0) - 1, 0.0)
    return Moved(*by_head, layer)


def attention_findings(rows: Rows, deal: Deal, protocol: Protocol) -> Iterator[Finding]:
    """A1 and A2 under one reading; `deal` is of the queries' documents."""
    queries = [rows.queries.document[chosen] for chosen in (rows.rare, ~rows.rare)]
    gates = {
        "documents": float(min(np.unique(one).size for one in queries)),
        "positions": float(min(one.size for one in queries)),
    }
    every, rest = (alike(rows, deal, protocol.matched, first) for first in (True, False))
    computed = (
        ({"agreement": every.agreement}, every.over_ceiling),
        ({"agreement": rest.agreement}, rest.over_ceiling),
        ({}, every.raw),
        ({}, gini_difference, rows.gini, rows, deal, protocol.matched),
        ({}, gini_difference, rows.gini_rest, rows, deal, protocol.matched),
    )
    for key, (own, *of) in zip(ATTENTION, computed, strict=True):
        yield found(key, protocol.name, gates | own, *of)


def head_findings(sample: Sample, sums: HeadSums, layers: list[int]) -> Iterator[Finding]:
    """A3 and A4 under one reading."""
    rare = sums.stratum == RARE
    gates = sample.gates | {
        "documents": float(np.unique(sums.document[rare]).size),
        "positions": float(sums.count[rare].sum()),
    }

    def all_four() -> list[tuple[Estimate, Spread]]:
        of = moved(sample, sums, layers)
        heads = [of_group(of.largest()), of_group(of.over_median(), np.exp)]
        return [*heads, of_group(of.layer), over_controls(of.layer)]

    yield from together(HEADS, sample, all_four, gates)


def findings(study: Any, reading: str) -> Iterator[Finding]:
    """A1 and A2 from attention rows, A3 and A4 from ablated heads; either may be missing."""

    def of_rows() -> Iterator[Finding]:
        rows, protocol = study.rows(reading), PROTOCOLS[reading]
        return attention_findings(rows, study.queries(reading), protocol)

    def of_heads() -> Iterator[Finding]:
        sample = study.sample(reading, heads=True)
        return head_findings(sample, study.heads(reading), study.layers)

    for keys, compute in ((ATTENTION, of_rows), (HEADS, of_heads)):
        try:
            yield from compute()
        except NotTestableError as error:
            yield from untested(keys, str(error), reading)
