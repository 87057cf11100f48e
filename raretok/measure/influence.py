"""Influence summed up by blocks of documents: all that an estimate with an interval needs.

Of single neurons in parts of a text, and of many ablated together: the top ones of either class,
and sets like them.
"""

from collections.abc import Iterable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import final_head
from raretok.ablation.split import group_delta_loss
from raretok.errors import NotTestableError
from raretok.measure.find import Measurements
from raretok.measure.record import rounded
from raretok.measure.source import STRATIFIED, Source
from raretok.stats.jackknife import block_sums, deal
from raretok.stats.matching import draw_controls, neuron_traits
from raretok.text.rarity import COMMON, KINDS, MIDDLE, RARE, Positions, draw_stratified

Blocks = Int[np.ndarray, " position"]
Weights = Float[np.ndarray, "token_class block"]
PRECISE = 8  # binary digits of sums that every estimate reads: off by 0.2 % at most
SCORED = 800  # rare positions of a part of the corpus, and as many common ones
EXACT = 1e-7  # nats of a pair
OTHERS = "the others"
FEWEST = 4  # documents that are dealt into blocks
PERCENT = (0.1, 0.3, 1.0, 3.0, 10.0)  # of the neurons that go together
SETS = 8  # matched random sets beside each group
HALVES = (0, 1)  # of the blocks: groups are chosen on one and measured on the other


def blocks_of(positions: Positions, rng: np.random.Generator) -> Blocks:
    """Block of each position, its document's."""
    return deal(positions.document, rng=rng).of(positions.document)


def influence_sums(
    values: Float[np.ndarray, "position *some neuron"], positions: Positions, block: Blocks
) -> tuple[Float[np.ndarray, "token_class block *some neuron"], Weights]:
    """Weighted sums over the rare and the common positions of each block, and their weights."""
    sums, weights, n = [], [], int(block.max(initial=0)) + 1
    for stratum in KINDS.values():
        rows = positions.stratum == stratum
        weight = positions.weight[rows]
        sums.append(block_sums(values[rows].astype(np.float64), weight, block[rows], n))
        weights.append(np.bincount(block[rows], weight, n).astype(np.float64))
    return np.stack(sums), np.stack(weights)


def counted_in(positions: Positions, classes: Iterable[int] = (RARE, COMMON)) -> dict[str, int]:
    """Positions and documents of the rarest of the classes, for the gates."""
    of = [positions.stratum == stratum for stratum in classes]
    documents = [np.unique(positions.document[rows]).size for rows in of]
    return {"positions": int(min(rows.sum() for rows in of)), "documents": min(documents)}


def domains_part(source: Source, asked: Measurements | None) -> xr.Dataset:
    """Influence of every neuron on the rare targets of each domain of the corpus.

    Raises `NotTestableError` where the corpus has one domain.
    """
    names, of = np.unique([one.domain for one in source.corpus.documents], return_inverse=True)
    if names.size < 2:
        raise NotTestableError(f"the corpus {source.corpus.name} has one domain, {names[0]}")
    everything, rng = source.everything("corrected"), source.parameters.rng("domains")
    rare, domain = everything.stratum == RARE, of[everything.document]
    chosen = [rng.permutation(np.flatnonzero(rare & (domain == i))) for i in range(names.size)]
    rows = np.sort(np.concatenate([some[:SCORED] for some in chosen]))
    drawn, effects, found = everything[rows], effects_at(source, everything[rows]), []
    for i in range(names.size):
        mine = domain[rows] == i
        some, share = drawn[mine], float(rare[domain == i].mean())
        few = np.unique(some.document).size < FEWEST
        block = np.zeros(len(some), dtype=np.int64) if few else blocks_of(some, rng)
        found.append(summed(effects[mine], some, block, share, (RARE,)))
    return stacked(found, names.tolist())


def influence_part(source: Source, asked: Measurements | None, domain: str = "") -> xr.Dataset:
    """Influence of every neuron, of the whole corpus or of a domain and, beside it, of the others.

    Positions are drawn afresh in either. Raises `NotTestableError` for a domain that is not there.
    """
    domains = np.array([one.domain for one in source.corpus.documents])
    if domain and domain not in domains:
        raise NotTestableError(f"the corpus has no domain {domain!r}")
    found, names = [], [domain, OTHERS] if domain else ["all"]
    for name in names:
        everything, rng = source.everything("corrected"), source.parameters.rng(f"influence {name}")
        if domain:
            everything = everything[(domains[everything.document] == domain) == (name == domain)]
        drawn = draw_stratified(everything, n_per_class=SCORED, n_middle=0, rng=rng)
        effects, share = effects_at(source, drawn), float((everything.stratum == RARE).mean())
        found.append(summed(effects, drawn, blocks_of(drawn, rng), share))
    return stacked(found, names)


def effects_at(source: Source, drawn: Positions) -> Float[np.ndarray, "position neuron"]:
    """Loss change of mean-ablating every neuron, summed over the vocabulary; nats."""
    seen = source.gathered(drawn)
    inputs = seen.resid, seen.post, seen.target, seen.mean
    found = delta_loss(final_head(source.model), *inputs, tolerance=EXACT)
    return found.cpu().numpy()


