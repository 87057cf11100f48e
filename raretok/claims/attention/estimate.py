"""The page `attention`: estimands of A1 to A4 (data/claims.yaml)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from raretok.claims.attention.profiles import bands, class_sums, correlation, deviations
from raretok.claims.compare import Compared, controls_only, difference, spread
from raretok.claims.finding import Finding
from raretok.claims.sample import DRAWS, Sample
from raretok.errors import NotTestableError
from raretok.measure.head_sums import WHOLE, HeadSums
from raretok.measure.rows import Rows
from raretok.stats.jackknife import Deal, Estimate, block_sums, jackknife
from raretok.text.protocol import Protocol
from raretok.text.rarity import RARE

ESTIMANDS = (
    ("A1", "correlation"),
    ("A1", "first token removed"),
    ("A1", "as published"),
    ("A2", "Gini"),
    ("A2", "first token removed"),
    ("A3", "largest"),
    ("A3", "against the median head"),
    ("A4", "layer"),
    ("A4", "against controls"),
)
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
        if min(one.min() for one in within) <= 0:
            raise NotTestableError("profiles of one class do not agree between halves")
        return jackknife(self.across.mean(axis=1) / np.sqrt(within[0] * within[1]))

    def raw(self) -> Estimate:
        """The correlation itself; its interval by Fisher's z."""
        return jackknife(np.arctanh(self.whole)).through(np.tanh)


def alike(rows: Rows, deal: Deal, matched: bool, first_token: bool = True) -> Alike:
    """Profiles of rare and common queries in the heads of the last two layers, compared."""
    keep = rows.keys.sum(axis=0) > 0
    if not first_token:
        keep[FIRST_TOKEN] = False
    kept = deal.kept[:, None].astype(float)
    folds = [kept * deal.halves, kept * ~deal.halves]
    pieces = []
    for mass in rows.mass[-LAST:, ..., keep]:
        sums = class_sums(mass, rows.keys[:, keep], rows, deal, matched)
        shape = (mass.shape[1], int(keep.sum()))

        def profile(kind, over, sums=sums, shape=shape):
            found = sums[kind].profile(over)
            return found.reshape(*found.shape[:-1], *shape)

        one, two = ({k: profile(k, part) for k in sums} for part in folds)
        whole = [profile(kind, kept) for kind in sums]
        pieces.append(
            [
                correlation(one["rare"], two["common"]),
                correlation(one["rare"], two["rare"]),
                correlation(one["common"], two["common"]),
                correlation(*whole),
            ]
        )
    means = [np.mean([piece[i] for piece in pieces], axis=0).mean(axis=-1) for i in range(4)]
    return Alike(means[0], {"rare": means[1], "common": means[2]}, means[3][:, 0])


def gini_difference(
    gini: Float[np.ndarray, "layer query head"], rows: Rows, deal: Deal, matched: bool
) -> Estimate:
    """Mean Gini of rare less that of common queries, over the heads of the last two layers."""
    mean = gini[-LAST:].mean(axis=(0, 2), dtype=np.float64)[:, None]
    apart = deviations(mean, np.ones_like(mean), bands(rows, matched))
    block, kept = deal.of(rows.queries.document), deal.kept.astype(float)
    means = []
    for chosen in (rows.rare, ~rows.rare):
        ones = np.ones(int(chosen.sum()))
        sums = block_sums(apart[chosen], ones, block[chosen], deal.n_blocks)
        count = np.bincount(block[chosen], minlength=deal.n_blocks)
        means.append((kept @ sums)[:, 0] / (kept @ count))
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
    total = np.bincount(block, sums.count[rare], n)
    heads = [i for i, (layer, h) in enumerate(sums.targets) if layer in layers and h != WHOLE]
    change = np.stack([block_sums(sums.change[i][rare], ones, block, n) for i in heads]) / unit
    before = block_sums(sums.before[rare], ones, block, n)
    whole = [sums.layers.index(layer) for layer in layers]
    after = np.mean([block_sums(sums.after[i][rare], ones, block, n) for i in whole], axis=0)
    groups, (chosen, measured) = sample.with_controls(DRAWS), sample.folds
    if not ((chosen @ total > 0).all() and (measured @ total > 0).all()):
        raise NotTestableError("heads were ablated in too few documents")

    def mean_of(folds: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Mean over blocks of a fold, then over the neurons of its groups."""
        means = (folds @ of) / (folds @ total)[..., None]
        index = groups.reshape(*groups.shape[:2], -1)
        return np.take_along_axis(means, index, axis=-1).reshape(groups.shape).mean(axis=-1)

    by_head = [
        np.stack([mean_of(folds, one) for one in change], axis=-1) for folds in (chosen, measured)
    ]
    size = mean_of(measured, before)
    left = mean_of(measured, after)
    layer = 100 * np.where(size > 0, left / np.where(size > 0, size, 1.0) - 1, 0.0)
    return Moved(*by_head, layer)


def attention_findings(rows: Rows, deal: Deal, protocol: Protocol) -> Iterator[Finding]:
    """A1 and A2 under one reading; `deal` is of the queries' documents."""
    reading, matched = protocol.name, protocol.matched
    queries = [rows.queries.document[chosen] for chosen in (rows.rare, ~rows.rare)]
    gates = {
        "documents": float(min(np.unique(one).size for one in queries)),
        "positions": float(min(one.size for one in queries)),
    }
    both = {name: alike(rows, deal, matched, name == "all") for name in ("all", "rest")}
    agreed = {name: gates | {"agreement": one.agreement} for name, one in both.items()}
    table: list[tuple[str, str, dict, Callable[[], Estimate]]] = [
        ("A1", "correlation", agreed["all"], both["all"].over_ceiling),
        ("A1", "first token removed", agreed["rest"], both["rest"].over_ceiling),
        ("A1", "as published", gates, both["all"].raw),
        ("A2", "Gini", gates, lambda: gini_difference(rows.gini, rows, deal, matched)),
        (
            "A2",
            "first token removed",
            gates,
            lambda: gini_difference(rows.gini_rest, rows, deal, matched),
        ),
    ]
    for claim, name, of, compute in table:
        try:
            yield Finding(claim, name, reading, compute(), of)
        except NotTestableError as error:
            yield Finding(claim, name, reading, None, of, reason=str(error))


def head_findings(sample: Sample, sums: HeadSums, layers: list[int]) -> Iterator[Finding]:
    """A3 and A4 under one reading."""
    reading, rare = sample.protocol.name, sums.stratum == RARE
    gates = sample.gates | {
        "documents": float(np.unique(sums.document[rare]).size),
        "positions": float(sums.count[rare].sum()),
    }
    names = [key for key in ESTIMANDS if key[0] in ("A3", "A4")]
    try:
        found = moved(sample, sums, layers)
        largest, ratio = found.largest(), found.over_median()
        estimates = [
            (of_group(largest), spread(largest)),
            (of_group(ratio).through(np.exp), spread(ratio, np.exp)),
            (of_group(found.layer), spread(found.layer)),
            (difference(found.layer), controls_only(found.layer)),
        ]
        for name, (estimate, controls) in zip(names, estimates, strict=True):
            yield Finding(*name, reading, estimate, gates, controls)
    except NotTestableError as error:
        for name in names:
            yield Finding(*name, reading, None, gates, reason=str(error))


def of_group(values: Compared) -> Estimate:
    """The group alone: which neurons are in it varies with the documents left out."""
    return jackknife(values[:, :, 0].mean(axis=1))
