"""The spectrum of a whole layer's weights, and what a group of its neurons adds to the tail."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from raretok.sections.eigenvalues import ZERO, beyond_edge, hill, noise_distance
from raretok.sections.released_spectra import TAIL
from raretok.stats.documents import Interval, NullTest, null_test
from raretok.stats.groups import Fold

LEFT_OUT = 200  # control groups that are left out of the layer in turn
BLOCKS = 32  # of neurons, left out in turn for the interval


@dataclass(frozen=True)
class LayerSpectrum:
    """Non-zero eigenvalues of a layer's correlation matrix."""

    n: int  # neurons
    d: int  # entries of a row
    spectrum: Float[np.ndarray, " rank"]
    directions: Float[np.ndarray, "weight rank"]  # eigenvectors in weight space
    shuffled: Float[np.ndarray, " other"]  # spectrum with each row's entries in random order
    tail: int  # eigenvalues the tail index is estimated from: a tenth
    index: float
    interval: Interval  # 95 %, over neurons
    beyond: int  # eigenvalues beyond the edge of noise
    distance: float  # Kolmogorov-Smirnov, to the Marchenko-Pastur law


@dataclass(frozen=True)
class Contribution:
    """Part of a group in the layer's leading directions, and in its tail index."""

    share: Float[np.ndarray, "fold direction"]  # of the rows' variance in the first directions
    control_share: Float[np.ndarray, "draw direction"]
    lead: NullTest  # the share in the directions beyond the edge of noise
    left_out: NullTest  # ln of the layer's tail index without the group, less with it


def layer_spectrum(
    rows: Float[np.ndarray, "neuron weight"], *, rng: np.random.Generator
) -> LayerSpectrum:
    """Is the layer heavy-tailed at all?"""
    n, d = rows.shape
    spectrum, vectors = directions(rows)
    tail = max(1, int(TAIL * spectrum.size))
    index = float(hill(spectrum[None], tail)[0])
    return LayerSpectrum(
        n=n,
        d=d,
        spectrum=spectrum,
        directions=vectors,
        shuffled=directions(rng.permuted(rows, axis=1))[0],
        tail=tail,
        index=index,
        interval=block_interval(rows, index, tail, rng=rng),
        beyond=int(beyond_edge(spectrum[None], n, d)[0]),
        distance=float(noise_distance(spectrum[None], n, d)[0]),
    )


def directions(
    rows: Float[np.ndarray, "neuron weight"],
) -> tuple[Float[np.ndarray, " rank"], Float[np.ndarray, "weight rank"]]:
    """Non-zero eigenvalues of C = X X^T / d, largest first, and their directions in weight space.

    X^T X / d has the same ones: they are the squared singular values of X over d.
    """
    values, vectors = np.linalg.eigh(rows.T @ rows / rows.shape[1])
    kept = values > ZERO * values[-1]
    return values[kept][::-1], vectors[:, kept][:, ::-1]


def block_interval(
    rows: Float[np.ndarray, "neuron weight"], index: float, tail: int, *, rng: np.random.Generator
) -> Interval:
    """Interval of the layer's tail index: random blocks of neurons left out in turn.

    A bootstrap would draw neurons twice, and equal rows make a tail of their own.
    """
    blocks = rng.permutation(len(rows))[: len(rows) // BLOCKS * BLOCKS].reshape(BLOCKS, -1)
    logs = np.log(hill(spectra_without(rows, blocks, tail + 1), tail))
    sd = np.sqrt((BLOCKS - 1) / BLOCKS * ((logs - logs.mean()) ** 2).sum())
    return Interval(*(float(index * np.exp(z * sd)) for z in (-1.96, 1.96)))


def spectra_without(
    rows: Float[np.ndarray, "neuron weight"], groups: Int[np.ndarray, "draw member"], rank: int
) -> Float[np.ndarray, "draw rank"]:
    """The largest eigenvalues of the layer with each group of neurons left out."""
    whole = rows.T @ rows
    spectra = np.empty((len(groups), rank))
    for draw, group in enumerate(groups):
        rest = whole - rows[group].T @ rows[group]
        spectra[draw] = np.linalg.eigvalsh(rest)[::-1][:rank] / rows.shape[1]
    return spectra


def direction_shares(
    rows: Float[np.ndarray, "neuron weight"], vectors: Float[np.ndarray, "weight rank"]
) -> Float[np.ndarray, "neuron rank"]:
    """Share of each neuron's weight variance in the first 1, 2, ... directions; 1 in all."""
    return np.cumsum((rows @ vectors) ** 2, axis=1) / rows.shape[1]


def contribution(
    rows: Float[np.ndarray, "neuron weight"], layer: LayerSpectrum, folds: list[Fold]
) -> Contribution:
    """Does the group carry more of the layer's tail than its controls?

    Controls of all folds in one heap, as in `spectra.pooled`.
    """
    shares = direction_shares(rows, layer.directions)
    share = np.stack([shares[fold.group].mean(axis=0) for fold in folds])
    controls = np.concatenate([shares[fold.controls].mean(axis=1) for fold in folds])
    at = max(1, layer.beyond) - 1
    lead = null_test(float(share[:, at].mean()), controls[:, at], "two-sided")
    return Contribution(share, controls, lead, left_out_test(rows, layer, folds))


def left_out_test(
    rows: Float[np.ndarray, "neuron weight"], layer: LayerSpectrum, folds: list[Fold]
) -> NullTest:
    """Does leaving the group out raise the layer's tail index more than leaving out controls?"""

    def change(groups: Int[np.ndarray, "draw member"]) -> Float[np.ndarray, " draw"]:
        without = spectra_without(rows, groups, layer.tail + 1)
        return np.log(hill(without, layer.tail) / layer.index)

    group = change(np.stack([fold.group for fold in folds]))
    each = LEFT_OUT // len(folds)
    controls = change(np.concatenate([fold.controls[:each] for fold in folds]))
    return null_test(float(group.mean()), controls, "greater")
