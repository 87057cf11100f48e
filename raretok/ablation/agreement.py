"""How well a screen orders neurons: rank agreement with exact effects, and its uncertainty."""

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from raretok.stats.documents import DocumentSums, bootstrap_means

BOUNDS = ("value", "low", "high")
MEASURES = ("spearman", "spearman of sizes", "recall")
LOWEST = (-1, -1, 0)  # value of each measure
SIGMAS = 1.96  # 95 %
LARGEST = 0.1  # of the neurons, for the recall


def rank_agreement(
    screened: DocumentSums,
    exact: DocumentSums,
    counts: Float[np.ndarray, "boot document"],
    *,
    rng: np.random.Generator | None = None,
) -> Float[np.ndarray, "bound measure"]:
    """Value and 95 % interval of each of MEASURES, for neurons in the same order in both.

    `counts` are resamples of documents, used for both, which keeps them paired. With `rng` neurons
    are resampled too: right for a random subset, which stands for its layer, and wrong for the
    top, which stands for itself. The interval is 1.96 standard deviations of the resamples to
    either side of the value, within the range of the measure: resampling adds noise that screen and
    exact share, so that resamples agree better than the sample and their percentiles may miss it.
    """
    everything = np.ones((1, counts.shape[1]))
    value = _measures(bootstrap_means(screened, everything), bootstrap_means(exact, everything))
    drawn, exactly = bootstrap_means(screened, counts), bootstrap_means(exact, counts)
    # A resample without a document of the class has no mean, hence no ranks.
    whole = np.isfinite(exactly).all(axis=1)
    drawn, exactly = drawn[whole], exactly[whole]
    if rng is not None:
        neuron = rng.integers(exactly.shape[1], size=exactly.shape)
        drawn, exactly = (np.take_along_axis(part, neuron, axis=1) for part in (drawn, exactly))
    spread = SIGMAS * np.nanstd(_measures(drawn, exactly), axis=0)
    low, high = np.maximum(value[0] - spread, LOWEST), np.minimum(value[0] + spread, 1)
    return np.stack([value[0], low, high])


def _measures(
    screened: Float[np.ndarray, "boot neuron"], exact: Float[np.ndarray, "boot neuron"]
) -> Float[np.ndarray, "boot measure"]:
    sizes = np.abs(screened), np.abs(exact)
    return np.column_stack([spearman(screened, exact), spearman(*sizes), recall(*sizes)])


def spearman(
    a: Float[np.ndarray, "row neuron"], b: Float[np.ndarray, "row neuron"]
) -> Float[np.ndarray, " row"]:
    """Rank correlation of each row, ties at their mean rank; NaN where a row is constant."""
    a, b = (rankdata(part, axis=1) for part in (a, b))
    a, b = (part - part.mean(axis=1, keepdims=True) for part in (a, b))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))


def recall(
    screened: Float[np.ndarray, "row neuron"], exact: Float[np.ndarray, "row neuron"]
) -> Float[np.ndarray, " row"]:
    """Share of the exactly largest tenth of the neurons that is in the screen's largest tenth."""
    k = max(1, round(LARGEST * exact.shape[1]))
    large, ranked_high = (part >= np.sort(part)[:, -k, None] for part in (exact, screened))
    return (large & ranked_high).sum(axis=1) / large.sum(axis=1)
