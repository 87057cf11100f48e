"""Where worlds are planted and which group is looked at in them: one random *run* after another."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from raretok.ablation.head import FinalHead, final_head
from raretok.models.adapter import LanguageModel
from raretok.sections.detection import Kind
from raretok.stats.documents import document_halves, permute_within
from raretok.stats.groups import Draws, Fold, control_groups, neuron_traits
from raretok.text.corpus import Contexts
from raretok.text.rarity import COMMON, RARE, Positions
from raretok.worlds.last_mlp import LastMLP, read_last_mlp
from raretok.worlds.worlds import World, delta_loss_in, plant, reborn, unchanged

CONTROLS = 199  # groups a run; the smallest p-value is then 0.005
RARE_POSITIONS = 400  # that worlds are measured on, or all there are
HEARD_CONTEXTS = 24  # that are run again without each head
SCORED = 32  # rare positions of each half that a run measures influence on
POOL = 10  # times as many neurons, the most influential, a plateau is raised from
LEVEL = 3.0  # of a planted plateau, over the most influential other neuron


@dataclass(frozen=True)
class Side:
    """One of two models, read at the positions of a ground."""

    mlp: LastMLP
    head: FinalHead
    delta_loss: Float[np.ndarray, "position neuron"]  # nats

    def influence(self, rows: Int[np.ndarray, " scored"]) -> Float[np.ndarray, " neuron"]:
        """Mean loss change at rare positions, nats; rare positions all weigh the same."""
        return self.delta_loss[rows].mean(axis=0, dtype=np.float64)


@dataclass(frozen=True)
class Ground:
    """What worlds are planted in: the model and its untrained twin at the same positions."""

    trained: Side
    untrained: Side
    size: int  # neurons in a group

    @property
    def positions(self) -> Positions:
        return self.trained.mlp.positions

    @property
    def n_neurons(self) -> int:
        return self.trained.mlp.post.shape[1]

    @cached_property
    def rare(self) -> Bool[np.ndarray, " position"]:
        return self.positions.stratum == RARE

    def half(self, rng: np.random.Generator) -> Bool[np.ndarray, " position"]:
        """A random half of the documents."""
        return document_halves(self.positions.document, rng=rng)

    def some_rare(
        self, where: Bool[np.ndarray, " position"], rng: np.random.Generator
    ) -> Int[np.ndarray, " scored"]:
        """A few rare positions to measure influence on."""
        return np.sort(rng.permutation(np.flatnonzero(self.rare & where))[:SCORED])


def find_ground(
    models: tuple[LanguageModel, LanguageModel],
    effects: tuple[xr.Dataset, xr.Dataset],
    contexts: Contexts,
    *,
    size: int,
    n_rare: int = RARE_POSITIONS,
    rng: np.random.Generator,
) -> Ground:
    """Read the model and its twin at positions of their runs, in contexts with `n_rare` rare ones.

    Both runs are of the same positions.
    """
    labels = Positions.of(effects[0])
    order = rng.permutation(np.unique(labels.context))
    rare = np.bincount(labels.context[labels.stratum == RARE], minlength=order.max() + 1)
    enough = int(np.searchsorted(np.cumsum(rare[order]), n_rare)) + 1
    chosen = np.flatnonzero(np.isin(labels.context, order[:enough]))
    sides = [
        Side(
            read_last_mlp(model, contexts, labels[chosen], HEARD_CONTEXTS),
            final_head(model),
            run.delta_loss.values[chosen],
        )
        for model, run in zip(models, effects, strict=True)
    ]
    return Ground(*sides, size)


@dataclass(frozen=True)
class Run:
    """One world, and the group that is looked at in it."""

    world: World
    fold: Fold
    rare: Bool[np.ndarray, " position"]  # positions counted as rare
    # Influence of every neuron, nats; None in worlds that are no null for the shape of its curve.
    influence: Callable[[], Float[np.ndarray, " neuron"]] | None = field(default=None)


def matched(
    world: World, group: Int[np.ndarray, " member"], *, rng: np.random.Generator
) -> Int[np.ndarray, "draw member"]:
    """Control groups like the group in what its neurons do in this world."""
    traits = neuron_traits(world.post, np.linalg.norm(world.W_out, axis=1))
    return control_groups(traits, group, True, Draws(CONTROLS, [group], rng))


def planted_run(ground: Ground, kind: Kind, strength: float, *, rng: np.random.Generator) -> Run:
    """Random neurons edited, on a random half of the documents.

    A plateau is planted in the untrained twin, where influence grows in proportion to W_out. A
    trained model does not gain from more of a neuron than it has, so none can be raised there.
    """
    half = ground.half(rng)
    rows = ground.some_rare(half, rng)
    if kind != "scaled":  # nothing is to be found in the curve, and a trained model costs more
        rows = rows[::2]
    side = ground.untrained if kind == "scaled" else ground.trained
    factor = None
    pool = np.arange(ground.n_neurons)
    if kind == "scaled":
        influence = side.influence(rows)
        pool = np.argsort(-influence)[: POOL * ground.size]
    group = rng.choice(pool, size=ground.size, replace=False)
    if kind == "scaled":
        factor = LEVEL * influence.max() / influence[group]
    world = plant(side.mlp, kind, group, strength, rng=rng, factor=factor)
    controls = matched(world, group, rng=rng)
    fold = Fold(group, controls, controls, half)
    return Run(world, fold, ground.rare, lambda: measured(world, side.head, rows))


def measured(
    world: World, head: FinalHead, rows: Int[np.ndarray, " scored"]
) -> Float[np.ndarray, " neuron"]:
    """Influence in a world at some rare positions, nats."""
    return delta_loss_in(world, head, rows).mean(axis=0, dtype=np.float64)


def untrained_run(ground: Ground, *, rng: np.random.Generator) -> Run:
    """An untrained last MLP of its own seed: top neurons of one half, looked at on the other."""
    world = reborn(ground.untrained.mlp, rng=rng)
    half = ground.half(rng)
    first, second = (
        delta_loss_in(world, ground.untrained.head, ground.some_rare(part, rng))
        for part in (half, ~half)
    )
    group = strongest(first.mean(axis=0)[None], ground.size)[0]
    both = np.concatenate([first, second]).mean(axis=0, dtype=np.float64)
    controls = matched(world, group, rng=rng)
    return Run(world, Fold(group, controls, controls, ~half), ground.rare, lambda: both)


def random_run(ground: Ground, *, rng: np.random.Generator) -> Run:
    """Random neurons of the trained model in place of the plateau group."""
    group = rng.choice(ground.n_neurons, size=ground.size, replace=False)
    world = unchanged(ground.trained.mlp, group)
    controls = matched(world, group, rng=rng)
    return Run(world, Fold(group, controls, controls, ground.half(rng)), ground.rare)


def permuted_run(ground: Ground, alike: bool, *, rng: np.random.Generator) -> Run:
    """Labels permuted within documents: the neurons that then seem to matter to rare targets.

    Against matched controls, or (`alike`) against groups chosen just so under other permutations.
    """
    half = ground.half(rng)
    labels = permuted_rare(ground, CONTROLS + 1, rng=rng)
    return chosen_run(ground, labels[0], half, labels[1:] if alike else None, rng=rng)


def model_run(ground: Ground, alike: bool, *, rng: np.random.Generator) -> Run:
    """No null: the model's own plateau group, chosen on one half and looked at on the other."""
    half = ground.half(rng)
    others = permuted_rare(ground, CONTROLS, rng=rng) if alike else None
    return chosen_run(ground, ground.rare, half, others, rng=rng)


