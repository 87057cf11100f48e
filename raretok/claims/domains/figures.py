"""Figures, tables and sentences of the page `domains`."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from raretok.claims.domains.estimate import CORPUS, TEXTS, Places, Side, shared, with_order
from raretok.claims.finding import Finding
from raretok.claims.style import COLOURS, told
from raretok.errors import NotTestableError, UserError
from raretok.stats.jackknife import Estimate

Matrix = Float[np.ndarray, "chosen measured"]
Region = tuple[float | None, float | None]


def listed(places: Places) -> list[Side]:
    """Domains, the whole corpus and the other texts, as far as they were measured."""
    found = []
    texts = (lambda text=text: [places.side(text)] for text in TEXTS)
    for get in (lambda: places.domains, lambda: [places.corpus], *texts):
        try:
            found += get()
        except UserError:  # named where its estimand is
            continue
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
    found = np.full((len(sides), len(sides)), np.nan)
    for i, j in np.ndindex(found.shape):
        own, other = (
            np.take_along_axis(sides[j].means[1][0], groups(sides[k], size, 0), axis=-1).mean()
            for k in (j, i)
        )
        found[i, j] = other / own if own > 0 else np.nan
    return found


def overlap(sides: list[Side], size: int) -> Matrix:
    """Share of the group in common, each chosen on one half; on the diagonal both of one side."""
    found = np.zeros((len(sides), len(sides)))
    for i, j in np.ndindex(found.shape):
        one, two = groups(sides[i], size, 0), groups(sides[j], size, 1)
        found[i, j] = (one[:, :, None] == two[:, None]).sum(axis=(1, 2)).mean() / size
    return found


def heat(ax: Axes, sides: list[Side], values: Matrix, **labels: str) -> None:
    """A matrix with its values written in the cells; cells without one are hatched."""
    names = [side.name for side in sides]
    ax.patch.set(facecolor="0.96", edgecolor="0.8", hatch="///")
    ax.imshow(values, cmap="Blues", norm=Normalize(0, 1), aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = "white" if value > 0.6 else "black"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=9)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.set(**labels)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def forest(
    ax: Axes,
    by_model: dict[str, list[Finding]],
    estimands: list[str],
    regions: dict[str, list[Region]],
    counts: Callable[[Finding], bool],
) -> None:
    """Estimates of every model with 95 % intervals, a row each, over the regions that decide.

    Hollow: a finding that does not count, since a gate failed.
    """
    rows = [(estimand, name) for estimand in estimands for name in by_model]
    found = {(one.estimand, name): one for name, some in by_model.items() for one in some}
    shade(ax, regions, [found[key].estimate for key in rows])
    for row, key in enumerate(rows):
        if (one := found[key].estimate) is None:
            ax.text(ax.get_xlim()[0], row, " none", va="center", color="0.4", fontsize=9)
            continue
        colour = COLOURS["common" if row % len(by_model) else "fit"]
        fill = colour if counts(found[key]) else "white"
        ax.plot([one.low, one.high], [row, row], color=colour, lw=1.4)
        ax.plot(one.value, row, "o", mfc=fill, color=colour, ms=6)
    first = next(iter(by_model))
    labels = [f"{estimand}: {name}" if name == first else name for estimand, name in rows]
    ax.set_yticks(range(len(rows)), labels)
    ax.hlines(
        np.arange(len(by_model), len(rows), len(by_model)) - 0.5, *ax.get_xlim(), "0.8", lw=0.8
    )
    ax.set(ylim=(len(rows) - 0.5, -0.5))


def shade(ax: Axes, regions: dict[str, list[Region]], found: list[Estimate | None]) -> None:
    """Regions that support and that contradict, as far as bounds and intervals reach."""
    points = [b for some in regions.values() for one in some for b in one if b is not None]
    points += [end for one in found if one for end in (one.low, one.high)]
    margin = 0.1 * (max(points) - min(points))
    low, high = min(points) - margin, max(points) + margin
    for kind, some in regions.items():
        for start, stop in some:
            start, stop = low if start is None else start, high if stop is None else stop
            ax.axvspan(start, stop, color=COLOURS[kind], lw=0, zorder=0)
    ax.set(xlim=(low, high))


def sides_table(places: Places) -> pd.DataFrame:
    """What each domain and text has: positions, documents, base rate and reliability."""
    rows = [
        {
            "text": side.name,
            "rare positions": str(side.positions),
            "documents with them": str(side.documents),
            "rare targets": f"{100 * side.base_rate:.2f} %",
            "reliability": "too few" if side.gap else f"{side.reliability[0]:.2f}",
        }
        for side in listed(places)
    ]
    return pd.DataFrame(rows).set_index("text")


def of_one(found: Finding) -> str:
    """Value and interval, or why there is none."""
    if (one := found.estimate) is None:
        return f"not testable here ({found.reason})"
    return f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})"


def said(places: Places, findings: list[Finding], size: int) -> dict[str, str]:
    """What the page's sentences name."""
    return {
        **{one.estimand.replace(" ", "_"): of_one(one) for one in findings},
        "size": str(size),
        "groups": told(lambda: group_sentence(places, size)),
        "rates": told(lambda: rates_sentence(places)),
    }


def rates_sentence(places: Places) -> str:
    """How many targets of the domain are rare for either model."""
    never, seen = (100 * side.base_rate for side in places.models[::2])
    return (
        f"Of the targets in mathematics {never:.1f} % are rare for the model that never saw it, "
        f"{seen:.1f} % for the other."
    )


def group_sentence(places: Places, size: int) -> str:
    """How far groups chosen on domains overlap, and how far halves of one domain do."""
    sides = with_order(places.domains)
    if len(sides) < 2:
        raise NotTestableError("no two domains have an order of the neurons that repeats")
    shares = overlap(sides, size)
    own, across = np.diag(shares).mean(), shares[~np.eye(len(sides), dtype=bool)].mean()
    tops = [set(np.argsort(-side.sums.sum(axis=0), kind="stable")[:size]) for side in sides]
    union, every = set.union(*tops), set.intersection(*tops)
    alone = sum(sum(one in top for top in tops) == 1 for one in union)
    return (
        f"Of {len(union)} neurons that are in the group of {size} of at least one of {len(sides)} "
        f"domains, {len(every)} are in the group of every one and {alone} in that of one alone. "
        f"Part of that is noise: groups chosen on two halves of one domain have {100 * own:.0f} % "
        f"in common, on halves of two domains {100 * across:.0f} %."
    )
