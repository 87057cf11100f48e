"""Two rankings of the same neurons: what their tops share, under many sets of weights."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from raretok.sections.contrast import Classes
from raretok.stats.documents import document_sums, permute_within, resample_documents
from raretok.text.protocol import Protocol

Weights = Float[np.ndarray, "draw row"]
Pair = tuple[Float[np.ndarray, "draw neuron"], Float[np.ndarray, "draw neuron"]]


@dataclass(frozen=True)
class Rows:
    """Rows to be averaged with weights: positions, or the positions of a class in a document."""

    signed: Float[np.ndarray, "row neuron"]  # mean delta_loss, nats
    size: Float[np.ndarray, "row neuron"]  # mean |delta_loss|
    weight: Float[np.ndarray, " row"]
    document: Int[np.ndarray, " row"]
    rare: Bool[np.ndarray, " row"]

    def of_class(self, weight: Weights) -> tuple[Weights, Weights]:
        """Weights of the rare rows, and of the common ones."""
        return np.where(self.rare, weight, 0.0), np.where(self.rare, 0.0, weight)


def position_rows(classes: Classes) -> Rows:
    """One row a position."""
    signed = classes.delta_loss
    return Rows(signed, np.abs(signed), classes.weight, classes.document, classes.rare)


def document_rows(rows: Rows) -> Rows:
    """One row for each class in each document, with the weight of its positions."""
    cell, index = np.unique(2 * rows.document + rows.rare, return_inverse=True)
    weight = np.bincount(index, rows.weight)
    signed, size = (
        document_sums(values, index, rows.weight).value / weight[:, None]
        for values in (rows.signed, rows.size)
    )
    return Rows(signed, size, weight, cell // 2, cell % 2 == 1)


def ranked_by(
    rows: Rows, weights: Weights, chosen: Bool[np.ndarray, " row"], protocol: Protocol
) -> Float[np.ndarray, "draw neuron"]:
    """The protocol's influence under each set of weights, over some of the rows.

    Zeros where no weight is positive; below all others for neurons that the protocol leaves out.
    """
    some = weights[:, chosen]
    total = np.maximum(some.sum(axis=1, keepdims=True), 1e-300)
    signed = some @ rows.signed[chosen] / total if protocol.signed or protocol.boost_only else None
    if protocol.signed:
        return signed
    size = some @ rows.size[chosen] / total
    return np.where(signed > 0, size, -1.0) if protocol.boost_only else size


def ranks(values: Float[np.ndarray, "draw neuron"]) -> Int[np.ndarray, "draw neuron"]:
    """0 for the largest value; ties in order of the neurons."""
    order = np.argsort(-values, axis=1, kind="stable")
    found = np.empty_like(order)
    np.put_along_axis(found, order, np.arange(values.shape[1])[None], axis=1)
    return found


def shared_curve(
    first: Float[np.ndarray, "draw neuron"], second: Float[np.ndarray, "draw neuron"]
) -> Float[np.ndarray, "draw neuron"]:
    """Share of the k largest of one that are among the k largest of the other, k = 1 .. n."""
    n = first.shape[1]
    later = np.maximum(ranks(first), ranks(second))  # both have the neuron from this k on
    offset = n * np.arange(len(later))[:, None]
    counts = np.bincount((later + offset).ravel(), minlength=later.size).reshape(later.shape)
    return np.cumsum(counts, axis=1) / np.arange(1, n + 1)


def class_pairs(
    rows: Rows,
    weights: tuple[Weights, Weights],
    halves: list[Bool[np.ndarray, " row"]],
    protocol: Protocol,
) -> list[Pair]:
    """Rare and common rankings to be compared: of all rows, or of one half each, both ways."""
    if not protocol.cross_fitted:
        everything = np.ones(len(rows.weight), dtype=bool)
        return [tuple(ranked_by(rows, weight, everything, protocol) for weight in weights)]
    rare, common = weights
    return [
        (ranked_by(rows, rare, part, protocol), ranked_by(rows, common, ~part, protocol))
        for half in halves
        for part in (half, ~half)
    ]


def within_curves(
    rows: Rows, weights: Weights, halves: list[Bool[np.ndarray, " row"]], protocol: Protocol
) -> Float[np.ndarray, "draw neuron"]:
    """What the rankings of one class on two halves of the documents share; mean over splits."""
    pairs = [tuple(ranked_by(rows, weights, part, protocol) for part in (h, ~h)) for h in halves]
    return mean_curve(pairs)


def mean_curve(pairs: list[Pair]) -> Float[np.ndarray, "draw neuron"]:
    return np.mean([shared_curve(*pair) for pair in pairs], axis=0)


def exchanged(rows: Rows, n_perm: int, *, rng: np.random.Generator) -> tuple[Weights, Weights]:
    """Weights of the two classes with labels permuted within documents (as in contrast.py)."""
    orders = np.stack([permute_within(rows.document, rng=rng) for _ in range(n_perm)])
    weight, rare = rows.weight[orders], rows.rare[orders]
    return np.where(rare, weight, 0.0), np.where(rare, 0.0, weight)


def resampled(rows: Rows, n_boot: int, *, rng: np.random.Generator) -> tuple[Weights, Weights]:
    """Weights of the two classes in the same bootstrap samples of documents."""
    present, index = np.unique(rows.document, return_inverse=True)
    return rows.of_class(resample_documents(present.size, n_boot, rng=rng)[:, index] * rows.weight)


def renamed(
    pairs: list[Pair], k: int, n_draws: int, *, rng: np.random.Generator
) -> Float[np.ndarray, " share"]:
    """Mean share of the top k, over pairs, when the neurons of the second are renamed at random.

    For one pair the law is hypergeometric; the pairs of several splits resemble each other, which
    renaming them alike preserves.
    """
    names = np.argsort(rng.random((n_draws, pairs[0][0].shape[1])), axis=1)
    shares = [
        ((ranks(second)[0] < k)[names] & (ranks(first)[0] < k)).sum(axis=1) / k
        for first, second in pairs
    ]
    return np.mean(shares, axis=0)
