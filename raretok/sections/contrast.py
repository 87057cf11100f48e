"""Rare against common targets: one statistic of the rank curve, its interval and its null."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from raretok.sections.influence import influence
from raretok.stats.documents import (
    Interval,
    bootstrap_means,
    document_sums,
    interval,
    permute_within,
    resample_documents,
)

Statistic = Callable[[Float[np.ndarray, " neuron"]], float]


@dataclass(frozen=True)
class Classes:
    """Ablation of the scored positions of two classes; rows are positions."""

    delta_loss: Float[np.ndarray, "position neuron"]  # nats
    weight: Float[np.ndarray, " position"]
    document: Int[np.ndarray, " position"]
    rare: Bool[np.ndarray, " position"]  # the others are common


@dataclass(frozen=True)
class Contrast:
    """A statistic of rare targets less that of common ones."""

    rare: float
    common: float
    difference: float
    interval: Interval  # paired bootstrap over documents
    p: float  # two-sided, labels permuted within documents
    null: Float[np.ndarray, " perm"]


def permuted_influences(
    classes: Classes, *, signed: bool, n_perm: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "perm neuron"], Float[np.ndarray, "perm neuron"]]:
    """Influence of "rare" and "common" positions when labels are permuted within documents.

    What is exchangeable if rarity does not matter: positions of one document, whose topic and words
    they share. Label and weight move together, so each document keeps its number and its
    total weight of each class. Neighbouring positions are not quite alike, and documents with
    one class only add nothing but their mean. A rejection says that rare and common
    positions differ *somehow* (size of the loss included) in a way the statistic sees.
    """
    values = classes.delta_loss if signed else np.abs(classes.delta_loss)
    orders = np.stack([permute_within(classes.document, rng=rng) for _ in range(n_perm)])
    weight, rare = classes.weight[orders], classes.rare[orders]
    rare_weight, common_weight = np.where(rare, weight, 0.0), np.where(rare, 0.0, weight)
    return (
        (rare_weight @ values) / rare_weight.sum(axis=1, keepdims=True),
        (common_weight @ values) / common_weight.sum(axis=1, keepdims=True),
    )


def contrast(
    classes: Classes,
    statistic: Statistic,
    *,
    signed: bool,
    n_perm: int,
    n_boot: int,
    rng: np.random.Generator,
) -> Contrast:
    """Compare a statistic of the influence (`top_share`, `head_lift`) between the classes.

    Draws whose statistic cannot be computed (too few positive values) are left out; the
    statistic of the data raises. p counts permuted differences as far from the null's median.
    Noise moves both statistics, more so in a class with fewer positions: draw equal numbers. A
    bootstrap sample is noisier than the data, so the interval may lie to one side of the estimate.
    """
    rare, common = (
        statistic(influence(classes.delta_loss[m], classes.weight[m], signed=signed))
        for m in (classes.rare, ~classes.rare)
    )
    permuted = permuted_influences(classes, signed=signed, n_perm=n_perm, rng=rng)
    null = _differences(statistic, *permuted)
    boot = _differences(
        statistic, *paired_bootstrap(classes, signed=signed, n_boot=n_boot, rng=rng)
    )
    centre = np.median(null)
    hits = (np.abs(null - centre) >= abs(rare - common - centre)).sum()
    p = float((1 + hits) / (1 + null.size))
    return Contrast(rare, common, rare - common, interval(boot), p, null)


def paired_bootstrap(
    classes: Classes, *, signed: bool, n_boot: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "boot neuron"], Float[np.ndarray, "boot neuron"]]:
    """Influence of both classes in the same bootstrap samples of documents."""
    values = classes.delta_loss if signed else np.abs(classes.delta_loss)
    present, index = np.unique(classes.document, return_inverse=True)
    counts = resample_documents(present.size, n_boot, rng=rng)
    sums = [
        document_sums(values[m], index[m], classes.weight[m], present.size)
        for m in (classes.rare, ~classes.rare)
    ]
    return bootstrap_means(sums[0], counts), bootstrap_means(sums[1], counts)


def _differences(
    statistic: Statistic,
    rare: Float[np.ndarray, "draw neuron"],
    common: Float[np.ndarray, "draw neuron"],
) -> Float[np.ndarray, " kept"]:
    def safe(values: Float[np.ndarray, " neuron"]) -> float:
        try:
            return statistic(values)
        except ValueError:
            return np.nan

    pairs = zip(rare, common, strict=True)
    differences = np.array([safe(a) - safe(b) for a, b in pairs])
    return differences[np.isfinite(differences)]
