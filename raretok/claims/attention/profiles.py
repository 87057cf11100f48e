"""Attention by how far back the keys lie, of rare and of common queries, in blocks of documents."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from raretok.measure.attention import Rows
from raretok.stats.jackknife import Deal, block_sums

Features = Float[np.ndarray, "query *#rest"]  # of each query: by head and category, or one number
Band = Int[np.ndarray, " query"]
BAND = 16  # positions whose queries share one mean, where the effect of position is taken out


def bands(rows: Rows, matched: bool) -> Band:
    """Queries that were matched on position are compared within bands of it; others in one."""
    pos = rows.queries.pos
    return pos // BAND if matched else np.zeros_like(pos)


def deviations(mass: Features, keys: Features, band: Band) -> Features:
    """What a query gives each category beyond the mean per key of all queries of its band.

    Matched classes have equal means of what is taken out, so their difference stays as it is; a
    draw that unmatches them (blocks left out) does not bring position in.
    """
    n, ones = int(band.max()) + 1, np.ones(band.size)
    total, held = (block_sums(one, ones, band, n) for one in (mass, keys))
    return mass - keys * (total / np.where(held > 0, held, 1.0))[band]


@dataclass(frozen=True, eq=False)
class ClassSums:
    """Sums over the queries of one class in each block."""

    mass: Float[np.ndarray, "block head category"]  # beyond the mean of their band
    keys: Float[np.ndarray, "block 1 category"]
    overall: Float[np.ndarray, "head category"]  # attention per key of all queries

    def profile(
        self, folds: Float[np.ndarray, "*fold block"]
    ) -> Float[np.ndarray, "*fold head category"]:
        """Mean attention per key over some blocks, position taken out."""
        held = np.tensordot(folds, self.keys, axes=1)
        found = np.tensordot(folds, self.mass, axes=1)
        return self.overall + found / np.where(held > 0, held, np.inf)


def class_sums(
    mass: Float[np.ndarray, "query head category"],
    keys: Float[np.ndarray, "query category"],
    rows: Rows,
    deal: Deal,
    matched: bool,
) -> dict[str, ClassSums]:
    """Of rare and of common queries."""
    mass, keys = mass.astype(np.float64), keys[:, None].astype(np.float64)
    beyond = deviations(mass, keys, bands(rows, matched))
    overall = mass.sum(axis=0) / np.maximum(keys.sum(axis=0), 1.0)
    block, found = deal.of(rows.queries.document), {}
    for kind, chosen in (("rare", rows.rare), ("common", ~rows.rare)):
        sums = (block_sums(x, chosen.astype(float), block, deal.n_blocks) for x in (beyond, keys))
        found[kind] = ClassSums(*sums, overall)
    return found
