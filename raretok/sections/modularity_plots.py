"""Plotted arrays of the page `modularity`: nulls, networks, the sweep and the plane."""

from typing import Any

import networkx as nx
import numpy as np
from jaxtyping import Float, Int

from raretok.sections.communities import best_partitions
from raretok.sections.graphs import correlation
from raretok.sections.louvain import RESOLUTIONS, consensus
from raretok.sections.modularity import Modularity
from raretok.sections.module_measures import Graphs, held_out_Q, largest_Q, mean_link

DRAWN_LINKS = 0.75  # quantile of |r| among pairs of controls, above which a link is drawn
PATH_GROUPS = 40  # simulated groups a point of a reference line
PATH_STRENGTHS = np.linspace(0.0, 1.2, 9)  # of a module's factor, in sd of a neuron's own noise


def null_panels(found: Modularity) -> dict[str, dict[str, Any]]:
    """One histogram a null, as arguments of `figures.null_histogram`."""
    return {
        name: {
            "null": test.null,
            "observed": {"plateau group": test.value},
            "xlabel": f"largest Q (z = {test.z:+.1f})",
            "null_label": "null",
        }
        for name, test in found.nulls.items()
    }


def claim_panels(found: dict[str, Modularity]) -> dict[str, dict[str, Any]]:
    """One histogram a protocol: its statistic of the group among the control groups."""
    return {
        name: {
            "null": one.test.null,
            "observed": {"plateau group": one.test.value},
            "xlabel": one.statistic,
            "null_label": "control groups",
            "level": float(np.quantile(one.test.null, 0.95)),
        }
        for name, one in found.items()
    }


def networks(found: Modularity, seed: int) -> dict[str, dict[str, Any]]:
    """The first fold's group beside its control of median Q, as arguments of `network`."""
    fold, links = found.folds[0], found.links[0]
    controls = links.among(fold.controls)
    Q = largest_Q(controls)
    median = int(np.argsort(Q, kind="stable")[Q.size // 2])
    level = float(np.quantile(controls.size[controls.size > 0], DRAWN_LINKS))
    groups = {"plateau group": fold.group, "control group": fold.controls[median]}
    return {
        name: drawn_network(links.among(group[None]), group, level, seed)
        for name, group in groups.items()
    }


def drawn_network(
    graphs: Graphs, group: Int[np.ndarray, " node"], level: float, seed: int
) -> dict[str, Any]:
    """Places, consensus communities and links above a level of one group."""
    size, r = graphs.size[0], graphs.r[0]
    at = nx.spring_layout(nx.from_numpy_array(size), seed=seed, weight="weight", k=1.2)
    pairs = np.argwhere(np.triu(size > level))
    return {
        "at": np.array([at[node] for node in range(len(group))]),
        "names": [str(neuron) for neuron in group],
        "community": consensus(size).labels,
        "pairs": pairs,
        "r": r[tuple(pairs.T)],
    }


def sweep_lines(found: Modularity) -> dict[str, Float[np.ndarray, " resolution"]]:
    """Largest Q less the controls' mean by resolution: the group, and 90 % of its controls."""
    group, controls = [], []
    for gamma in RESOLUTIONS:
        pairs = list(zip(found.folds, found.links, strict=True))
        own = [links.among(fold.group[None]).size for fold, links in pairs]
        theirs = [links.among(fold.controls).size for fold, links in pairs]
        group.append(np.mean([best_partitions(one, gamma).Q[0] for one in own]))
        controls.append(np.mean([best_partitions(one, gamma).Q for one in theirs], axis=0))
    mean = np.mean(controls, axis=1)
    low, high = np.quantile(controls, [0.05, 0.95], axis=1) - mean
    value = np.array(group) - mean
    return {"resolution": np.array(RESOLUTIONS), "value": value, "low": low, "high": high}


def reference_paths(
    found: Modularity, rng: np.random.Generator
) -> dict[str, tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]]:
    """Where simulated groups of 1, 2 and 3 modules lie as their factors grow stronger."""
    size, n_positions = found.folds[0].group.size, found.activities[0].weight.size
    paths = {}
    for n_modules in (1, 2, 3):
        module = np.arange(size) * n_modules // size
        points = []
        for strength in PATH_STRENGTHS:
            halves = [simulated(module, strength, n_positions // 2, rng) for _ in range(2)]
            graphs = Graphs((halves[0] + halves[1]) / 2, ((halves[0], halves[1]),))
            points.append((mean_link(graphs).mean(), held_out_Q(graphs).mean()))
        label = "planted: one factor" if n_modules == 1 else f"planted: {n_modules} modules"
        paths[label] = tuple(np.array(points).T)
    return paths


def simulated(
    module: Int[np.ndarray, " node"], strength: float, n_positions: int, rng: np.random.Generator
) -> Float[np.ndarray, "graph node node"]:
    """Correlations of groups whose modules share a factor each; independent positions."""
    factor = rng.normal(size=(PATH_GROUPS, n_positions, int(module.max()) + 1))[:, :, module]
    noise = rng.normal(size=(PATH_GROUPS, n_positions, module.size))
    return correlation(strength * factor + noise, np.ones(n_positions))


def plane_figure(
    found: Modularity, untrained: Modularity | None, rng: np.random.Generator
) -> dict[str, Any]:
    """Controls, group and simulated worlds by coordination and modules, for `plane`."""
    mean, Q = found.measures["mean |r|"], found.measures["held-out Q"]
    marked = {"plateau group": (mean.value, Q.value)}
    if untrained is not None:
        of = untrained.measures
        marked["plateau group, untrained"] = (of["mean |r|"].value, of["held-out Q"].value)
    return {
        "coordination": mean.null,
        "modules": Q.null,
        "marked": marked,
        "paths": reference_paths(found, rng),
    }
