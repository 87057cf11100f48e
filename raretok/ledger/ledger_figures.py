"""Drawing the ledger: claims by protocols, one verdict a cell."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap


@dataclass(frozen=True)
class Cell:
    """How a verdict looks; the lightness alone tells most of them apart, the word all."""

    colour: str
    ink: str
    word: str


CELLS = {
    "reproduced": Cell("#08519c", "white", "✓ reproduced"),
    "weaker": Cell("#9ecae1", "black", "~ weaker"),
    "not reproduced": Cell("#f28e2b", "black", "✗ not reproduced"),
    "artefact of the method": Cell("#fdd0a2", "black", "! artefact"),
    "not testable here": Cell("#ebebeb", "black", "? not testable"),
    "not run": Cell("#ffffff", "0.45", "not run"),
}


def verdict_matrix(
    ax: Axes, verdicts: list[list[str]], *, claims: list[str], protocols: list[str]
) -> None:
    """One row a claim, one column a protocol; colour, sign and word say the verdict."""
    kinds = list(CELLS)
    codes = np.array([[kinds.index(verdict) for verdict in row] for row in verdicts])
    colours = ListedColormap([cell.colour for cell in CELLS.values()])
    ax.imshow(codes, cmap=colours, vmin=0, vmax=len(kinds) - 1, aspect="auto")
    for (row, column), code in np.ndenumerate(codes):
        cell = CELLS[kinds[code]]
        ax.text(column, row, cell.word, color=cell.ink, ha="center", va="center", fontsize=8.5)
    ax.set_xticks(range(len(protocols)), protocols)
    ax.set_yticks(range(len(claims)), claims)
    ax.hlines(np.arange(1, len(claims)) - 0.5, -0.5, len(protocols) - 0.5, color="white", lw=2)
    ax.vlines(np.arange(1, len(protocols)) - 0.5, -0.5, len(claims) - 0.5, color="white", lw=2)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