def chosen_run(
    ground: Ground,
    rare: Bool[np.ndarray, " position"],
    half: Bool[np.ndarray, " position"],
    others: Bool[np.ndarray, "draw position"] | None,
    *,
    rng: np.random.Generator,
) -> Run:
    """The group that is most influential at some positions of a half, with its controls."""
    group = influential(ground, rare[None], half)[0]
    world = unchanged(ground.trained.mlp, group)
    controls = matched(world, group, rng=rng)
    if others is not None:
        controls = influential(ground, others, half)
    return Run(world, Fold(group, controls, controls, ~half), rare)


def permuted_rare(
    ground: Ground, n: int, *, rng: np.random.Generator
) -> Bool[np.ndarray, "draw position"]:
    """Which positions count as rare once rare and common are exchanged within documents."""
    positions = ground.positions
    either = np.flatnonzero(np.isin(positions.stratum, (RARE, COMMON)))
    labels = np.zeros((n, len(positions)), dtype=bool)
    for draw in labels:
        order = permute_within(positions.document[either], rng=rng)
        draw[either] = ground.rare[either[order]]
    return labels


def influential(
    ground: Ground, rare: Bool[np.ndarray, "draw position"], half: Bool[np.ndarray, " position"]
) -> Int[np.ndarray, "draw member"]:
    """The most influential neurons at the rare positions of a half, for each way to label them."""
    weight = (rare & half).astype(np.float32)
    return strongest(weight @ ground.trained.delta_loss, ground.size)


def strongest(
    influence: Float[np.ndarray, "draw neuron"], size: int
) -> Int[np.ndarray, "draw member"]:
    return np.argsort(-influence, axis=1, kind="stable")[:, :size]
