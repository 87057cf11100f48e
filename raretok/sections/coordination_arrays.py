"""Plotted arrays of the page `coordination`, as arguments of the functions that draw them."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from raretok.sections import information
from raretok.sections.coordination import Coordination, Untestable
from raretok.sections.dimension import (
    Spectrum,
    correlations,
    independent,
    of_groups,
    participation_ratio,
)
from raretok.sections.joint_activity import ClassCoordination
from raretok.sections.matching import match_distance
from raretok.stats.groups import TRAITS

Found = Coordination | Untestable
SAMPLE_SIZES = (50, 100, 200, 400, 800, 2000)
LAYER_SIZES = (30, 50, 100)  # group sizes of the released code's sweeps
DRAWS = 10  # of unrelated neurons, for each point of a curve


def balance_figure(found: Found) -> dict[str, Any] | str:
    """Traits of the group and its controls, as arguments of `trait_dots`."""
    if isinstance(found, Untestable):
        return found.reason
    controls = np.mean([found.traits[fold.controls].mean(axis=1) for fold in found.folds], axis=0)
    low, high = np.quantile(controls, [0.025, 0.975], axis=0)
    means = {"plateau group": found.balance["group"], "controls": found.balance["controls"]}
    return {"traits": TRAITS, "means": means, "spread": (low, high)}


def distance_figure(found: Found) -> dict[str, Any] | str:
    """Distance of each member from its control neurons, as arguments of `member_distances`."""
    if isinstance(found, Untestable):
        return found.reason
    return {"distance": [match_distance(found.traits, fold) for fold in found.folds]}


def dimension_figure(found: Found, kind: str) -> dict[str, Any] | str:
    """Null and observed dimension per neuron, as arguments of `figures.null_histogram`."""
    if isinstance(found, Untestable):
        return found.reason
    one, n = class_of(found, kind), found.group_size
    code = one.dimension is one.count
    observed = {"plateau group": one.dimension.value / n}
    if not code:
        observed["the group, activations shuffled"] = float(one.shuffled.mean()) / n
    xlabel = "95 % count / neurons" if code else "participation ratio / neurons"
    return {
        "null": one.dimension.null / n,
        "observed": observed,
        "xlabel": xlabel,
        "null_label": "control groups",
    }


def class_of(found: Coordination, kind: str) -> ClassCoordination:
    return found.rare if kind == "rare" else found.common


def information_figure(found: Found, kind: str) -> dict[str, Any] | str:
    """Null and observed information, as arguments of `figures.null_histogram`."""
    if isinstance(found, Untestable):
        return found.reason
    one = class_of(found, kind)
    return {
        "null": one.shared.null,
        "observed": {"plateau group": one.shared.value},
        "xlabel": "mutual information (nats a pair)",
        "null_label": "control groups",
    }


def coactivation_figure(found: Found, effects: xr.Dataset) -> list[dict[str, Any] | str]:
    """The group's correlations on rare targets beside those of its median control group."""
    if isinstance(found, Untestable):
        return [found.reason, found.reason]
    fold, kept = found.folds[0], found.rows[0]["rare"]
    matrix = correlations(effects.post.values[kept])
    ratios = of_groups(matrix, fold.controls, participation_ratio)
    typical = fold.controls[np.argsort(ratios)[ratios.size // 2]]
    return [
        ordered_matrix(matrix, fold.group, "plateau group"),
        ordered_matrix(matrix, typical, "the control group in the middle"),
    ]


def ordered_matrix(
    matrix: Float[np.ndarray, "neuron neuron"], group: Int[np.ndarray, " member"], title: str
) -> dict[str, Any]:
    """Correlations of a group, its neurons ordered by average-linkage clustering."""
    inside = matrix[np.ix_(group, group)]
    apart = squareform(1 - inside, checks=False).clip(0)
    order = leaves_list(linkage(apart, "average", optimal_ordering=True))
    names = [str(neuron) for neuron in group[order]]
    return {"matrix": inside[np.ix_(order, order)], "names": names, "title": title}


def cumulative_figure(found: Found, effects: xr.Dataset, kind: str) -> dict[str, Any] | str:
    """Distribution of pairwise correlations, as arguments of `cumulative`; means over halves."""
    if isinstance(found, Untestable):
        return found.reason
    at = np.linspace(-1, 1, 101)
    first, second = np.triu_indices(found.group_size, k=1)
    shares = []
    for fold, kept in zip(found.folds, found.rows, strict=True):
        matrix = correlations(effects.post.values[kept[kind]])
        groups = np.concatenate([fold.group[None], fold.controls])
        pairs = np.sort(matrix[groups[:, first], groups[:, second]], axis=1)
        counted = np.stack([np.searchsorted(row, at, side="right") for row in pairs])
        shares.append(100 * counted / first.size)
    group, *controls = np.mean(shares, axis=0)
    low, high = np.quantile(controls, [0.025, 0.975], axis=0)
    return {"at": at, "group": group, "low": low, "high": high, "title": f"{kind} targets"}


def independent_figure(found: Found, spectrum: Spectrum, *, rng: np.random.Generator):
    """Dimension per neuron of unrelated neurons, as arguments of `sample_curves`."""
    sizes = LAYER_SIZES if isinstance(found, Untestable) else (found.group_size, *LAYER_SIZES)
    curves = {}
    for size in sorted(set(sizes)):
        draws = [independent(n, size, spectrum, DRAWS, rng=rng).mean() for n in SAMPLE_SIZES]
        curves[f"{size} neurons"] = np.array(draws) / size
    return {
        "n_positions": np.array(SAMPLE_SIZES, dtype=float),
        "curves": curves,
        "mark": None if isinstance(found, Untestable) else float(found.rare.n_positions),
        "truth": 1.0,
    }


def estimator_figures(
    found: Found, effects: xr.Dataset, *, rng: np.random.Generator
) -> list[dict[str, Any] | str]:
    """Mutual information of shuffled and of real pairs by number of positions, two estimators."""
    if isinstance(found, Untestable):
        return [found.reason, found.reason]
    kept = rng.permutation(found.rows[0]["rare"])
    z = information.prepared(effects.post.values[kept][:, found.folds[0].group], rng=rng)
    members = information.member_pairs(found.group_size, rng=rng)
    sizes = sorted({n for n in SAMPLE_SIZES if n < kept.size} | {kept.size})
    estimators = {
        "nearest neighbours": information.ksg,
        "the same, below 0 set to 0": lambda x, y: max(0.0, information.ksg(x, y)),
        f"{information.BINS} x {information.BINS} bins": information.binned,
    }
    drawn = []
    for columns in (rng.permuted(z, axis=0), z):
        curves = {
            name: np.array([pair_mean(columns[:n], members, estimate) for n in sizes])
            for name, estimate in estimators.items()
        }
        drawn.append({"n_positions": np.array(sizes, dtype=float), "curves": curves})
    drawn[0]["truth"] = 0.0
    for one in drawn:
        one["mark"] = float(found.rare.n_neighbour)
    return drawn


def pair_mean(
    z: Float[np.ndarray, "position member"], members: Int[np.ndarray, "pair two"], estimate: Any
) -> float:
    """Mean of an estimate over pairs of columns."""
    return float(np.mean([estimate(z[:, a], z[:, b]) for a, b in members]))


def cosine_figure(found: Found, weights: str) -> dict[str, Any] | str:
    """Null and observed size of the cosines, as arguments of `figures.null_histogram`."""
    if isinstance(found, Untestable):
        return found.reason
    one = found.weights[weights].size
    return {
        "null": one.null,
        "observed": {"plateau group": one.value},
        "xlabel": f"mean |cosine| of {weights}",
        "null_label": "control groups",
    }
