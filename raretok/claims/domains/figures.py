"""Figures and tables of the page `domains`."""

from contextlib import suppress
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from raretok.claims.domains.estimate import CORPUS, TEXTS, Places, Side, shared, with_order
from raretok.claims.style import table
from raretok.errors import NotTestableError, UserError

Matrix = Float[np.ndarray, "chosen measured"]


def listed(places: Places) -> list[Side]:
    """Domains, the whole corpus and the other texts, as far as they were measured."""
    found = []
    texts = (lambda text=text: [places.side(text)] for text in TEXTS)
    for get in (lambda: places.domains, lambda: [places.corpus], *texts):
        with suppress(UserError):  # named where its estimand is
            found += get()
    return found


def compared(places: Places) -> list[Side]:
    """Those that have an order, without the corpus that the domains are of.

    Raises `NotTestableError` where there are no two.
    """
    found = [side for side in with_order(listed(places)) if side.name != CORPUS]
    if len(found) < 2:
        raise NotTestableError("no two domains or texts have enough rare targets to be compared")
    return found


def order_matrix(sides: list[Side]) -> Matrix:
    """Rank correlation over its ceiling of every pair; nothing on the diagonal."""
    found = np.full((len(sides), len(sides)), np.nan)
    for i, j in combinations(range(len(sides)), 2):
        found[i, j] = found[j, i] = shared(sides[i], sides[j])[0]
    return found


def groups(side: Side, size: int, half: int) -> Int[np.ndarray, "split member"]:
    """Most influential neurons on one half of the documents, in every split."""
    return np.argsort(-side.means[half][0], axis=-1, kind="stable")[:, :size]


def transfer(sides: list[Side], size: int) -> Matrix:
    """Influence that the group chosen on one reaches on another, over that of the other's own.

    Groups are chosen on one half of the documents and measured on the other half.
    """
    chosen = [groups(side, size, 0) for side in sides]
    means = [side.means[1][0] for side in sides]
    each = [[np.take_along_axis(one, some, -1).mean() for one in means] for some in chosen]
    own = np.diag(each)
    return each / np.where(own > 0, own, np.nan)


def overlap(sides: list[Side], size: int) -> Matrix:
    """Share of the group in common, each chosen on one half; on the diagonal both of one side."""
    chosen = [[groups(side, size, half) for side in sides] for half in (0, 1)]
    same = [[one[:, :, None] == two[:, None] for two in chosen[1]] for one in chosen[0]]
    return np.sum(same, axis=(3, 4)).mean(axis=2) / size


def heat(ax: Axes, sides: list[Side], values: Matrix, **labels: str) -> None:
    """A matrix with its values written in the cells; cells without one are hatched."""
    names = [side.name for side in sides]
    ax.patch.set(facecolor="0.96", edgecolor="0.8", hatch="///")
    ax.imshow(values, cmap="Blues", norm=Normalize(0, 1), aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = "white" if value > 0.6 else "black"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=ink)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.set(**labels)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def sides_table(places: Places) -> pd.DataFrame:
    """What each domain and text has: positions, documents, base rate and reliability."""
    rows = {
        side.name: {
            "rare positions": str(side.positions),
            "documents with them": str(side.documents),
            "rare targets": f"{100 * side.base_rate:.2f} %",
            "reliability": "too few" if side.gap else f"{side.reliability[0]:.2f}",
        }
        for side in listed(places)
    }
    return table(rows, "text")


def in_common(places: Places, size: int) -> dict[str, str]:
    """How far groups of the domains are the same neurons. Raises `NotTestableError`."""
    sides = with_order(places.domains)
    if len(sides) < 2:
        raise NotTestableError("no two domains have an order of the neurons that repeats")
    shares, other = overlap(sides, size), ~np.eye(len(sides), dtype=bool)
    tops = [np.argsort(-side.sums.sum(axis=0), kind="stable")[:size] for side in sides]
    times = np.unique(tops, return_counts=True)[1]
    return {
        "n_domains": str(len(sides)),
        "in_any": str(times.size),
        "in_all": str((times == len(sides)).sum()),
        "in_one": str((times == 1).sum()),
        "within": f"{100 * np.diag(shares).mean():.0f} %",
        "across": f"{100 * shares[other].mean():.0f} %",
    }
