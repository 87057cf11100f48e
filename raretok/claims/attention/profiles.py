"""Attention by how far back the keys lie, of rare and of common queries, in blocks of documents."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from raretok.measure.attention import Rows
from raretok.stats.jackknife import Deal, block_sums

Features = Float[np.ndarray, "query feature"]
Band = Int[np.ndarray, " query"]
BAND = 16  # positions whose queries share one mean, where the effect of position is taken out


def bands(rows: Rows, matched: bool) -> Band:
    """Queries that were matched on position are compared within bands of it; others in one."""
    pos = rows.queries.pos
    return pos // BAND if matched else np.zeros_like(pos)


def deviations(mass: Features, keys: Features, band: Band) -> Features:
    """What a query gives each feature beyond the mean per key of all queries of its band.

    Matched classes have equal means of what is taken out, so their difference stays as it is; a
    draw that unmatches them (blocks left out) does not bring position in.
    """
    n = int(band.max()) + 1
    total, held = np.zeros((n, mass.shape[1])), np.zeros((n, mass.shape[1]))
    np.add.at(total, band, mass)
    np.add.at(held, band, keys)
    return mass - keys * (total / np.where(held > 0, held, 1.0))[band]


@dataclass(frozen=True, eq=False)
class ClassSums:
    """Sums over the queries of one class in each block."""

    mass: Float[np.ndarray, "block feature"]  # beyond the mean of their band
    keys: Float[np.ndarray, "block feature"]
    overall: Float[np.ndarray, " feature"]  # attention per key of all queries

    def profile(
        self, folds: Float[np.ndarray, "*fold block"]
    ) -> Float[np.ndarray, "*fold feature"]:
        """Mean attention per key over some blocks, position taken out."""
        held = folds @ self.keys
        return self.overall + (folds @ self.mass) / np.where(held > 0, held, np.inf)


def class_sums(
    mass: Float[np.ndarray, "query head category"],
    keys: Float[np.ndarray, "query category"],
    rows: Rows,
    deal: Deal,
    matched: bool,
) -> dict[str, ClassSums]:
    """Of rare and of common queries; features are heads by categories."""
    wide = np.tile(keys, mass.shape[1]).astype(np.float64)
    flat = mass.reshape(len(mass), -1).astype(np.float64)
    columns = np.hstack([deviations(flat, wide, bands(rows, matched)), wide])
    overall = flat.sum(axis=0) / np.maximum(wide.sum(axis=0), 1.0)
    block, found = deal.of(rows.queries.document), {}
    for kind, chosen in (("rare", rows.rare), ("common", ~rows.rare)):
        sums = block_sums(columns, chosen.astype(float), block, deal.n_blocks)
        found[kind] = ClassSums(*np.split(sums, 2, axis=1), overall)
    return found


def correlation(
    one: Float[np.ndarray, "*#shape category"], two: Float[np.ndarray, "*#shape category"]
) -> Float[np.ndarray, "..."]:
    """Pearson's r along the last axis; 0 where one of the two does not vary."""
    one = one - one.mean(axis=-1, keepdims=True)
    two = two - two.mean(axis=-1, keepdims=True)
    size = np.sqrt((one**2).sum(axis=-1) * (two**2).sum(axis=-1))
    return np.asarray((one * two).sum(axis=-1) / np.where(size > 0, size, np.inf))
