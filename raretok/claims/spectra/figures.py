"""Figures of the page `spectra`."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes

from raretok.claims.compare import difference, spread
from raretok.claims.digest import QUIET
from raretok.claims.sample import DRAWS, Sample
from raretok.claims.spectra import estimate
from raretok.claims.spectra.eigenvalues import descending, noise_edge, standard_rows
from raretok.claims.style import COLOURS, decimals, null_histogram


def spectrum(ax: Axes, sample: Sample) -> None:
    """Eigenvalues of the group by rank over those of its controls."""
    rows = estimate.weight_rows(sample)
    groups = sample.with_controls(DRAWS)[0, 0]
    spectra = descending(rows[groups] @ rows[groups].swapaxes(1, 2) / rows.shape[1])
    low, high = np.quantile(spectra[1:], [0.025, 0.975], axis=0)
    edge, rank = noise_edge(groups.shape[1], rows.shape[1]), np.arange(1, low.size + 1)
    ax.fill_between(rank, low, high, color=COLOURS["controls"], lw=0, label="control groups, 95 %")
    ax.axhline(edge, color="black", ls=":", lw=1.2, label=f"{QUIET}edge of noise")
    ax.text(rank[-1], edge, "edge of noise", ha="right", va="bottom")
    ax.plot(rank, spectra[0], "o-", ms=6, color=COLOURS["rare"], label="plateau group")
    ax.set(xlabel="eigenvalue, by rank", ylabel="eigenvalue", yscale="log")
    decimals(ax.yaxis)


def cosines(ax: Axes, sample: Sample) -> None:
    """Squared cosines of group and controls in units of chance."""
    each = estimate.cosines(sample)[0].mean(axis=0)
    null_histogram(ax, each, kind="rare", xlabel="mean squared cosine (x chance)")


def matrices_table(sample: Sample) -> pd.DataFrame:
    """The estimand in each matrix alone, and how near the members stand in index."""
    rows = {}
    for name, matrix in sample.matrices.items():
        values = estimate.cosines(sample, standard_rows(matrix))
        rows[f"squared cosine of {name}, x chance"] = row_of(values)
    groups = sample.with_controls(DRAWS)
    flat = groups.reshape(-1, groups.shape[-1])
    apart = np.abs(flat[:, :, None] - flat[:, None, :]).sum(axis=(1, 2))
    distance = apart.reshape(groups.shape[:3]) / (flat.shape[1] * (flat.shape[1] - 1))
    rows["distance of indices"] = row_of(distance)
    return pd.DataFrame(rows).T


def row_of(values: Float[np.ndarray, "left_out split group"]) -> dict[str, str]:
    """Group, controls, and the difference with its interval."""
    mean, low, high = spread(values)
    apart = difference(values)
    return {
        "group": f"{values[0].mean(axis=0)[0]:.3g}",
        "controls": f"{mean:.3g} ({low:.3g} to {high:.3g})",
        "difference, 95 %": f"{apart.value:.3g} ({apart.low:.3g} to {apart.high:.3g})",
    }
