"""Figures and tables of the page `modularity`."""

import networkx as nx
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from raretok.claims.compare import difference
from raretok.claims.coordination.dimension import participation_ratio, whole_correlations
from raretok.claims.modularity.communities import (
    EXACT_NODES,
    best_partitions,
    exact_labels,
    modularity_matrix,
    quality,
    searched_labels,
    silhouette,
)
from raretok.claims.modularity.estimate import CONTROLS, modularity
from raretok.claims.sample import Sample
from raretok.claims.style import COLOURS, SIZE
from raretok.errors import NotTestableError

# Communities, differing for the colour-blind; more than eight begin again.
COMMUNITIES = [sns.color_palette("colorblind")[i] for i in (0, 1, 2, 4, 8, 9, 7, 5)]
WIDEST = 6.0  # points, of a link with |r| = 1


def of_first_fold(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Groups of the first fold (plateau group, then controls) and their correlations."""
    groups = sample.with_controls(CONTROLS)[0, 0]
    return groups, whole_correlations(sample, "rare", groups)


def networks(axes: list[Axes], sample: Sample) -> None:
    """Links of the group and of one control group."""
    groups, r = of_first_fold(sample)
    r = r * (1 - np.eye(r.shape[1]))
    labels = best_partitions(modularity_matrix(np.abs(r)))
    titles = ("plateau group", "a control group")
    for i, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        network(ax, r[i], groups[i], pd.factorize(labels[i])[0])
        ax.set_title(title)


def network(ax: Axes, r: np.ndarray, group: np.ndarray, community: np.ndarray) -> None:
    """Neurons on a circle, coloured by community; links as thick as |r|, negative ones dashed."""
    graph = nx.from_numpy_array(np.abs(r))
    order = np.argsort(community, kind="stable").tolist()
    # Rounded: cosines that should be 0 differ between processors.
    at = {node: np.round(place, 6) for node, place in nx.circular_layout(order).items()}
    for sign, style in ((1, "-"), (-1, "--")):
        edges = [(i, j) for i, j in graph.edges if sign * r[i, j] > 0]
        widths = [WIDEST * abs(r[i, j]) for i, j in edges]
        links = {"edgelist": edges, "width": widths, "style": style, "edge_color": "0.55"}
        nx.draw_networkx_edges(graph, at, **links, ax=ax)
    colours = [COMMUNITIES[one % len(COMMUNITIES)] for one in community]
    rings = {"node_color": "white", "edgecolors": colours, "linewidths": 3, "node_size": 1150}
    nx.draw_networkx_nodes(graph, at, range(len(group)), **rings, ax=ax)
    nx.draw_networkx_labels(graph, at, dict(enumerate(map(str, group))), font_size=SIZE, ax=ax)
    ax.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25))
    sns.despine(ax=ax, left=True, bottom=True)


def plane(ax: Axes, sample: Sample) -> None:
    """Group and controls by dimensions per neuron (coordination) and held-out Q (modules)."""
    Q = modularity(sample)[0].mean(axis=0)
    _, r = of_first_fold(sample)
    across = participation_ratio(r) / sample.size
    ax.plot(across[1:], Q[1:], "o", ms=7, color=COLOURS["controls"], label="control groups")
    ax.plot(across[:1], Q[:1], "D", ms=9, color=COLOURS["rare"], label="plateau group")
    ax.axhline(0, color="0.4", lw=0.8)
    ax.set(xlabel="dimensions per neuron", ylabel="modularity (held-out Q)")


def diagnostics(sample: Sample) -> pd.DataFrame:
    """Other numbers that speak of modules, group beside controls."""
    _, r = of_first_fold(sample)
    size = np.abs(r) * (1 - np.eye(r.shape[1]))
    matrix = modularity_matrix(size)
    best = best_partitions(matrix)
    apart = (1 - size) * (1 - np.eye(len(r[0])))
    numbers = {
        "held-out Q": modularity(sample)[0].mean(axis=0),
        "largest Q of any partition": quality(matrix, best),
        "silhouette of that partition": silhouette(apart, best),
        "second eigenvalue": np.linalg.eigvalsh(r)[:, -2],
        "mean |r|": size.sum(axis=(1, 2)) / (len(r[0]) * (len(r[0]) - 1)),
    }
    rows = {
        name: {
            "group": f"{one[0]:.3f}",
            "controls, mean": f"{one[1:].mean():.3f}",
            "controls, 95 %": "{:.3f} to {:.3f}".format(*np.quantile(one[1:], [0.025, 0.975])),
        }
        for name, one in numbers.items()
    }
    return pd.DataFrame(rows).T


def common_difference(sample: Sample) -> float:
    """M1's estimand on common targets."""
    return difference(modularity(sample, "common")).value


def found_by_search(sample: Sample) -> float:
    """How much of the exact Q the search for larger groups finds, %.

    On the same groups, each cut to as many members as the exact search takes.
    """
    _, r = of_first_fold(sample)
    links = np.abs(r)[:, :EXACT_NODES, :EXACT_NODES]
    matrix = modularity_matrix(links * (1 - np.eye(links.shape[1])))
    best, found = (quality(matrix, of(matrix)).sum() for of in (exact_labels, searched_labels))
    if best <= 0:
        raise NotTestableError("groups so small have one partition")
    return 100 * float(found / best)
