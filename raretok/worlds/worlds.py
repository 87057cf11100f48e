"""Planted worlds: the model itself, with a few neurons of its last MLP edited in a known way.

Strengths lie in [0, 1]; at 0 nothing is changed. How a neuron is made to read something else is in
directions.py.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import random_correlation

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import FinalHead
from raretok.errors import UserError
from raretok.sections.detection import KINDS, Kind
from raretok.stats.documents import ratio_mean
from raretok.worlds.directions import head_direction, mixed, random_directions
from raretok.worlds.last_mlp import Branch, LastMLP

MODULES = (2, 3)  # subgroups of a clustered world
TAIL = 1.0  # index of a heavy-tailed spectrum at full strength: eigenvalue ~ 1 / rank


@dataclass(frozen=True)
class World:
    """A copy of the last MLP in which some neurons are edited; all else follows from it."""

    kind: str
    strength: float
    neurons: Int[np.ndarray, " member"]
    base: LastMLP
    branches: tuple[Branch, ...]  # of the edited neurons
    writes: Float[np.ndarray, "member d_model"]  # their rows of W_out

    @cached_property
    def post(self) -> Float[np.ndarray, "position neuron"]:
        post = self.base.post.copy()
        post[:, self.neurons] = self.base.activations(self.base.x, self.branches)
        return post

    @cached_property
    def post_without(self) -> Float[np.ndarray, "head heard neuron"]:
        post = self.base.post_without.copy()
        post[:, :, self.neurons] = self.base.activations(self.base.x_without, self.branches)
        return post

    @cached_property
    def mean_post(self) -> Float[np.ndarray, " neuron"]:
        mean = self.base.mean_post.copy()
        weight = self.base.positions.weight
        mean[self.neurons] = ratio_mean(self.post[:, self.neurons], weight)
        return mean

    @cached_property
    def W_in(self) -> Float[np.ndarray, "neuron d_model"]:
        return with_rows(self.base.W_in, self.neurons, self.branches[-1].weight)

    @cached_property
    def W_out(self) -> Float[np.ndarray, "neuron d_model"]:
        return with_rows(self.base.W_out, self.neurons, self.writes)

    @cached_property
    def resid(self) -> Float[np.ndarray, "position d_model"]:
        """Before the final norm: the edited neurons write something else, the rest the same."""
        before = self.base.post[:, self.neurons] @ self.base.W_out[self.neurons]
        return self.base.resid - before + self.post[:, self.neurons] @ self.writes


def with_rows(
    matrix: Float[np.ndarray, "neuron d_model"],
    neurons: Int[np.ndarray, " member"],
    rows: Float[np.ndarray, "member d_model"],
) -> Float[np.ndarray, "neuron d_model"]:
    """A copy with some rows replaced."""
    copy = matrix.copy()
    copy[neurons] = rows
    return copy


def unchanged(mlp: LastMLP, neurons: Int[np.ndarray, " member"]) -> World:
    """The model as it is."""
    branches = tuple(branch[neurons] for branch in mlp.branches)
    return World("unchanged", 0.0, neurons, mlp, branches, mlp.W_out[neurons])


def plant(
    mlp: LastMLP,
    kind: Kind,
    neurons: Int[np.ndarray, " member"],
    strength: float,
    *,
    rng: np.random.Generator,
    factor: Float[np.ndarray, " member"] | None = None,
) -> World:
    """Edit some neurons of the last MLP in one of the KINDS.

    - `scaled`: rows of W_out times a `factor` each;
    - `correlated`: all read one direction more; `clustered`: two or three subgroups, one each;
    - `heavy-tailed`: rows of both matrices get correlations with the spectrum 1 / rank;
    - `fed by one head`: all read the direction in which one head moves the input most.

    Raises `UserError` for an unknown kind, a strength outside [0, 1] or neurons twice.
    """
    if not 0 <= strength <= 1:
        raise UserError(f"the strength of a planted effect lies in 0..1, got {strength}")
    if np.unique(neurons).size != neurons.size:
        raise UserError(f"a neuron can be edited once, got {sorted(neurons.tolist())}")
    if kind == "scaled":
        return replace(scaled(mlp, neurons, factor, strength), kind=kind)
    if kind == "heavy-tailed":
        return replace(heavy_tailed(mlp, neurons, strength, rng=rng), kind=kind)
    if kind == "fed by one head":
        if not mlp.heads:
            raise UserError("no head writes to what the last MLP reads: nothing can be fed by one")
        u = head_direction(mlp, int(rng.integers(len(mlp.heads))))
        return replace(aligned(mlp, neurons, u[None], strength), kind=kind)
    n_modules = {"correlated": 1, "clustered": int(rng.choice(MODULES))}.get(kind)
    if n_modules is None:
        raise UserError(f"unknown kind of world {kind!r}: choose one of {', '.join(KINDS)}")
    return replace(modular(mlp, neurons, n_modules, strength, rng=rng), kind=kind)


def scaled(
    mlp: LastMLP,
    neurons: Int[np.ndarray, " member"],
    factor: Float[np.ndarray, " member"] | None,
    strength: float,
) -> World:
    """Rows of W_out times a factor each, raised to the power of the strength."""
    if factor is None or factor.shape != neurons.shape:
        raise UserError("a scaled world needs one factor a neuron")
    world = unchanged(mlp, neurons)
    writes = world.writes * (factor[:, None] ** strength).astype(np.float32)
    return replace(world, strength=strength, writes=writes)


def modular(
    mlp: LastMLP,
    neurons: Int[np.ndarray, " member"],
    n_modules: int,
    strength: float,
    *,
    rng: np.random.Generator,
) -> World:
    """Neurons dealt at random into modules of nearly equal size, each with a direction to read.

    1 module: all read one thing. As many as neurons: each reads its own, unrelated to the others.
    Raises `UserError` for a number of modules that the neurons cannot fill.
    """
    if not 1 <= n_modules <= neurons.size:
        raise UserError(f"{neurons.size} neurons make 1 to {neurons.size} modules, not {n_modules}")
    directions = random_directions(mlp, n_modules, rng=rng)
    module = rng.permutation(np.arange(neurons.size) % n_modules)
    world = aligned(mlp, neurons, directions[module], strength)
    return replace(world, kind=f"{n_modules} modules")


def aligned(
    mlp: LastMLP,
    neurons: Int[np.ndarray, " member"],
    directions: Float[np.ndarray, "#member d_model"],
    strength: float,
) -> World:
    """Neurons that read, besides what they read, a direction each."""
    world = unchanged(mlp, neurons)
    branches = tuple(
        replace(branch, weight=mixed(branch.weight, directions, strength, mlp.x))
        for branch in world.branches
    )
    return replace(world, strength=strength, branches=branches)


def heavy_tailed(
    mlp: LastMLP, neurons: Int[np.ndarray, " member"], strength: float, *, rng: np.random.Generator
) -> World:
    """Rows of each weight matrix get one correlation matrix, with a heavy-tailed spectrum."""
    law = np.arange(1, neurons.size + 1) ** (-1 / TAIL)
    wanted = random_correlation.rvs(neurons.size * law / law.sum(), random_state=rng)
    world = unchanged(mlp, neurons)
    branches = tuple(
        replace(branch, weight=recorrelated(branch.weight, wanted, strength))
        for branch in world.branches
    )
    writes = recorrelated(world.writes, wanted, strength)
    return replace(world, strength=strength, branches=branches, writes=writes)


def recorrelated(
    rows: Float[np.ndarray, "member d_model"],
    wanted: Float[np.ndarray, "member member"],
    strength: float,
) -> Float[np.ndarray, "member d_model"]:
    """Rows with the mixture (1 - s) C + s C' as their correlation; each keeps its mean and norm.

    C is their correlation as it is, C' the one wanted. Needs fewer rows than entries.
    """
    if strength == 0:
        return rows
    centre = rows.mean(axis=1, keepdims=True, dtype=np.float64)
    norm = np.linalg.norm(rows - centre, axis=1, keepdims=True)
    unit = (rows - centre) / norm
    found = unit @ unit.T
    mixture = root((1 - strength) * found + strength * wanted)
    return (centre + norm * (mixture @ np.linalg.solve(root(found), unit))).astype(np.float32)


def root(matrix: Float[np.ndarray, "member member"]) -> Float[np.ndarray, "member member"]:
    """The symmetric square root of a positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values)) @ vectors.T


