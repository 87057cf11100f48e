"""Mutual information of pairs of neurons, in nats, from nearest neighbours.

The estimator is the first of Kraskov, Stoegbauer and Grassberger (2004), which the released code
uses through scikit-learn: no bins, and nearly no bias where two neurons are unrelated.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from scipy.special import digamma

Activations = Float[np.ndarray, " position"]
NEIGHBOURS = 3  # scikit-learn's default
TINY = 1e-6  # sd; parts activations that are equal though nothing was rounded


def ksg_terms(x: Activations, y: Activations, k: int = NEIGHBOURS) -> Activations:
    r"""What each position adds to the mutual information of two neurons, their mean; in nats.

    The mean can come out slightly below 0.

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


def _nearer(x: Activations, distance: Activations) -> Int[np.ndarray, " position"]:
    """How many other positions lie strictly nearer than each position's distance."""
    ordered = np.sort(x)
    # `distance` is one of the differences, so rounding would decide at the edge: step inside it.
    inside = distance * (1 - 1e-9)
    last = np.searchsorted(ordered, x + inside, side="right")
    return np.maximum(last - np.searchsorted(ordered, x - inside, side="left") - 1, 0)


def prepared(
    post: Float[np.ndarray, "position neuron"], *, rng: np.random.Generator
) -> Float[np.ndarray, "position neuron"]:
    """Z-scored activations, each moved at random within the step it was rounded to.

    Equal neighbours would count as no distance; spread over their step they are as they were.
    """
    sd = post.std(axis=0)
    z = (post - post.mean(axis=0)) / np.where(sd > 0, sd, 1.0)
    gaps = np.diff(np.sort(z, axis=0), axis=0)
    step = np.where(gaps > TINY, gaps, np.inf).min(axis=0, initial=np.inf)
    step = np.where(np.isfinite(step), step, TINY)  # the step each neuron was rounded to
    return z + step * rng.uniform(-0.5, 0.5, size=z.shape)
