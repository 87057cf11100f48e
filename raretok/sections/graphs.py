"""Co-activation graphs: which neurons rise and fall together over positions, and their nulls.

The graph of a group is complete: each pair is linked by its correlation r over positions, taken as
|r| or as the positive part of r; no pair is cut off by a threshold.
"""

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from raretok.errors import UserError
from raretok.stats.documents import document_halves
from raretok.stats.groups import Fold

SMALLEST = 4  # neurons: two modules of two; below, no partition of a group means anything
STILL = 1e-7  # an sd below this share of a neuron's largest value is rounding: it is constant
BALANCED = 1e-10  # relative error of the strengths of a rewired graph
ROUNDS = 1_000  # of balancing; about 30 are needed


@dataclass(frozen=True)
class Activity:
    """Activations of the neurons that a fold compares, at the positions it measures."""

    post: Float[np.ndarray, "position used"]
    column: Int[np.ndarray, " neuron"]  # column of each neuron; -1: not used
    weight: Float[np.ndarray, " position"]
    document: Int[np.ndarray, " position"]  # 0, 1, ... without gaps, ascending
    halves: tuple[Bool[np.ndarray, " position"], ...]  # random splits of the documents

    def reweighted(self, counts: Float[np.ndarray, " document"]) -> "Activity":
        """The same with each document counted as often as a bootstrap sample drew it."""
        return replace(self, weight=self.weight * counts[self.document])


def fold_activity(
    post: Float[np.ndarray, "position neuron"],
    fold: Fold,
    rows: Bool[np.ndarray, " position"],
    document: Int[np.ndarray, " position"],
    weight: Float[np.ndarray, " position"],
    *,
    n_splits: int,
    rng: np.random.Generator,
) -> Activity:
    """What a fold measures of the positions in `rows`, ordered by document.

    Raises `UserError` for a group too small to hold two modules, for fewer positions than the group
    has neurons and two more, or for fewer than four documents: a half would be one document.
    """
    if fold.group.size < SMALLEST:
        raise UserError(
            f"a group of {fold.group.size} neurons cannot hold two modules: it needs {SMALLEST}, "
            "raise group_percent"
        )
    at = np.flatnonzero(rows & fold.measured)
    at = at[np.argsort(document[at], kind="stable")]
    present, index = np.unique(document[at], return_inverse=True)
    if at.size < fold.group.size + 2 or present.size < 4:
        raise UserError(
            f"{at.size} positions of {present.size} documents are too few to correlate a group of "
            f"{fold.group.size} neurons: raise n_positions or lower group_percent"
        )
    used = np.unique(np.concatenate([fold.group, fold.controls.ravel(), fold.equals.ravel()]))
    column = np.full(post.shape[1], -1)
    column[used] = np.arange(used.size)
    halves = tuple(document_halves(index, rng=rng) for _ in range(n_splits))
    return Activity(post[np.ix_(at, used)], column, weight[at].astype(float), index, halves)


def effects_activity(
    effects: xr.Dataset, fold: Fold, stratum: int, *, n_splits: int, rng: np.random.Generator
) -> Activity:
    """What a fold measures of one class of positions of a run."""
    rows = effects.stratum.values == stratum
    document, weight = effects.document.values, effects.weight.values
    return fold_activity(
        effects.post.values, fold, rows, document, weight, n_splits=n_splits, rng=rng
    )


def correlation(
    post: Float[np.ndarray, "*graph position neuron"], weight: Float[np.ndarray, " position"]
) -> Float[np.ndarray, "*graph neuron neuron"]:
    """Weighted Pearson correlation of all pairs of neurons; 0 on the diagonal (no self-links).

    A neuron that is constant over the positions has no correlation: 0 by rule, never NaN.
    """
    share = weight / weight.sum()
    values = post.astype(np.float64)
    centred = values - np.einsum("p,...pn->...n", share, values)[..., None, :]
    sd = np.sqrt(np.einsum("p,...pn->...n", share, centred**2))
    varies = sd > STILL * np.abs(values).max(axis=-2)
    scaled = centred * np.sqrt(share)[:, None] / np.where(varies, sd, np.inf)[..., None, :]
    r = np.swapaxes(scaled, -1, -2) @ scaled
    diagonal = np.arange(r.shape[-1])
    r[..., diagonal, diagonal] = 0
    return np.clip(r, -1.0, 1.0)


def positive(r: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """The positive part: a negative correlation is no link."""
    return np.maximum(r, 0.0)


def rewired(
    weights: Float[np.ndarray, "node node"], n_draws: int, *, rng: np.random.Generator
) -> Float[np.ndarray, "draw node node"]:
    """Random graphs in which each node keeps its strength, the sum of its links.

    A complete graph has no links to rewire. Instead each link is divided by what the strengths of
    its two nodes lead to expect, these ratios are permuted among the pairs, and rows and columns
    are rescaled until every node has its strength again (Sinkhorn and Knopp, 1967).
    """
    strength = weights.sum(axis=1)
    linked = np.flatnonzero(strength > 0)
    draws = np.zeros((n_draws, *weights.shape))
    if linked.size < 3:  # nothing can be permuted
        draws[:] = weights
        return draws
    draws[:, linked[:, None], linked] = balanced(
        permuted_ratios(weights[np.ix_(linked, linked)], n_draws, rng=rng), strength[linked]
    )
    return draws


def permuted_ratios(
    weights: Float[np.ndarray, "node node"], n_draws: int, *, rng: np.random.Generator
) -> Float[np.ndarray, "draw node node"]:
    """Links with their ratios to the product of strengths permuted among the pairs."""
    strength = weights.sum(axis=1)
    upper = np.triu_indices(len(weights), 1)
    ratio = (weights / np.outer(strength, strength))[upper]
    draws = np.zeros((n_draws, *weights.shape))
    draws[:, *upper] = rng.permuted(np.tile(ratio, (n_draws, 1)), axis=1)
    draws += draws.transpose(0, 2, 1)
    return draws * np.outer(strength, strength)


def balanced(
    weights: Float[np.ndarray, "draw node node"], strength: Float[np.ndarray, " node"]
) -> Float[np.ndarray, "draw node node"]:
    """Rescale rows and columns alike until each node has the given strength.

    A link of 0 stays 0, so a graph with few links may only come near.
    """
    scale = np.ones(weights.shape[:2])
    for _ in range(ROUNDS):
        now = scale * np.einsum("dij,dj->di", weights, scale)
        factor = strength / np.where(now > 0, now, strength)
        if np.abs(factor - 1).max() < BALANCED:
            break
        scale *= np.sqrt(factor)  # the full factor would overshoot back and forth
    return scale[:, :, None] * weights * scale[:, None, :]


def shuffled(
    post: Float[np.ndarray, "position node"],
    document: Int[np.ndarray, " position"],
    n_draws: int,
    *,
    rng: np.random.Generator,
) -> Float[np.ndarray, "draw position node"]:
    """Each neuron's activations in a random order of their own, each staying in its document.

    What happens at one position falls apart; what documents do to a neuron, its topics, stays.
    `document` is ascending.
    """
    keys = document[:, None] + rng.random((n_draws, *post.shape))
    return np.take_along_axis(post[None], np.argsort(keys, axis=1), axis=1)
