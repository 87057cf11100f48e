"""Rarity taken away: rare and common labels exchanged within documents, groups chosen again.

Matched controls have the traits of the plateau neurons, not their influence. A group that is chosen
as the plateau group is, under labels that mean nothing, has both: what it shows, the plateau group
shows because its neurons matter, not because they matter to rare targets.
"""

import numpy as np
import xarray as xr

from raretok.ledger.claims import Evidence, with_null_world
from raretok.stats.documents import permute_within
from raretok.text.rarity import COMMON, RARE

CONTROLS = 400  # control groups for each
DRAWS = 11  # ways to exchange the labels; the median p-value of a test stands for them
DEAR_DRAWS, DEAR_CONTROLS = 3, 49  # where a statistic is dear


def exchanged(effects: xr.Dataset, *, rng: np.random.Generator) -> xr.Dataset:
    """The run with labels, and the weights that go with them, permuted within documents."""
    either = np.flatnonzero(np.isin(effects.stratum.values, (RARE, COMMON)))
    order = either[permute_within(effects.document.values[either], rng=rng)]
    moved = {}
    for name in ("stratum", "weight"):
        values = effects[name].values.copy()
        values[either] = values[order]
        moved[name] = ("position", values)
    return effects.assign_coords(moved)


def label_controlled(evidence: list[Evidence], p: dict[str, list[float]]) -> list[Evidence]:
    """Evidence whose null world is the untrained model or exchanged labels, whichever p is lower.

    `p` holds the p-values under exchanged labels, for the claims that were tested so.
    """
    return [
        with_null_world(one, float(np.median(p[one.claim])), "exchanged labels")
        if one.claim in p and one.p is not None
        else one
        for one in evidence
    ]