def reborn(mlp: LastMLP, *, rng: np.random.Generator) -> World:
    """Every neuron with fresh Gaussian weights of the size they have: another seed, untrained."""

    def fresh(weights: Float[np.ndarray, "neuron d_model"]) -> Float[np.ndarray, "neuron d_model"]:
        return rng.normal(0, weights.std(), weights.shape).astype(np.float32)

    branches = tuple(replace(branch, weight=fresh(branch.weight)) for branch in mlp.branches)
    everyone = np.arange(len(mlp.W_out))
    return World("reborn", 1.0, everyone, mlp, branches, fresh(mlp.W_out))


def delta_loss_in(
    world: World,
    head: FinalHead,
    rows: Int[np.ndarray, " scored"],
    neurons: Int[np.ndarray, " neuron"] | None = None,
) -> Float[np.ndarray, "scored neuron"]:
    """Loss change of ablating each of these neurons (all) of the edited model, nats.

    `head` is that of the model; its W_out is replaced, and the residual is that of the world.
    """
    arrays = (world.resid[rows], world.post[rows], world.base.positions.target[rows])
    resid, post, target = (torch.from_numpy(array) for array in arrays)
    mean = torch.from_numpy(world.mean_post)
    some = None if neurons is None else torch.from_numpy(neurons)
    head = edited_head(head, world)
    return delta_loss(head, resid, post, target, mean, neurons=some).numpy()


def edited_head(head: FinalHead, world: World) -> FinalHead:
    """What follows the last MLP, with the world's W_out."""
    W_out = torch.from_numpy(world.writes).to(head.W_out)
    if head.centred:
        W_out = W_out - W_out.mean(dim=1, keepdim=True)
    rows, squares = head.W_out.clone(), head.W_out_sq.clone()
    neurons = torch.from_numpy(world.neurons)
    rows[neurons], squares[neurons] = W_out, W_out.square().sum(dim=1)
    return replace(head, W_out=rows, W_out_sq=squares)
