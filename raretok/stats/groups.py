"""The plateau group: the neurons that matter most to a class of targets, and controls for it.

A control group has the size of the plateau group and no neuron of it. Under the protocol
`corrected` each control neuron is near a plateau neuron in what a neuron does whatever it is for
(how much it varies, its mean, how often it fires, how strongly it writes); under the others it is
any neuron, as in the released code, which draws two such groups where here there are 1,000.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy.spatial.distance import cdist

from raretok.errors import UserError
from raretok.stats.documents import document_halves, ratio_mean
from raretok.text.protocol import Protocol
from raretok.text.rarity import COMMON, RARE

TRAITS = ("log activation sd", "activation mean", "firing rate", "log |W_out|")
NEIGHBOURS = 10  # that a control neuron is drawn from, for each neuron of the group
SMALLEST = 3  # neurons; below, no statistic of a group means anything
TINY = 1e-12  # keeps the logarithm of a silent neuron finite

# Statistic of groups of neurons at the positions a fold measures.
Statistic = Callable[["Fold", Int[np.ndarray, "draw member"]], Float[np.ndarray, " draw"]]


@dataclass(frozen=True)
class Fold:
    """A group chosen on some positions, to be measured on others."""

    group: Int[np.ndarray, " member"]  # most influential first
    controls: Int[np.ndarray, "draw member"]
    equals: Int[np.ndarray, "draw member"]  # as influential on common targets, not in the group
    measured: Bool[np.ndarray, " position"]


@dataclass(frozen=True)
class Compared:
    """One statistic of the group and of its controls, each averaged over the folds."""

    value: float
    null: Float[np.ndarray, " draw"]
    equals: Float[np.ndarray, " draw"]


def compare(folds: list[Fold], statistic: Statistic) -> Compared:
    """Measure the group and every control group in each fold; means over the folds."""
    of = {
        "value": lambda fold: fold.group[None],
        "null": lambda fold: fold.controls,
        "equals": lambda fold: fold.equals,
    }
    means = {
        name: np.mean([statistic(fold, which(fold)) for fold in folds], axis=0)
        for name, which in of.items()
    }
    return Compared(float(means["value"][0]), means["null"], means["equals"])


def find_folds(
    effects: xr.Dataset,
    protocol: Protocol,
    W_out_norm: Float[np.ndarray, " neuron"],
    *,
    size: int,
    n_controls: int,
    rng: np.random.Generator,
    part: str = "boost",
) -> list[Fold]:
    """The group under a protocol with its controls: one fold, or two where halves are swapped.

    `protocol.cross_fitted` chooses on one half of the documents and measures on the other.
    `part` is "boost" (neurons whose ablation raises the loss on rare targets) or "suppress".
    Raises `UserError` where a group of that size cannot be formed or matched.
    """
    everything = np.ones(effects.sizes["position"], dtype=bool)
    pairs = [(everything, everything)]
    if protocol.cross_fitted:
        first = document_halves(effects.document.values, rng=rng)
        pairs = [(first, ~first), (~first, first)]
    traits = neuron_traits(effects.post.values, W_out_norm)
    groups = [influential(effects, protocol, chosen, RARE, part=part)[:size] for chosen, _ in pairs]
    for group in groups:
        check_size(group.size, size, traits.shape[0])
    controls, equals = Draws(n_controls, groups, rng), Draws(n_controls, groups, rng)
    return [
        Fold(
            group,
            control_groups(traits, group, protocol.matched, controls),
            equal_groups(effects, protocol, chosen, group, part, equals),
            measured,
        )
        for group, (chosen, measured) in zip(groups, pairs, strict=True)
    ]


class Draws:
    """Control neurons drawn so far, for each neuron of a group.

    The groups of two folds share most of their neurons. Their controls must share as many, or the
    mean over folds would vary less for controls than for groups and every test reject too often.
    """

    def __init__(
        self, n_groups: int, groups: list[Int[np.ndarray, " member"]], rng: np.random.Generator
    ):
        self.n_groups, self.rng = n_groups, rng
        self.barred = np.unique(np.concatenate(groups))  # in no control group of any fold
        self.drawn: dict[int, Int[np.ndarray, " draw"]] = {}


def check_size(found: int, size: int, d_mlp: int) -> None:
    """Raise `UserError` for a group too small to measure or too large to have controls."""
    if size < SMALLEST:
        raise UserError(
            f"a group of {size} of {d_mlp} neurons is too small: it needs {SMALLEST}, "
            "raise group_percent"
        )
    if found < size:
        raise UserError(f"only {found} neurons have the sign asked for, {size} were wanted")
    if 2 * size > d_mlp:
        raise UserError(f"a group of {size} of {d_mlp} neurons leaves too few to compare it with")


def influential(
    effects: xr.Dataset,
    protocol: Protocol,
    chosen: Bool[np.ndarray, " position"],
    stratum: int,
    *,
    part: str = "boost",
) -> Int[np.ndarray, " ranked"]:
    """Neurons whose ablation raises (boost) or lowers (suppress) the loss, strongest first.

    Ranked by the protocol's influence: the mean of delta_loss, or of its size (released code).
    """
    signed, ranking = influences(effects, protocol, chosen, stratum)
    sign = {"boost": 1.0, "suppress": -1.0}[part]
    order = np.argsort(-ranking, kind="stable")
    return order[sign * signed[order] > 0]


def influences(
    effects: xr.Dataset, protocol: Protocol, chosen: Bool[np.ndarray, " position"], stratum: int
) -> tuple[Float[np.ndarray, " neuron"], Float[np.ndarray, " neuron"]]:
    """Mean delta_loss of each neuron on a class of targets, and what it is ranked by; nats."""
    rows = chosen & (effects.stratum.values == stratum)
    delta = effects.delta_loss.values[rows].astype(np.float64)
    weight = effects.weight.values[rows]
    signed = ratio_mean(delta, weight)
    return signed, np.abs(signed) if protocol.signed else ratio_mean(np.abs(delta), weight)


def neuron_traits(
    post: Float[np.ndarray, "position neuron"], W_out_norm: Float[np.ndarray, " neuron"]
) -> Float[np.ndarray, "neuron trait"]:
    """What controls are matched on (TRAITS), each in standard deviations over the layer."""
    sd, mean, rate = post.std(axis=0), post.mean(axis=0), (post > 0).mean(axis=0)
    raw = np.stack([np.log(sd + TINY), mean, rate, np.log(W_out_norm + TINY)], axis=1)
    spread = raw.std(axis=0)
    return (raw - raw.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def control_groups(
    traits: Float[np.ndarray, "neuron trait"],
    group: Int[np.ndarray, " member"],
    matched: bool,
    draws: Draws,
) -> Int[np.ndarray, "draw member"]:
    """Groups of the same size without a neuron of the group: near it in its traits, or any."""
    if matched:
        return near_groups(cdist(traits[group], traits), group, draws)
    return near_groups(np.zeros((group.size, len(traits))), group, draws, among=None)


def equal_groups(
    effects: xr.Dataset,
    protocol: Protocol,
    chosen: Bool[np.ndarray, " position"],
    group: Int[np.ndarray, " member"],
    part: str,
    draws: Draws,
) -> Int[np.ndarray, "draw member"]:
    """Groups whose neurons matter as much to common targets as the group's do to rare ones.

    What a neuron of the group has because it matters at all, these have as well.
    """
    signed, common = influences(effects, protocol, chosen, COMMON)
    _, rare = influences(effects, protocol, chosen, RARE)
    distance = np.abs(np.log(rare[group] + TINY)[:, None] - np.log(common + TINY)[None])
    wrong_sign = signed * {"boost": 1.0, "suppress": -1.0}[part] <= 0
    return near_groups(distance + 1e6 * wrong_sign, group, draws)


def near_groups(
    distance: Float[np.ndarray, "member neuron"],
    group: Int[np.ndarray, " member"],
    draws: Draws,
    *,
    among: int | None = NEIGHBOURS,
) -> Int[np.ndarray, "draw member"]:
    """For each member one of its `among` nearest neurons that are still free; None: any of them.

    No neuron twice in one group, none that is barred. A member that has controls already keeps
    them; the others choose in random order, so that none always chooses last.
    """
    n_neurons, rows = distance.shape[1], np.arange(draws.n_groups)
    among = n_neurons if among is None else among
    taken = np.zeros((draws.n_groups, n_neurons), dtype=bool)
    taken[:, draws.barred] = True
    for neuron in filter(draws.drawn.__contains__, group.tolist()):
        taken[rows, draws.drawn[neuron]] = True
    # Of the nearest neurons no more than these can be taken: the rest need no look.
    looked = n_neurons if among == n_neurons else among + draws.barred.size + group.size
    for member in draws.rng.permutation(group.size):
        if int(group[member]) in draws.drawn:
            continue
        order = np.argsort(distance[member], kind="stable")[:looked]
        free = ~taken[:, order]
        near = free & (np.cumsum(free, axis=1) <= among)
        pick = np.where(near, draws.rng.random(near.shape), -1.0).argmax(axis=1)
        draws.drawn[int(group[member])] = order[pick]
        taken[rows, order[pick]] = True
    return np.stack([draws.drawn[neuron] for neuron in group.tolist()], axis=1)


def balance(
    traits: Float[np.ndarray, "neuron trait"], folds: list[Fold]
) -> dict[str, Float[np.ndarray, " trait"]]:
    """Mean traits of group, controls and all neurons, in standard deviations over the layer."""
    group = np.mean([traits[fold.group].mean(axis=0) for fold in folds], axis=0)
    controls = np.mean([traits[fold.controls].mean(axis=(0, 1)) for fold in folds], axis=0)
    return {"group": group, "controls": controls, "layer": traits.mean(axis=0)}
