"""The same questions asked of other groups, other targets, and of the weights."""

from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from raretok.ledger.verdicts import p_text
from raretok.sections import placement
from raretok.sections.graphs import SMALLEST, effects_activity
from raretok.sections.modularity_page import against, number
from raretok.sections.module_measures import find_links, held_out_Q, mean_link
from raretok.sections.plateau import head_test
from raretok.stats.documents import NullTest, null_test
from raretok.stats.groups import Fold, influences
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import COMMON, RARE

TABLE_CONTROLS = 200  # control groups of the table over sizes
SIZES = (1.0, 2.0, 5.0)  # % of the layer


def placement_table(folds: list[Fold], model: xr.Dataset) -> pd.DataFrame:
    """What can be tested of "spatial": each property of the group against its controls.

    `model` is the part of that name of a measurement.
    """
    W_out, norm = model.W_out.values, model.attrs["architecture"]["norm"]
    reading = placement.reading_directions(model.W_in.values, model.mlp_gain.values, norm)
    tests = {
        "distance in neuron index": ("less", placement.index_distance),
        "|cosine| of what is read": ("greater", lambda g: placement.absolute_cosine(reading, g)),
        "|cosine| of what is written": ("greater", lambda g: placement.absolute_cosine(W_out, g)),
    }
    if "head_cosine" in model:  # else no head has a path to this MLP; the text says why
        heads = model.head_cosine.values
        tests["pairs fed most by one head"] = ("greater", lambda g: placement.same_head(heads, g))
    rows = {}
    for name, (side, statistic) in tests.items():
        value = np.mean([statistic(fold.group[None])[0] for fold in folds])
        null = np.mean([statistic(fold.controls) for fold in folds], axis=0)
        rows[name] = {"expected": side, **against(null_test(float(value), null, side))}
    return pd.DataFrame(rows).T


def sizes(effects: xr.Dataset, protocol: str) -> list[int]:
    """Group sizes to compare: 1, 2 and 5 % of the layer, and that of the head test of regimes.

    Groups of fewer than four neurons, which cannot hold two modules, are left out.
    """
    everything = np.ones(effects.sizes["position"], dtype=bool)
    signed, ranking = influences(effects, PROTOCOLS[protocol], everything, RARE)
    by_percent = [round(percent / 100 * effects.sizes["neuron"]) for percent in SIZES]
    singled_out = head_test(np.where(signed > 0, ranking, 0.0)).size
    return sorted({size for size in (*by_percent, singled_out) if size >= SMALLEST})


def sizes_table(
    effects: xr.Dataset, groups: dict[tuple[str, int], list[Fold]], rng: np.random.Generator
) -> pd.DataFrame:
    """Held-out Q and coordination of either part of the group, by size and class of targets."""
    rows = []
    for (part, size), folds in groups.items():
        for kind, stratum in (("rare", RARE), ("common", COMMON)):
            thin = [replace(fold, controls=fold.controls[:TABLE_CONTROLS]) for fold in folds]
            test, coordination = quick_tests(effects, thin, stratum, rng=rng)
            rows.append(
                {
                    "part": part,
                    "neurons": size,
                    "targets": kind,
                    "mean |r|": number(coordination.value),
                    "controls, mean |r|": number(coordination.null.mean()),
                    "p, more": p_text(coordination.p),
                    "held-out Q": number(test.value),
                    "controls, held-out Q": number(test.null.mean()),
                    "p, more modular": p_text(test.p),
                }
            )
    return pd.DataFrame(rows).set_index(["part", "neurons", "targets"])


def quick_tests(
    effects: xr.Dataset, folds: list[Fold], stratum: int, *, rng: np.random.Generator
) -> tuple[NullTest, NullTest]:
    """Held-out Q (one split) and mean |r| against controls, one-sided."""
    links = [
        find_links(effects_activity(effects, fold, stratum, n_splits=1, rng=rng)) for fold in folds
    ]
    tests = []
    for measure in (held_out_Q, mean_link):
        pairs = list(zip(folds, links, strict=True))
        value = np.mean([measure(link.among(fold.group[None]))[0] for fold, link in pairs])
        null = np.mean([measure(link.among(fold.controls)) for fold, link in pairs], axis=0)
        tests.append(null_test(float(value), null, "greater"))
    return tests[0], tests[1]
