"""Does the head test keep its promises? False alarms on smooth laws, heads planted and found."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from raretok.sections.plateau import HEAD, head_null, judge_heads, scan_heads, table_size

Draw = Callable[[np.random.Generator, tuple[int, int]], Float[np.ndarray, "draw neuron"]]

# The promise (at most 5 % false alarms) is made for these ...
SMOOTH: dict[str, Draw] = {
    "power law 0.3": lambda rng, shape: rng.random(shape) ** -0.3,
    "power law 0.5": lambda rng, shape: rng.random(shape) ** -0.5,
    "power law 1.0": lambda rng, shape: rng.random(shape) ** -1.0,
    "half-normal": lambda rng, shape: np.abs(rng.normal(size=shape)),
    "Laplace": lambda rng, shape: rng.exponential(size=shape),
    "log-normal": lambda rng, shape: rng.lognormal(size=shape),
}
# ... and its limits are shown on these.
OTHER: dict[str, Draw] = {
    "gamma 0.5": lambda rng, shape: rng.gamma(0.5, size=shape),
    "Student t, 3": lambda rng, shape: np.abs(rng.standard_t(3, size=shape)),
    "Student t, 5": lambda rng, shape: np.abs(rng.standard_t(5, size=shape)),
    "Cauchy": lambda rng, shape: np.abs(rng.standard_cauchy(size=shape)),
    "Weibull 0.5": lambda rng, shape: rng.weibull(0.5, size=shape),
    "Pareto II, 1/3": lambda rng, shape: rng.pareto(3, size=shape),
    "Pareto II, 1": lambda rng, shape: rng.pareto(1, size=shape),
    "normal, log-normal scale": lambda rng, shape: (
        np.abs(rng.normal(size=shape)) * rng.lognormal(0, 0.5, size=shape)
    ),
    "exponential, 20 % x 3": lambda rng, shape: (
        rng.exponential(size=shape) * np.where(rng.random(shape) < 0.2, 3, 1)
    ),
    "normal, 10 % x 3": lambda rng, shape: (
        np.abs(rng.normal(size=shape)) * np.where(rng.random(shape) < 0.1, 3, 1)
    ),
    "uniform (bounded)": lambda rng, shape: rng.random(shape),
}

Plant = Literal["mean", "minimum", "maximum", "x 3", "mean +- 10 %", "random x 10"]
PLANTS: tuple[Plant, ...] = ("mean", "minimum", "maximum", "x 3", "mean +- 10 %", "random x 10")


@dataclass(frozen=True)
class CalibrationRow:
    law: str
    planted: str  # "" for none
    found: float  # share of samples with p <= alpha
    flat: float
    excess: float
    steep: float
    size_within: float  # share of samples whose size is within a factor 1.5 of the planted one
    n_samples: int


def plant_head(
    values: Float[np.ndarray, "draw neuron"], plant: Plant, *, rng: np.random.Generator
) -> Float[np.ndarray, "draw neuron"]:
    """Give 1 % of the neurons a common value (of the top 1 %), or multiply them.

    "x 3" multiplies the top 1 %, which leaves a gap below; "random x 10" takes any 1 %, so the
    head overlaps with the rest.
    """
    head = max(2, round(HEAD * values.shape[1]))
    if plant == "random x 10":
        return np.concatenate([10 * values[:, :head], values[:, head:]], axis=1)
    values = -np.sort(-values, axis=1)
    top = values[:, :head]
    planted = {
        "mean": top.mean(axis=1, keepdims=True),
        "minimum": top.min(axis=1, keepdims=True),
        "maximum": top.max(axis=1, keepdims=True),
        "x 3": 3 * top,
        "mean +- 10 %": top.mean(axis=1, keepdims=True) * rng.lognormal(0, 0.1, top.shape),
    }[plant]
    return np.concatenate([np.broadcast_to(planted, top.shape), values[:, head:]], axis=1)


def calibration_row(
    law: str, values: Float[np.ndarray, "draw neuron"], planted: str = "", alpha: float = 0.05
) -> CalibrationRow:
    """Judge every sample (row) of positive values at once."""
    n = values.shape[1]
    log_values = np.log(-np.sort(-values, axis=1))
    judged = judge_heads(scan_heads(log_values, n), head_null(table_size(n)))
    head = max(2, round(HEAD * n))
    within = (judged.size <= 1.5 * head) & (judged.size >= head / 1.5)
    shares = (judged.p <= alpha, judged.p_flat <= alpha, judged.p_excess <= alpha)
    return CalibrationRow(
        law,
        planted,
        *(float(share.mean()) for share in shares),
        steep=float((judged.p_steep <= alpha).mean()),
        size_within=float(within.mean()),
        n_samples=values.shape[0],
    )


def calibration_table(
    n_samples: int = 200, n: int = 1024, *, rng: np.random.Generator
) -> list[CalibrationRow]:
    """False alarms on every law, then detection of each planted head on each promised law."""
    shape = (n_samples, n)
    rows = [calibration_row(law, draw(rng, shape)) for law, draw in (SMOOTH | OTHER).items()]
    for law, draw in SMOOTH.items():
        for plant in PLANTS:
            values = plant_head(draw(rng, shape), plant, rng=rng)
            rows.append(calibration_row(law, values, plant))
    return rows
