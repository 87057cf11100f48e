"""Figures and tables of the page `dynamics`."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from raretok.claims.dynamics.estimate import CHOICES, QUANTITIES, UNGROUPED, History
from raretok.claims.style import COLOURS, points, table, ticks

LIFTS = (0.05, 50)  # shown of a lift
MARKS = {CHOICES[0]: ("o", "-", COLOURS["rare"]), CHOICES[1]: ("s", "--", COLOURS["fit"])}


def course(ax: Axes, found: History, name: str) -> None:
    """One quantity over the steps of the training, with 95 % intervals."""
    for i, (choice, estimates) in enumerate(found.found[name].items()):
        shape, dash, colour = MARKS[choice]
        x = [beside(step, i) for step in found.steps]
        points(ax, x, estimates, ls=dash, marker=shape, ms=5, lw=1.4, color=colour, label=choice)
    ax.set_xscale("symlog", linthresh=10)
    last = found.steps[-1]
    shown = [step for step in found.steps if step in (0, 16, 128, 1024) and step <= last / 8]
    if name in UNGROUPED:  # of few neurons: its intervals span decades
        ax.set(yscale="log", ylim=LIFTS)
        ticks(ax.yaxis, (0.1, 1, 10))
        ax.axhline(1, color="0.3", lw=0.8)
    ticks(ax.xaxis, (*shown, last), "{:,}")
    ax.set(title=name, xlabel="step", ylabel=QUANTITIES[name][0])


def beside(step: int, series: int) -> float:
    """A little to the right for the second series, so that both intervals are seen."""
    return step * (1 + 0.12 * series) + 0.8 * series * (step < 10)


def course_table(found: History, choice: str) -> pd.DataFrame:
    """Every quantity at every step for one choice of the group."""
    rows: dict[int, Any] = {step: f"gap: {why}" for step, why in found.gaps.items()}
    for i, step in enumerate(found.steps):
        each = {name: by.get(choice, by[CHOICES[1]])[i] for name, by in found.found.items()}
        rows[step] = {name: one or "" for name, one in each.items()}
    return table(dict(sorted(rows.items())), "step")
