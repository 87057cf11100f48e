"""Neurons to compare a group with: like it in what a neuron does whatever it is for, or any.

Each neuron that is ever in a group has control neurons of its own, one a draw; the controls of its
members are a control group. So a neuron keeps its controls while documents are left out.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.distance import cdist

from raretok.errors import NotTestableError

Traits = Float[np.ndarray, "neuron trait"]
Controls = Int[np.ndarray, "neuron draw"]
TRAITS = ("log activation sd", "activation mean", "firing rate", "log |W_out|")
# A gated activation has either sign: firing is the gate's sign, and what a few huge ones do to the
# mean is said by the kurtosis.
GATED_TRAITS = ("log activation sd", "log kurtosis", "gate rate", "log |W_out|")
NEIGHBOURS = 10  # that a control neuron is drawn from
POOL = 400  # neurons that unmatched controls are drawn from
TINY = 1e-12  # keeps the logarithm of a silent neuron finite


def neuron_traits(
    post: Float[np.ndarray, "position neuron"],
    W_out: Float[np.ndarray, "neuron d_model"],
    gate_rate: Float[np.ndarray, " neuron"] | None = None,
) -> Traits:
    """What controls are matched on, each in standard deviations over the layer.

    TRAITS, or GATED_TRAITS where a `gate_rate` says how often each gate is open.
    """
    sd, mean = post.std(axis=0), post.mean(axis=0)
    size = np.linalg.norm(W_out, axis=1)
    if gate_rate is None:
        middle = [mean, (post > 0).mean(axis=0)]
    else:
        fourth = ((post - mean) ** 4).mean(axis=0)
        middle = [np.log(fourth / np.maximum(sd, TINY) ** 4 + TINY), gate_rate]
    raw = np.stack([np.log(sd + TINY), *middle, np.log(size + TINY)], axis=1)
    spread = raw.std(axis=0)
    rounding = 1e-12 * np.abs(raw).max(axis=0)
    return (raw - raw.mean(axis=0)) / np.where(spread > rounding, spread, 1.0)


def draw_controls(
    groups: Int[np.ndarray, "*fold member"],
    traits: Traits,
    n_draws: int,
    *,
    matched: bool,
    rng: np.random.Generator,
    silent: Bool[np.ndarray, " neuron"] | None = None,
) -> Controls:
    """Control neurons of every neuron that is in a group; -1 for the others.

    No neuron of any group and no `silent` one is a control, and none stands twice in a draw.
    Neurons that are most often in a group choose first. Raises `NotTestableError` where too few
    neurons are left.
    """
    members, often = np.unique(groups, return_counts=True)
    n_neurons = len(traits)
    dead = np.flatnonzero(silent) if silent is not None else np.empty(0, dtype=int)
    free = np.setdiff1d(np.arange(n_neurons), np.union1d(members, dead))
    if free.size < 2 * members.size:
        raise NotTestableError(
            f"{members.size} of {n_neurons} neurons are in a group at times: too few are left to "
            "compare them with"
        )
    controls = np.full((n_neurons, n_draws), -1)
    if not matched:
        pool = rng.permutation(free)[: max(POOL, 2 * members.size)]
        picks = np.argsort(rng.random((n_draws, pool.size)), axis=1)[:, : members.size]
        controls[members] = pool[picks].T
        return controls
    taken = np.zeros((n_draws, n_neurons), dtype=bool)
    taken[:, np.union1d(members, dead)] = True
    draws = np.arange(n_draws)
    for member in members[np.argsort(-often, kind="stable")]:
        nearest = np.argsort(cdist(traits[[member]], traits)[0], kind="stable")
        open_ = ~taken[:, nearest]
        near = open_ & (np.cumsum(open_, axis=1) <= NEIGHBOURS)
        pick = nearest[np.where(near, rng.random(near.shape), -1.0).argmax(axis=1)]
        controls[member] = pick
        taken[draws, pick] = True
    return controls


def imbalance(
    traits: Traits, groups: Int[np.ndarray, "split member"], controls: Controls
) -> Float[np.ndarray, " trait"]:
    """Mean trait of the groups less that of their controls, in sd over the layer."""
    return traits[groups].mean(axis=(0, 1)) - traits[controls[groups]].mean(axis=(0, 1, 2))
