"""Documents as the unit that is resampled or permuted in: sums, a bootstrap, exchanged labels.

Positions of one document share its topic and its words, so the document is the unit that is
resampled or split; labels are permuted inside a document.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Documents = Int[np.ndarray, " position"]
Counts = Float[np.ndarray, "boot document"]


@dataclass(frozen=True)
class DocumentSums:
    """All that a bootstrap of weighted means needs; rows are documents, some may be empty."""

    value: Float[np.ndarray, "document neuron"]  # sum of weight * value
    weight: Float[np.ndarray, " document"]  # sum of weight


def resample_documents(n_documents: int, n_boot: int, *, rng: np.random.Generator) -> Counts:
    """How often each document is drawn in each bootstrap sample (multinomial counts).

    One table of counts used for two classes keeps their difference paired.
    Raises `ValueError` for fewer than two documents: they would show no variation.
    """
    if n_documents < 2:
        raise ValueError(f"a bootstrap over documents needs at least 2, got {n_documents}")
    return rng.multinomial(n_documents, np.full(n_documents, 1 / n_documents), n_boot).astype(float)


def bootstrap_means(sums: DocumentSums, counts: Counts) -> Float[np.ndarray, "boot neuron"]:
    """Weighted mean of each neuron in each bootstrap sample (a ratio: its total weight varies).

    A sample that draws no document of a small class has no mean; its row is NaN.
    """
    total = counts @ sums.weight
    return (counts @ sums.value) / np.where(total > 0, total, np.nan)[:, None]


def permute_within(document: Documents, *, rng: np.random.Generator) -> Documents:
    """A random order of the positions in which each stays in its document."""
    order = np.argsort(document, kind="stable")
    # A document's number and a random fraction: one sort, within documents at random.
    shuffled = np.argsort(document + rng.random(document.size), kind="stable")
    permutation = np.empty_like(order)
    permutation[order] = shuffled
    return permutation
