"""Every run of the page on detectors: planted worlds, null worlds, the graded series.

Each run draws its random numbers for itself, so that any of them can be repeated alone.
"""

import re
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import xarray as xr
from jaxtyping import Float
from tqdm import tqdm

from raretok.ablation.checkpoints import Checkpoints
from raretok.sections.detection import (
    ALIKE,
    DETECTORS,
    KINDS,
    LOOKS_FOR,
    MATCHED,
    NULL_WORLDS,
    SHOWN_WORLDS,
    STRENGTH,
    STRENGTHS,
)
from raretok.stats.groups import Fold
from raretok.worlds.detectors import ASKED, coordination_test, run_modularity
from raretok.worlds.ground import (
    Ground,
    Run,
    matched,
    model_run,
    permuted_run,
    planted_run,
    random_run,
    untrained_run,
)
from raretok.worlds.worlds import modular

N_NULL, N_PLANTED, N_STRENGTH, N_GRADED, N_HALVES = 100, 30, 10, 6, 30
MODULES = (1, 2, 3, 5)  # and as many as there are neurons: fully distributed
CASES = tuple((kind, MATCHED) for kind in KINDS) + NULL_WORLDS + SHOWN_WORLDS

DRAWS: dict[tuple[str, str], Callable[..., Run]] = {
    ("untrained", MATCHED): untrained_run,
    ("random groups", MATCHED): random_run,
    ("permuted labels", ALIKE): lambda ground, rng: permuted_run(ground, True, rng=rng),
    ("permuted labels", MATCHED): lambda ground, rng: permuted_run(ground, False, rng=rng),
    ("the model's plateau group", MATCHED): lambda ground, rng: model_run(ground, False, rng=rng),
    ("the model's plateau group", ALIKE): lambda ground, rng: model_run(ground, True, rng=rng),
}


def run_rng(seed: int, *names: object) -> np.random.Generator:
    """Random numbers of one run."""
    return np.random.default_rng([seed, *" ".join(map(str, names)).encode()])


def case_p(
    ground: Ground, case: tuple[str, str], run: int, seed: int
) -> Float[np.ndarray, " detector"]:
    """The p-value of every detector in one run of one world; NaN where it has nothing to ask."""
    rng = run_rng(seed, *case, run)
    if case in DRAWS:
        drawn = DRAWS[case](ground, rng=rng)
    else:
        drawn = planted_run(ground, case[0], STRENGTH, rng=rng)
    return np.array([detector_p(name, drawn, rng) for name in DETECTORS])


def detector_p(name: str, run: Run, rng: np.random.Generator) -> float:
    asks = name != "plateau" or run.influence is not None
    return ASKED[name](run, rng=rng) if asks else np.nan


def strength_p(ground: Ground, detector: str, strength: float, run: int, seed: int) -> float:
    """The p-value of a detector in one run of its own world, planted at some strength."""
    rng = run_rng(seed, detector, strength, run)
    planted = planted_run(ground, LOOKS_FOR[detector], strength, rng=rng)
    return ASKED[detector](planted, rng=rng)


def graded_run(ground: Ground, n_modules: int, strength: float, *, rng: np.random.Generator) -> Run:
    """Random neurons of the model dealt into modules, on a random half of the documents."""
    group = rng.choice(ground.n_neurons, size=ground.size, replace=False)
    world = modular(ground.trained.mlp, group, n_modules, strength, rng=rng)
    controls = matched(world, group, rng=rng)
    return Run(world, Fold(group, controls, controls, ground.half(rng)), ground.rare)


def places(run: Run, *, rng: np.random.Generator) -> Float[np.ndarray, "group 2"]:
    """Dimensions per neuron, and held-out Q less the controls' mean: the group, its controls."""
    dimension, Q = coordination_test(run), run_modularity(run, rng=rng)
    both = [np.concatenate([[test.value], test.null]) for test in (dimension, Q)]
    return np.stack([both[0] / run.fold.group.size, both[1] - Q.null.mean()], axis=1)


def detector_series(ground: Ground, *, seed: int, kept: Checkpoints) -> xr.Dataset:
    """Every run of the page. Raises `UserError` where the last MLP hears no head.

    What is finished stays in `kept`, so that a killed series goes on.
    """
    graded = graded_worlds(ground)
    series = {f"case {case}": partial(case_runs, ground, case, seed) for case in CASES}
    series |= {f"strength {name}": partial(strength_runs, ground, name, seed) for name in DETECTORS}
    series |= {f"graded {one}": partial(graded_runs, ground, one, seed) for one in graded}
    series["halves"] = partial(half_runs, ground, seed)
    found = {}
    for name, runs in tqdm(series.items(), unit="world", file=sys.stderr, disable=None):
        file = re.sub(r"[^\w.]+", "-", name)
        found[name] = kept.part(file, lambda runs=runs: {"found": runs()})["found"]
    model = found["halves"]
    return xr.Dataset(
        {
            "p": (("case", "detector", "run"), np.stack([found[f"case {case}"] for case in CASES])),
            "strength_p": (
                ("detector", "strength", "repeat"),
                np.stack([found[f"strength {name}"] for name in DETECTORS]),
            ),
            "graded": (
                ("graded_world", "graded_run", "axis"),
                np.stack([found[f"graded {one}"] for one in graded]),
            ),
            "n_modules": ("graded_world", [n for n, _ in graded]),
            "graded_strength": ("graded_world", [strength for _, strength in graded]),
            "model_place": (("half", "axis"), model[:, 0]),
            "control_place": (("control", "axis"), model[:, 1:].reshape(-1, 2)),
            "size": ground.size,
        },
        attrs={"cases": [list(case) for case in CASES]},
    )


def case_runs(
    ground: Ground, case: tuple[str, str], seed: int
) -> Float[np.ndarray, "detector run"]:
    """p-values in all runs of one world; NaN beyond its last run."""
    p = np.full((len(DETECTORS), N_NULL), np.nan)
    for run in range(N_NULL if case in NULL_WORLDS else N_PLANTED):
        p[:, run] = case_p(ground, case, run, seed)
    return p


def strength_runs(ground: Ground, detector: str, seed: int) -> Float[np.ndarray, "strength repeat"]:
    """p-values of a detector in its own world, at every strength."""
    return np.array(
        [
            [strength_p(ground, detector, strength, run, seed) for run in range(N_STRENGTH)]
            for strength in STRENGTHS
        ]
    )


def graded_runs(
    ground: Ground, world: tuple[int, float], seed: int
) -> Float[np.ndarray, "graded_run 2"]:
    """Places of the planted group in one graded world."""
    found = []
    for run in range(N_GRADED):
        rng = run_rng(seed, "graded", *world, run)
        found.append(places(graded_run(ground, *world, rng=rng), rng=rng)[0])
    return np.stack(found)


def half_runs(ground: Ground, seed: int) -> Float[np.ndarray, "half group 2"]:
    """Places of the model's own group and its controls, on many halves of the documents."""
    rngs = [run_rng(seed, "half", run) for run in range(N_HALVES)]
    return np.stack([places(model_run(ground, False, rng=rng), rng=rng) for rng in rngs])


def graded_worlds(ground: Ground) -> list[tuple[int, float]]:
    """Numbers of modules and strengths of the graded series."""
    numbers = sorted({*(n for n in MODULES if n < ground.size), ground.size})
    return [(n, strength) for n in numbers for strength in STRENGTHS]
