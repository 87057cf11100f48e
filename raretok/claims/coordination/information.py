"""Mutual information of pairs of neurons, in nats, from nearest neighbours.

The estimator is the first of Kraskov, Stoegbauer and Grassberger (2004), which the released code
uses through scikit-learn: no bins, and nearly no bias where two neurons are unrelated.
"""

from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from scipy.special import digamma

NEIGHBOURS = 3  # scikit-learn's default
POSITIONS = 300  # of each class in each half; the cost grows with it, the bias falls
CONTROLS = 100  # control groups; each costs as much as the group itself
PAIRS = 45  # of each group; all of them in a group of 10
BINS = 10  # of the plug-in estimator it is compared with
TINY = 1e-6  # sd; parts activations that are equal though nothing was rounded


def ksg_terms(
    x: Float[np.ndarray, " position"], y: Float[np.ndarray, " position"], k: int = NEIGHBOURS
) -> Float[np.ndarray, " position"]:
    r"""What each position adds to the mutual information of two neurons, their mean; in nats.

    $$I = \psi(k) + \psi(N) - \langle \psi(n_x + 1) + \psi(n_y + 1) \rangle$$

    $n_x$: positions nearer in $x$ than the k-th neighbour in the plane (largest of the two
    distances). Give both the same scale and no ties (`prepared`).
    Raises `ValueError` for fewer than `k + 1` positions.
    """
    if x.size <= k:
        raise ValueError(f"{k} neighbours need at least {k + 1} positions, got {x.size}")
    points = np.column_stack([x, y])
    # A plain tree: built faster than a balanced one, and searched once only.
    tree = cKDTree(points, leafsize=8, balanced_tree=False, compact_nodes=False)
    distance = tree.query(points, k=[k + 1], p=np.inf)[0][:, 0]
    near = digamma(_nearer(x, distance) + 1) + digamma(_nearer(y, distance) + 1)
    return digamma(k) + digamma(x.size) - near


def _nearer(
    x: Float[np.ndarray, " position"], distance: Float[np.ndarray, " position"]
) -> Int[np.ndarray, " position"]:
    """How many other positions lie strictly nearer than each position's distance."""
    ordered = np.sort(x)
    # `distance` is one of the differences, so rounding would decide at the edge: step inside it.
    inside = distance * (1 - 1e-9)
    last = np.searchsorted(ordered, x + inside, side="right")
    return np.maximum(last - np.searchsorted(ordered, x - inside, side="left") - 1, 0)


def ksg(
    x: Float[np.ndarray, " position"], y: Float[np.ndarray, " position"], k: int = NEIGHBOURS
) -> float:
    """Mutual information of two neurons, nats; it can come out slightly below 0."""
    return float(ksg_terms(x, y, k).mean())


def prepared(
    post: Float[np.ndarray, "position neuron"], *, rng: np.random.Generator
) -> Float[np.ndarray, "position neuron"]:
    """Z-scored activations, each moved at random within the step it was rounded to.

    Equal neighbours would count as no distance; spread over their step they are as they were.
    """
    sd = post.std(axis=0)
    z = (post - post.mean(axis=0)) / np.where(sd > 0, sd, 1.0)
    return z + smallest_gap(z) * rng.uniform(-0.5, 0.5, size=z.shape)


def smallest_gap(z: Float[np.ndarray, "position neuron"]) -> Float[np.ndarray, " neuron"]:
    """Smallest distance between different values of each neuron: the step it was rounded to."""
    gaps = np.diff(np.sort(z, axis=0), axis=0)
    smallest = np.where(gaps > TINY, gaps, np.inf).min(axis=0, initial=np.inf)
    return np.where(np.isfinite(smallest), smallest, TINY)


def binned(
    x: Float[np.ndarray, " position"], y: Float[np.ndarray, " position"], bins: int = BINS
) -> float:
    """Plug-in estimate from bins of equal counts, nats: biased up by about (bins - 1)^2 / 2N."""
    ranks = [np.argsort(np.argsort(v, kind="stable")) * bins // v.size for v in (x, y)]
    joint = np.bincount(ranks[0] * bins + ranks[1], minlength=bins**2).reshape(bins, bins) / x.size
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    full = joint > 0
    return float((joint[full] * np.log(joint[full] / product[full])).sum())


def member_pairs(
    size: int, *, rng: np.random.Generator, most: int = PAIRS
) -> Int[np.ndarray, "pair two"]:
    """Pairs of members that are measured in every group: all, or `most` of them at random."""
    pairs = np.array(list(combinations(range(size), 2)))
    return pairs if len(pairs) <= most else pairs[rng.permutation(len(pairs))[:most]]


def group_information(
    post: Float[np.ndarray, "position neuron"],
    groups: Int[np.ndarray, "draw member"],
    members: Int[np.ndarray, "pair two"],
    *,
    rng: np.random.Generator,
) -> Float[np.ndarray, "draw position"]:
    """What each position adds to the mean pairwise information of each group, nats.

    A pair that several groups hold is measured once.
    """
    used, index = np.unique(groups, return_inverse=True)
    z = np.ascontiguousarray(prepared(post[:, used], rng=rng).T)
    pairs = np.sort(index.reshape(groups.shape)[:, members], axis=-1).reshape(-1, 2)
    distinct, which = np.unique(pairs, axis=0, return_inverse=True)
    terms = np.stack([ksg_terms(z[a], z[b]) for a, b in distinct])
    which = which.reshape(len(groups), len(members))
    return np.stack([terms[row].mean(axis=0) for row in which])


def linear_information(
    matrices: Float[np.ndarray, "draw member member"],
) -> Float[np.ndarray, " draw"]:
    """Mean pairwise information that Gaussian neurons with these correlations would have, nats."""
    first, second = np.triu_indices(matrices.shape[1], k=1)
    squares = np.minimum(matrices[:, first, second] ** 2, 1 - 1e-12)
    return (-0.5 * np.log1p(-squares)).mean(axis=1)
