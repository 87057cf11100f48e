"""The tests of the other pages as detectors: each gives a run (ground.py) a p-value."""

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int

from raretok.sections.eigenvalues import noise_spectra
from raretok.sections.knockout import attention_test, unit_of
from raretok.sections.modularity import modularity_test
from raretok.sections.plateau import head_test
from raretok.sections.spectra import spectra_test, weight_rows
from raretok.stats.documents import NullTest, null_test
from raretok.worlds.ground import CONTROLS, Run
from raretok.worlds.worlds import World

STILL = 1e-12


def plateau_p(run: Run, *, rng: np.random.Generator) -> float:
    """Is a group set apart at the head of the rank curve?"""
    return head_test(run.influence()).p


def coordination_p(run: Run, *, rng: np.random.Generator) -> float:
    """Do the group's neurons act in fewer dimensions than their controls?"""
    return coordination_test(run).p


def coordination_test(run: Run) -> NullTest:
    groups = np.concatenate([run.fold.group[None], run.fold.controls])
    ratio = participation(run.world.post[run.rare & run.fold.measured], groups)
    return null_test(float(ratio[0]), ratio[1:], "less")


def participation(
    post: Float[np.ndarray, "position neuron"], groups: Int[np.ndarray, "draw member"]
) -> Float[np.ndarray, " draw"]:
    """Participation ratio of each group's correlation matrix: n^2 / sum of r^2."""
    centred = post - post.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=0), STILL)
    r = (unit.T @ unit)[groups[:, :, None], groups[:, None, :]].astype(np.float64)
    return groups.shape[1] ** 2 / (r**2).sum(axis=(1, 2))


def modularity_p(run: Run, *, rng: np.random.Generator) -> float:
    """Do the group's neurons fall into modules more than their controls?"""
    return run_modularity(run, rng=rng).p


def run_modularity(run: Run, *, rng: np.random.Generator) -> NullTest:
    document = run.world.base.positions.document
    return modularity_test(run.world.post, [run.fold], document, rows=run.rare, rng=rng)


def spectra_p(run: Run, *, rng: np.random.Generator) -> float:
    """Is the correlation spectrum of the group's weights more heavy-tailed?"""
    rows = weight_rows(run.world.W_in, run.world.W_out)["both"]
    noise = noise_table(run.fold.group.size, rows.shape[1])
    return spectra_test(rows, [run.fold], noise, run.fold.group.size // 2).p


@cache
def noise_table(size: int, width: int) -> Float[np.ndarray, "draw rank"]:
    """Spectra of Gaussian rows; like a printed table it is the same for every run."""
    return noise_spectra(size, width, CONTROLS, rng=np.random.default_rng([size, width]))


def attention_p(run: Run, *, rng: np.random.Generator) -> float:
    """Does one head move the group more than any head moves its controls?"""
    return attention_test([head_effects(run.world, run.fold.measured)], [run.fold]).p


def head_effects(
    world: World, measured: Bool[np.ndarray, " position"]
) -> Float[np.ndarray, "head neuron"]:
    """Mean size of each neuron's change when one head is silent, in its standard deviation."""
    at = world.base.heard_at
    change = np.abs(world.post[at] - world.post_without)[:, measured[at]]
    return change.mean(axis=1) / unit_of(world.post)


ASKED: dict[str, Callable[..., float]] = {
    "plateau": plateau_p,
    "coordination": coordination_p,
    "modularity": modularity_p,
    "spectra": spectra_p,
    "attention": attention_p,
}
