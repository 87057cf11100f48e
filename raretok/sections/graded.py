"""From one module to fully distributed: graded worlds, and where between them the model lies.

A group whose neurons all read one thing is coordinated *and* one module; neurons that each read
something of their own are neither. Between them lie two, three, ... modules, and neurons that only
in part read what their module does. Each world is a point: dimensions per neuron (participation
ratio over n) against how modular it is (held-out Q less that of its controls).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from raretok.groups import Fold
from raretok.sections.detectors import coordination_test, run_modularity
from raretok.sections.ground import Ground, Run, matched, model_run
from raretok.sections.worlds import modular
from raretok.stats import Interval, interval

MODULES = (1, 2, 3, 5)  # and as many as there are neurons: fully distributed
STRENGTHS = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Place:
    """Where a run lies, and where its controls do."""

    dimension: float  # participation ratio a neuron
    modularity: float  # held-out Q less the mean of the controls'
    control_dimension: Float[np.ndarray, " draw"]
    control_modularity: Float[np.ndarray, " draw"]

    @property
    def point(self) -> Float[np.ndarray, " 2"]:
        return np.array([self.dimension, self.modularity])


@dataclass(frozen=True)
class GradedWorld:
    """Places of several runs of one kind of world."""

    n_modules: int
    strength: float
    points: Float[np.ndarray, "run 2"]

    @property
    def centre(self) -> Float[np.ndarray, " 2"]:
        return self.points.mean(axis=0)


@dataclass(frozen=True)
class Graded:
    """The series, and the model's plateau group, each run on another half of the documents."""

    size: int
    worlds: list[GradedWorld]
    model: list[Place]

    @property
    def points(self) -> Float[np.ndarray, "run 2"]:
        return np.stack([place.point for place in self.model])

    @property
    def controls(self) -> Float[np.ndarray, "draw 2"]:
        """Every control group of every run."""
        pairs = [(one.control_dimension, one.control_modularity) for one in self.model]
        return np.concatenate([np.stack(pair, axis=1) for pair in pairs])

    def nearest(self) -> list[GradedWorld]:
        """Of each run of the model the world with the nearest centre, in the controls' sd."""
        centres = np.stack([world.centre for world in self.worlds])
        scale = self.controls.std(axis=0)
        steps = (self.points[:, None] - centres[None]) / scale
        return [self.worlds[i] for i in np.square(steps).sum(axis=2).argmin(axis=1)]

    def way(self, dimension: float) -> float:
        """How far from one module (0) to fully distributed (1), both at full strength."""
        full = {w.n_modules: w.centre[0] for w in self.worlds if w.strength == max(STRENGTHS)}
        return float((dimension - full[1]) / (full[self.size] - full[1]))

    def interval(self, axis: int) -> Interval:
        """95 % of the model's runs: over halves of the documents, and groups chosen on them."""
        return interval(self.points[:, axis])


def place_of(run: Run, *, rng: np.random.Generator) -> Place:
    """Measure one run."""
    size = run.fold.group.size
    dimension, Q = coordination_test(run), run_modularity(run, rng=rng)
    floor = float(Q.null.mean())
    return Place(dimension.value / size, Q.value - floor, dimension.null / size, Q.null - floor)


def graded_run(ground: Ground, n_modules: int, strength: float, *, rng: np.random.Generator) -> Run:
    """Random neurons of the model dealt into modules, on a random half of the documents."""
    group = rng.choice(ground.n_neurons, size=ground.size, replace=False)
    world = modular(ground.trained.mlp, group, n_modules, strength, rng=rng)
    controls = matched(world, group, rng=rng)
    return Run(world, Fold(group, controls, controls, ground.half(rng)), ground.rare)


def find_graded(ground: Ground, *, n_runs: int, rng: np.random.Generator) -> Graded:
    """Measure the whole series `n_runs` times, and the model's group on as many halves, or 30."""
    worlds = []
    for n_modules in sorted({*(n for n in MODULES if n < ground.size), ground.size}):
        for strength in STRENGTHS:
            runs = [graded_run(ground, n_modules, strength, rng=rng) for _ in range(n_runs)]
            points = np.stack([place_of(run, rng=rng).point for run in runs])
            worlds.append(GradedWorld(n_modules, strength, points))
    halves = range(max(30, n_runs))
    model = [place_of(model_run(ground, False, rng=rng), rng=rng) for _ in halves]
    return Graded(ground.size, worlds, model)
