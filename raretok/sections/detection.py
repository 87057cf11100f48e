"""The tests of the other pages as detectors: how often each fired in which world, as measured.

Each detector gives a run a p-value; a cell of the table is the share of runs with p < 0.05. In
planted worlds the group is the planted neurons. In null worlds nothing is there. The graded worlds
lead from one module to fully distributed: a group whose neurons all read one thing is coordinated
*and* one module; neurons that each read something of their own are neither. Each is a point:
dimensions per neuron (participation ratio over n) against how modular it is (held-out Q less that
of its controls). raretok/worlds/ makes the worlds.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import binomtest

from raretok.stats.documents import ALPHA, Interval, interval

Kind = Literal["scaled", "correlated", "clustered", "heavy-tailed", "fed by one head"]
KINDS: tuple[Kind, ...] = ("scaled", "correlated", "clustered", "heavy-tailed", "fed by one head")
DETECTORS = ("plateau", "coordination", "modularity", "spectra", "attention")
LOOKS_FOR: dict[str, Kind] = dict(zip(DETECTORS, KINDS, strict=True))
MATCHED, ALIKE = "matched neurons", "groups chosen alike"
NULL_WORLDS = (("untrained", MATCHED), ("random groups", MATCHED), ("permuted labels", ALIKE))
# No null for matched controls: neurons that matter at all are chosen, whatever the labels say.
SHOWN_WORLDS = (
    ("permuted labels", MATCHED),
    ("the model's plateau group", MATCHED),
    ("the model's plateau group", ALIKE),
)
STRENGTH = 0.75  # of the planted effects in the table
STRENGTHS = (0.25, 0.5, 0.75, 1.0)  # of the series
PROMISE = 0.05 + 0.03  # share of false alarms that a null world may raise
FOUND = 0.80  # share of runs in which a detector must find what it looks for


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
        return (self.world, self.controls) in NULL_WORLDS

    @property
    def kept(self) -> bool | None:
        """Whether the detector keeps its promise here; None where it makes none."""
        if self.planted:
            return self.share >= FOUND
        return self.share <= PROMISE if self.null else None


def count(detector: str, world: str, controls: str, p: Float[np.ndarray, " run"]) -> Cell:
    """A cell from the p-values of its runs; NaN where a run had nothing to ask the detector."""
    tried = p[np.isfinite(p)]
    return Cell(detector, world, controls, tried.size, int((tried < ALPHA).sum()))


def table_cells(data: xr.Dataset) -> list[Cell]:
    """Every detector in every world, from the part `detectors` of a measurement."""
    return [
        count(detector, world, controls, data.p.values[i, j])
        for i, (world, controls) in enumerate(data.cases)
        for j, detector in enumerate(DETECTORS)
        if np.isfinite(data.p.values[i, j]).any()
    ]


def strength_cells(data: xr.Dataset) -> dict[str, list[Cell]]:
    """How often each detector finds its own world as the planted effect grows."""
    return {
        detector: [count(detector, kind, MATCHED, p) for p in data.strength_p.values[i]]
        for i, (detector, kind) in enumerate(LOOKS_FOR.items())
    }


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
    points: Float[np.ndarray, "run 2"]  # of the model's group
    controls: Float[np.ndarray, "draw 2"]  # every control group of every run

    @classmethod
    def of(cls, data: xr.Dataset) -> "Graded":
        """From the part `detectors` of a measurement."""
        labels = zip(data.n_modules.values, data.graded_strength.values, strict=True)
        worlds = [
            GradedWorld(int(n), float(strength), points)
            for (n, strength), points in zip(labels, data.graded.values, strict=True)
        ]
        return cls(int(data.size), worlds, data.model_place.values, data.control_place.values)

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
