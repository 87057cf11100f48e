"""Figures and tables of the page `coordination`."""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from raretok.claims.coordination.dimension import participation_ratio, whole_correlations
from raretok.claims.coordination.estimate import log_dimension
from raretok.claims.sample import KINDS, Sample
from raretok.claims.style import null_histogram


def dimensions(ax: Axes, sample: Sample, kind: str) -> None:
    """Participation ratio per neuron of group and controls."""
    each = np.exp(log_dimension(sample, kind)[0].mean(axis=0)) / sample.size
    null_histogram(ax, each, kind=kind, xlabel="dimensions per neuron")


def correlation_matrices(axes: list[Axes], sample: Sample) -> AxesImage:
    """Correlations on rare targets: the group, and the control group in the middle."""
    groups = sample.with_controls()[0, 0]
    r = whole_correlations(sample, "rare", groups)
    order = np.argsort(participation_ratio(r[1:]), kind="stable")
    middle = 1 + int(order[order.size // 2])
    heatmap(axes[0], r[0], groups[0], "plateau group")
    return heatmap(axes[1], r[middle], groups[middle], "the control group in the middle")


def heatmap(
    ax: Axes, r: Float[np.ndarray, "member member"], group: Int[np.ndarray, " member"], title: str
) -> AxesImage:
    """A correlation matrix, its neurons ordered by average-linkage clustering."""
    apart = squareform(1 - r, checks=False).clip(0)
    order = leaves_list(linkage(apart, "average", optimal_ordering=True))
    names = [str(neuron) for neuron in group[order]]
    image = ax.imshow(r[np.ix_(order, order)], cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="neuron", title=title)
    return image


def balance_table(samples: dict[str, Sample]) -> pd.DataFrame:
    """Mean trait of the group less that of its controls, in sd over the layer, by reading."""
    rows = {name: one.imbalance for name, one in samples.items()}
    return pd.DataFrame(rows).T.map("{:+.1f}".format).rename_axis("reading")


def strongest_pairs(sample: Sample) -> dict[str, float]:
    """Mean and largest correlation of a pair of the group, by class of targets."""
    found = {}
    group = sample.groups[0, 0][None]
    for kind in KINDS:
        r = whole_correlations(sample, kind, group)[0]
        pairs = r[np.triu_indices(len(r), 1)]
        found |= {
            f"r_mean_{kind}": float(np.abs(pairs).mean()),
            f"r_max_{kind}": float(pairs.max()),
        }
    return found
