"""What the page on detectors shows: the table of detectors and worlds, and the graded series."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from raretok.sections.detection import (
    ALIKE,
    DETECTORS,
    FOUND,
    KINDS,
    NULL_WORLDS,
    PROMISE,
    STRENGTH,
    Cell,
    Graded,
)


def by_world(cells: list[Cell]) -> dict[tuple[str, str], dict[str, Cell]]:
    """Cells by world and controls, in the order they were run."""
    worlds: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in cells:
        worlds.setdefault((cell.world, cell.controls), {})[cell.detector] = cell
    return worlds


def map_figure(cells: list[Cell]) -> dict[str, Any]:
    """Arguments of `worlds_figures.detector_map`."""
    worlds = by_world(cells)
    rows = [[row.get(name) for name in DETECTORS] for row in worlds.values()]
    marked = [
        (i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if cell and cell.planted
    ]
    n_planted = sum(world in KINDS for world, _ in worlds)
    return {
        "share": np.array([[cell.share if cell else np.nan for cell in row] for row in rows]),
        "text": [[f"{100 * c.share:.0f} %\n{c.n_runs}" if c else "" for c in row] for row in rows],
        "worlds": [world_label(*world) for world in worlds],
        "detectors": list(DETECTORS),
        "marked": marked,
        "lines": [n_planted, n_planted + len(NULL_WORLDS)],
    }


def world_label(world: str, controls: str) -> str:
    """A world as the figure names it; compared with matched neurons where nothing is said."""
    label = f"planted: {world}" if world in KINDS else world
    return f"{label}\n(groups chosen alike)" if controls == ALIKE else label


def cell_table(cells: list[Cell]) -> pd.DataFrame:
    """Share of runs that each detector fired in, with 95 % intervals."""
    rows = [
        {"world": world, "compared with": controls}
        | {name: cell_text(row[name]) if name in row else "" for name in DETECTORS}
        | {"runs": max(cell.n_runs for cell in row.values())}
        for (world, controls), row in by_world(cells).items()
    ]
    return pd.DataFrame(rows).set_index(["world", "compared with"])


def cell_text(cell: Cell) -> str:
    low, high = (100 * bound for bound in cell.interval)
    return f"{100 * cell.share:.0f} % ({low:.0f} to {high:.0f})"


def promise_table(cells: list[Cell]) -> pd.DataFrame:
    """Whether each detector finds what it looks for and is silent where nothing is."""
    rows = []
    for name in DETECTORS:
        own = next(cell for cell in cells if cell.detector == name and cell.planted)
        nulls = [cell for cell in cells if cell.detector == name and cell.null]
        worst = max(nulls, key=lambda cell: cell.share)
        rows.append(
            {
                "detector": name,
                "its planted world": own.world,
                f"found (at least {100 * FOUND:.0f} %)": "yes" if own.kept else "no",
                "null worlds": len(nulls),
                f"silent in all (at most {100 * PROMISE:.0f} %)": (
                    "yes" if all(cell.kept for cell in nulls) else "no"
                ),
                "worst": f"{worst.world}: {cell_text(worst)}",
            }
        )
    return pd.DataFrame(rows).set_index("detector")


def strength_figure(found: dict[str, list[Cell]], strengths: tuple[float, ...]) -> dict[str, Any]:
    """Arguments of `worlds_figures.strength_curves`."""
    share = {name: np.array([cell.share for cell in cells]) for name, cells in found.items()}
    return {"strength": np.array(strengths), "share": share, "level": FOUND}


def module_name(n_modules: int, size: int) -> str:
    if n_modules == size:
        return "fully distributed"
    return "one module" if n_modules == 1 else f"{n_modules} modules"


def graded_figure(found: Graded) -> dict[str, Any]:
    """Arguments of `worlds_figures.graded_map`."""
    series: dict[str, list[Any]] = {}
    for world in found.worlds:
        series.setdefault(module_name(world.n_modules, found.size), []).append(world.centre)
    drawn = {name: np.stack(points) for name, points in series.items()}
    return {"series": drawn, "model": found.points, "controls": found.controls[::7]}


def graded_table(found: Graded) -> pd.DataFrame:
    """Mean place of each graded world at full strength, and that of the model."""
    rows = {
        module_name(world.n_modules, found.size): place_row(world.points)
        for world in found.worlds
        if world.strength == 1.0
    }
    rows["the model's plateau group"] = place_row(found.points)
    rows["its matched controls"] = place_row(found.controls)
    return pd.DataFrame(rows).T


def place_row(points) -> dict[str, str]:
    names = ("dimensions per neuron", "held-out Q less controls")
    low, high = np.quantile(points, [0.025, 0.975], axis=0)
    middle = points.mean(axis=0)
    return {
        name: f"{middle[i]:.2f} ({low[i]:.2f} to {high[i]:.2f})" for i, name in enumerate(names)
    }


def told(cells: list[Cell], found: Graded) -> dict[str, str]:
    """Numbers of the page's sentences."""
    share = {(c.world, c.controls, c.detector): f"{100 * c.share:.0f}" for c in cells}
    nulls = [cell for cell in cells if cell.null]
    worst = max(nulls, key=lambda cell: cell.share)
    near = Counter((world.n_modules, world.strength) for world in found.nearest())
    (n_modules, strength), count = near.most_common(1)[0]
    low, high = found.interval(0).low, found.interval(0).high
    way, way_low, way_high = (100 * found.way(d) for d in (found.points[:, 0].mean(), low, high))
    nearest = f"{module_name(n_modules, found.size)} at strength {strength:g}"
    numbers = {
        "strength": f"{STRENGTH:g}",
        "n_planted": str(min(c.n_runs for c in cells if c.planted)),
        "n_null": str(min(c.n_runs for c in nulls)),
        "planted_least": f"{100 * min(c.share for c in cells if c.planted):.0f}",
        "null_most": f"{100 * worst.share:.0f}",
        "null_worst": f"{worst.detector}, {worst.world}",
        "nearest": nearest,
        "between": f"the group has gone {way:.0f} % ({way_low:.0f} to {way_high:.0f}) of the way "
        f"in dimensions per neuron; the nearest world is {nearest}",
        "nearest_share": f"{100 * count / len(found.points):.0f}",
        "dimension": f"{found.points[:, 0].mean():.2f}",
        "dimension_low": f"{low:.2f}",
        "dimension_high": f"{high:.2f}",
        "control_dimension": f"{found.controls[:, 0].mean():.2f}",
    }
    for detector in ("coordination", "spectra"):
        for world, name in (("permuted labels", "permuted"), ("the model's plateau group", "own")):
            for controls, kind in (("matched neurons", "matched"), (ALIKE, "alike")):
                numbers[f"{detector}_{name}_{kind}"] = share[world, controls, detector]
    return numbers
