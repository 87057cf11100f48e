"""Figures and tables of the page `coordination`."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from raretok.claims.coordination.dimension import Links, Moments, participation_ratio
from raretok.claims.coordination.estimate import log_dimension
from raretok.claims.sample import DRAWS, KINDS, Sample


def dimensions(sample: Sample, kind: str) -> dict[str, Any]:
    """Participation ratio per neuron of group and controls, for `style.null_histogram`."""
    each = np.exp(log_dimension(sample, kind)[0].mean(axis=0)) / sample.size
    return {
        "controls": each[1:],
        "observed": {f"plateau group, {kind} targets": float(each[0])},
        "xlabel": "dimensions per neuron",
    }


def correlation_matrices(sample: Sample) -> list[tuple[np.ndarray, list[str], str]]:
    """Correlations on rare targets: the group, and the control group in the middle."""
    groups = Links(sample, "rare", DRAWS).groups[0, 0]
    moments = Moments.of(sample, "rare", np.unique(groups))
    r = moments.correlations(np.ones(sample.deal.n_blocks), groups)
    order = np.argsort(participation_ratio(r[1:]), kind="stable")
    middle = 1 + int(order[order.size // 2])
    return [
        ordered(r[0], groups[0], "plateau group"),
        ordered(r[middle], groups[middle], "the control group in the middle"),
    ]


def ordered(
    r: Float[np.ndarray, "member member"], group: Int[np.ndarray, " member"], title: str
) -> tuple[np.ndarray, list[str], str]:
    """A matrix with its neurons ordered by average-linkage clustering."""
    apart = squareform(1 - r, checks=False).clip(0)
    order = leaves_list(linkage(apart, "average", optimal_ordering=True))
    return r[np.ix_(order, order)], [str(neuron) for neuron in group[order]], title


def heatmap(ax: Axes, matrix: np.ndarray, names: list[str], title: str) -> AxesImage:
    """A correlation matrix, its neurons in the order given."""
    image = ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(xlabel="neuron", ylabel="neuron", title=title)
    return image


def balance_table(samples: dict[str, Sample]) -> pd.DataFrame:
    """Mean trait of the group less that of its controls, in sd over the layer, by reading."""
    rows = {
        name: dict(zip(one.trait_names, one.imbalance, strict=True))
        for name, one in samples.items()
    }
    return pd.DataFrame(rows).T.map("{:+.1f}".format).rename_axis("reading")


def strongest_pairs(sample: Sample) -> dict[str, float]:
    """Mean and largest correlation of a pair of the group, by class of targets."""
    found = {}
    group = sample.groups[0, 0][None]
    for kind in KINDS:
        moments = Moments.of(sample, kind, np.unique(group))
        r = moments.correlations(np.ones(sample.deal.n_blocks), group)[0]
        pairs = r[np.triu_indices(len(r), 1)]
        found |= {
            f"r_mean_{kind}": float(np.abs(pairs).mean()),
            f"r_max_{kind}": float(pairs.max()),
        }
    return found