def summed(
    effects: Float[np.ndarray, "position neuron"],
    drawn: Positions,
    block: Blocks,
    rare_share: float,
    classes: Iterable[int] = (RARE, COMMON),
) -> xr.Dataset:
    """What is kept of the effects on one part of a text."""
    sums, weight = influence_sums(effects, drawn, block)
    data = {"sums": (("token_class", "block", "neuron"), rounded(sums, PRECISE))}
    data["weight"] = (("token_class", "block"), weight)
    counts = {"rare_share": rare_share} | counted_in(drawn, classes)
    return xr.Dataset(data | {name: ((), value) for name, value in counts.items()})


def stacked(found: list[xr.Dataset], names: list[str]) -> xr.Dataset:
    """Parts of a text in one dataset; few documents make fewer blocks, the rest are empty."""
    n = max(one.sizes["block"] for one in found)
    padded = [one.pad(block=(0, n - one.sizes["block"]), constant_values=0) for one in found]
    return xr.concat(padded, "part").assign_attrs(parts=names)


def groups_part(source: Source, asked: Measurements) -> xr.Dataset:
    """Loss change of groups, and the sum of their neurons' single effects, by class and block.

    A group is the neurons with the largest mean effect on a class; set 0 is the group, the others
    are random neurons with its traits.
    """
    effects = asked.part(f"effects: {STRATIFIED}")
    positions = source.positions(STRATIFIED)
    block = blocks_of(positions, source.parameters.rng("blocks of groups"))
    members = np.stack(
        [chosen_on(effects, positions, block % 2 == half, source) for half in HALVES]
    )
    scored = np.flatnonzero(positions.stratum != MIDDLE)
    drawn, block, single = positions[scored], block[scored], effects.delta_loss.values[scored]
    joint = together(source, scored, block % 2, members)
    alone = np.empty_like(joint)
    for half in HALVES:
        rows = block % 2 == half
        for at, group in enumerate(prefixes(members[1 - half])):
            alone[rows, at] = single[rows][:, group].sum(axis=1)
    shape = (2, -1, len(KINDS), 1 + SETS, len(PERCENT))
    wide = ("token_class", "block", "chosen_for", "set", "percent")
    data = {}
    for name, values in (("joint", joint), ("single", alone)):
        sums, weight = influence_sums(values, drawn, block)
        data[name] = (wide, sums.reshape(shape).astype(np.float32))
    data["weight"] = (("token_class", "block"), weight)
    data["members"] = (("half", "chosen_for", "set", "rank"), members.astype(np.int16))
    return xr.Dataset(data, {"percent": list(PERCENT)})


def size_of(percent: float, n_neurons: int) -> int:
    """Neurons in a share of the layer, at least one."""
    return max(1, round(percent / 100 * n_neurons))


def chosen_on(
    effects: xr.Dataset, positions: Positions, half: Bool[np.ndarray, " position"], source: Source
) -> Int[np.ndarray, "chosen_for set rank"]:
    """Top neurons of either class on some positions, first first, and sets like them."""
    delta, post = effects.delta_loss.values, effects.post.values
    most = size_of(PERCENT[-1], delta.shape[1])
    rate = effects.gate_rate.values if "gate_rate" in effects else None
    traits = neuron_traits(post, source.model.W_out.double().cpu().numpy(), rate)
    found = []
    for name, stratum in KINDS.items():
        rows = half & (positions.stratum == stratum)
        mean = positions.weight[rows] @ delta[rows] / positions.weight[rows].sum()
        top = np.argsort(-mean, kind="stable")[:most]
        rng = source.parameters.rng(f"sets like the {name} group")
        sets = draw_controls(top[None], traits, SETS, matched=True, rng=rng)[top].T
        found.append(np.vstack([top, sets]))
    return np.stack(found)


def prefixes(members: Int[np.ndarray, "chosen_for set rank"]) -> list[Int[np.ndarray, " _"]]:
    """Every group: of each class, set and size."""
    n_neurons = round(100 / PERCENT[-1] * members.shape[-1])
    sizes = [size_of(percent, n_neurons) for percent in PERCENT]
    return [one[:size] for of_class in members for one in of_class for size in sizes]


def together(
    source: Source, rows: Blocks, half: Blocks, members: Int[np.ndarray, "half chosen_for set rank"]
) -> Float[np.ndarray, "position group"]:
    """Loss change of every group at some positions of the draw, those it was not chosen on."""
    seen, head = source.seen(STRATIFIED), final_head(source.model)
    joint = np.empty((rows.size, len(prefixes(members[0]))))
    for part in HALVES:
        at = torch.from_numpy(rows[half == part]).to(seen.post.device)
        groups = [torch.from_numpy(g).to(at) for g in prefixes(members[1 - part])]
        found = group_delta_loss(head, *seen.rows(at), seen.mean, groups)
        joint[half == part] = found.double().cpu().numpy()
    return joint
