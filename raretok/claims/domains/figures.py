"""Figures, tables and sentences of the page `domains`."""

from collections.abc import Callable
from contextlib import suppress
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from raretok.claims.digest import QUIET
from raretok.claims.domains.estimate import CORPUS, TEXTS, Places, Side, shared, with_order
from raretok.claims.finding import Finding
from raretok.claims.style import COLOURS, interval_text, points, shade, told
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


def forest(
    ax: Axes,
    by_model: dict[str, list[Finding]],
    estimands: list[str],
    spec: Any,
    counts: Callable[[Finding], bool],
) -> None:
    """Estimates of every model with 95 % intervals, a row each, over the regions that decide.

    Hollow: a finding that does not count, since a gate failed. `spec`: an estimand with regions.
    """
    rows = [(estimand, name) for estimand in estimands for name in by_model]
    found = {(one.estimand, name): one for name, some in by_model.items() for one in some}
    ends = [end for key in rows if (one := found[key].estimate) for end in (one.low, one.high)]
    ends += [end for some in (spec.supports, spec.contradicts) for one in some for end in one]
    reach = np.array([end for end in ends if end is not None])
    ax.set_xlim(reach.min() - 0.1 * np.ptp(reach), reach.max() + 0.1 * np.ptp(reach))
    shade(ax, spec, "x")
    n = len(by_model)
    for row, key in enumerate(rows):
        if (one := found[key].estimate) is None:
            ax.text(ax.get_xlim()[0], row, " none", va="center")
            continue
        colour = COLOURS["common" if row % n else "fit"]
        fill, label = colour if counts(found[key]) else "white", f"{QUIET}{', '.join(key)}"
        points(ax, [row], [one], along="x", mfc=fill, color=colour, ms=7, label=label)
    labels = [name if i % n else f"{estimand}: {name}" for i, (estimand, name) in enumerate(rows)]
    ax.set_yticks(range(len(rows)), labels)
    ax.hlines(np.arange(n, len(rows), n) - 0.5, *ax.get_xlim(), "0.5", lw=0.8)
    ax.set(ylim=(len(rows) - 0.5, -0.5))


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
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("text")


def said(places: Places, findings: list[Finding], size: int) -> dict[str, str]:
    """What the page's sentences name."""
    found = {"size": str(size)}
    for one in findings:
        why = f"not testable here ({one.reason})"
        found[one.estimand.replace(" ", "_")] = interval_text(one.estimate, why=why)
    found["groups"] = told(lambda: group_sentence(places, size))
    return found | {"rates": told(lambda: rates_sentence(places))}


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
    tops = [np.argsort(-side.sums.sum(axis=0), kind="stable")[:size] for side in sides]
    times = np.unique(tops, return_counts=True)[1]
    return (
        f"In all, {times.size} neurons are in the group of at least one of {len(sides)} domains. "
        f"The groups of all these domains share {(times == len(sides)).sum()} of them; only one "
        f"group has {(times == 1).sum()}. Part of the difference is noise: groups chosen on two "
        f"halves of one domain have {100 * own:.0f} % in common, on halves of two domains "
        f"{100 * across:.0f} %."
    )
