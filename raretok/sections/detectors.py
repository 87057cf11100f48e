"""The tests of the other pages as detectors: which of them fires in which world, and how often.

Each detector gives a run (ground.py) a p-value; a cell of the table is the share of runs with
p < 0.05. In planted worlds the group is the planted neurons. In null worlds nothing is there.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest

from raretok.sections.eigenvalues import noise_spectra
from raretok.sections.ground import (
    CONTROLS,
    Ground,
    Run,
    model_run,
    permuted_run,
    planted_run,
    random_run,
    untrained_run,
)
from raretok.sections.knockout import attention_test, unit_of
from raretok.sections.modularity import modularity_test
from raretok.sections.plateau import head_test
from raretok.sections.spectra import spectra_test, weight_rows
from raretok.sections.worlds import KINDS, Kind, World
from raretok.stats import ALPHA, NullTest, null_test

STRENGTH = 0.75  # of the planted effects in the table
PROMISE = 0.05 + 0.03  # share of false alarms that a null world may raise
FOUND = 0.80  # share of runs in which a detector must find what it looks for
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


DETECTORS: dict[str, Callable[..., float]] = {
    "plateau": plateau_p,
    "coordination": coordination_p,
    "modularity": modularity_p,
    "spectra": spectra_p,
    "attention": attention_p,
}
LOOKS_FOR: dict[str, Kind] = dict(zip(DETECTORS, KINDS, strict=True))

MATCHED, ALIKE = "matched neurons", "groups chosen alike"
NULLS: dict[tuple[str, str], Callable[..., Run]] = {
    ("untrained", MATCHED): untrained_run,
    ("random groups", MATCHED): random_run,
    ("permuted labels", ALIKE): lambda ground, rng: permuted_run(ground, True, rng=rng),
}
# No null for matched controls: neurons that matter at all are chosen, whatever the labels say.
SHOWN: dict[tuple[str, str], Callable[..., Run]] = {
    ("permuted labels", MATCHED): lambda ground, rng: permuted_run(ground, False, rng=rng),
    ("the model's plateau group", MATCHED): lambda ground, rng: model_run(ground, False, rng=rng),
    ("the model's plateau group", ALIKE): lambda ground, rng: model_run(ground, True, rng=rng),
}


@dataclass(frozen=True)
class Cell:
    """How often a detector fired in a world."""

    detector: str
    world: str
    controls: str
    n_runs: int
    found: int  # runs with p < 0.05

    @property
    def share(self) -> float:
        return self.found / self.n_runs

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, exact binomial (Clopper and Pearson, 1934)."""
        bounds = binomtest(self.found, self.n_runs).proportion_ci()
        return float(bounds.low), float(bounds.high)

    @property
    def planted(self) -> bool:
        """Whether the world holds what the detector looks for."""
        return LOOKS_FOR[self.detector] == self.world

    @property
    def null(self) -> bool:
        return (self.world, self.controls) in NULLS

    @property
    def kept(self) -> bool | None:
        """Whether the detector keeps its promise here; None where it makes none."""
        if self.planted:
            return self.share >= FOUND
        return self.share <= PROMISE if self.null else None


def detect(
    world: str,
    controls: str,
    runs: Iterable[Run],
    *,
    rng: np.random.Generator,
    only: Iterable[str] = tuple(DETECTORS),
) -> list[Cell]:
    """Give every run to every detector that has something to ask of it."""
    p: dict[str, list[float]] = {name: [] for name in only}
    for run in runs:
        for name, values in p.items():
            if name != "plateau" or run.influence is not None:
                values.append(DETECTORS[name](run, rng=rng))
    return [
        Cell(name, world, controls, len(values), sum(one < ALPHA for one in values))
        for name, values in p.items()
        if values
    ]


def detector_table(
    ground: Ground, *, n_null: int, n_planted: int, rng: np.random.Generator
) -> list[Cell]:
    """Every detector in every world.

    Raises `UserError` where the last MLP hears no head, so that nothing can be fed by one.
    """
    cells: list[Cell] = []
    for kind in KINDS:
        runs = (planted_run(ground, kind, STRENGTH, rng=rng) for _ in range(n_planted))
        cells += detect(kind, MATCHED, runs, rng=rng)
    for worlds, n_runs in ((NULLS, n_null), (SHOWN, n_planted)):
        for (world, controls), draw in worlds.items():
            runs = (draw(ground, rng=rng) for _ in range(n_runs))
            cells += detect(world, controls, runs, rng=rng)
    return cells


def found_by_strength(
    ground: Ground, strengths: Iterable[float], n_runs: int, *, rng: np.random.Generator
) -> dict[str, list[Cell]]:
    """How often each detector finds its own world as the planted effect grows."""
    found: dict[str, list[Cell]] = {}
    for detector, kind in LOOKS_FOR.items():
        for strength in strengths:
            runs = (planted_run(ground, kind, strength, rng=rng) for _ in range(n_runs))
            cells = detect(kind, MATCHED, runs, rng=rng, only=[detector])
            found.setdefault(detector, []).extend(cells)
    return found
