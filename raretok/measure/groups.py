"""What ablating many neurons together does: the top ones of either class, and sets like them."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int

from raretok.ablation.head import final_head
from raretok.ablation.split import group_delta_loss
from raretok.measure.find import Measurements
from raretok.measure.influence import Blocks, blocks_of, influence_sums
from raretok.measure.source import STRATIFIED, Source
from raretok.stats.matching import draw_controls, neuron_traits
from raretok.text.rarity import KINDS, MIDDLE, Positions

PERCENT = (0.1, 0.3, 1.0, 3.0, 10.0)  # of the neurons that go together
SETS = 8  # matched random sets beside each group
HALVES = (0, 1)  # of the blocks: groups are chosen on one and measured on the other


def groups_part(source: Source, asked: Measurements) -> xr.Dataset:
    """Loss change of groups, and the sum of their neurons' single effects, by class and block.

    A group is the neurons with the largest mean effect on a class; set 0 is the group, the others
    are random neurons with its traits.
    """
    effects = asked.part(f"effects: {STRATIFIED}")
    positions = source.positions(STRATIFIED)
    block = blocks_of(positions, source.rng("blocks of groups"))
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
        rng = source.rng(f"sets like the {name} group")
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
    seen, head, found = source.seen(STRATIFIED), final_head(source.model), []
    for part in HALVES:
        at = torch.from_numpy(rows[half == part]).to(seen.post.device)
        groups = [torch.from_numpy(g).to(at) for g in prefixes(members[1 - part])]
        found.append(group_delta_loss(head, *seen.rows(at), seen.mean, groups))
    joint = np.empty((rows.size, found[0].shape[1]))
    for part, values in zip(HALVES, found, strict=True):
        joint[half == part] = values.double().cpu().numpy()
    return joint
