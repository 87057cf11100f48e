"""Figures and tables of the page `regimes`; how often the released detector fires by chance."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes

from raretok.claims.digest import QUIET
from raretok.claims.finding import or_none
from raretok.claims.regimes.curve import bin_means, bin_weights, bins, draw_law, smooth_curve
from raretok.claims.regimes.estimate import HEADS, head_of, lift, rank_curves, under
from raretok.claims.regimes.released import released_plateau
from raretok.claims.sample import KINDS, Sample
from raretok.claims.style import COLOURS, MARKS, PALETTE, points, shade, table, ticks, told
from raretok.stats.jackknife import jackknife
from raretok.text.protocol import PROTOCOLS

Curve = Float[np.ndarray, " rank"]
DASHES = ("-", "--", "-.", ":")
AXES = {"xscale": "log", "yscale": "log", "xlabel": "neuron, by rank"}
INFLUENCE = "influence (nats a token)"


def run_table(study: Any) -> pd.DataFrame:
    """What was scored for each reading, and the largest error the audit found."""
    rows = {name: told(lambda name=name: scored(study, name)) for name in PROTOCOLS}
    return table(rows, "reading")


def scored(study: Any, protocol: str) -> dict[str, str]:
    """Row of a reading."""
    effects = study.effects(protocol)
    stratum = effects.stratum.values
    return {
        "rare by its": PROTOCOLS[protocol].by,
        "rare types": str(study.classes(protocol).rare.sum()),
        **{f"{kind} positions": str((stratum == one).sum()) for kind, one in KINDS.items()},
        "documents": str(np.unique(effects.document).size),
        "largest error, nats": f"{effects.audit_max_error:.0e}",
    }


def binned(values: Curve) -> Curve:
    """Each value replaced by the mean of its log-spaced bin of ranks: single ones up to rank 8."""
    edges = bins(1, values.size + 1) - 1
    return np.repeat(bin_means(values, edges), np.diff(edges).astype(int))


def law_of(sample: Sample, kind: str) -> Float[np.ndarray, " fitted"]:
    """ln of the smooth curve of a class."""
    curves, head = rank_curves(sample, kind), head_of(sample)
    return smooth_curve(curves[0], head, bin_weights(curves, head))


def rank_curve(ax: Axes, sample: Sample, kind: str) -> None:
    """Influence by rank in bins of ranks with its 95 % band."""
    curves = np.array([binned(one) for one in rank_curves(sample, kind)])
    values, rank = curves[0], np.arange(1.0, curves.shape[1] + 1)
    bands = [jackknife(column) for column in curves.T]
    low, high = (np.array([getattr(one, end) for one in bands]) for end in ("low", "high"))
    shown, colour = values > 0, COLOURS[kind]
    ax.plot(rank[shown], values[shown], "o", ms=4, mew=0, color=colour, label="means in bins")
    floor, band = np.nanmin(high[high > 0]) * 1e-3, {"alpha": 0.2, "lw": 0, "label": "95 %"}
    ax.fill_between(rank, np.maximum(low, floor), high, color=colour, **band)


def law(ax: Axes, sample: Sample, kind: str) -> None:
    """The smooth curve: solid where it is fitted, dotted where it is continued upwards."""
    values, head = np.exp(law_of(sample, kind)), head_of(sample)
    rank, style = np.arange(1.0, values.size + 1), {"color": COLOURS["fit"], "lw": 1.8}
    ax.plot(rank[head:], values[head:], "-", label="one smooth curve", **style)
    ax.plot(rank[: head + 1], values[: head + 1], ":", label=f"{QUIET}continued", **style)
    ax.axvspan(0.9, head + 0.5, color="0.93", lw=0, zorder=0, label=f"{QUIET}head")
    ax.text(1.1, 0.04, "head", transform=ax.get_xaxis_transform())
    ax.set(ylabel=INFLUENCE, **AXES)


def lifts(ax: Axes, sample: Sample, spec: Any) -> None:
    """Lift of heads of several sizes over the smooth curve, on the regions of the claim."""
    shares = [100 * share for share in HEADS]
    for i, kind in enumerate(KINDS):
        found = [or_none(lift, sample, kind, share) for share in HEADS]
        x = [share * (0.95 if i else 1.05) for share in shares]
        points(ax, x, found, ms=7, label=f"{kind} targets", **MARKS[kind])
    ax.axhline(1, color="0.3", lw=0.8)
    ax.set(xscale="log", yscale="log", ylim=(0.05, 12), xlabel="head, % of the neurons")
    shade(ax, spec)
    ax.set_ylabel("x the smooth curve")
    ticks(ax.xaxis, shares)
    ticks(ax.yaxis, (0.1, 0.3, 1, 3, 10))


def interventions(ax: Axes, sample: Sample, others: xr.Dataset) -> None:
    """Rank curves on rare targets under every intervention, mean ablation first; in bins."""
    curves = {"mean": rank_curves(sample, "rare")[0]}
    for name in others.interventions:
        curves[name] = rank_curves(under(sample, others, name), "rare")[0]
    for (name, values), style, colour in zip(curves.items(), DASHES, PALETTE, strict=False):
        binned_curve(ax, values, ls=style, color=colour, label=name)


def binned_curve(ax: Axes, values: Curve, **style: Any) -> None:
    """One rank curve, means in bins of ranks; broken where they are not positive."""
    means, rank = binned(values), np.arange(1.0, values.size + 1)
    ax.plot(rank, np.where(means > 0, means, np.nan), lw=1.8, **style)
    ax.set(ylabel=INFLUENCE, **AXES)


def released_rate(sample: Sample, n_draws: int, *, rng: np.random.Generator) -> float:
    """How often the released detector reports a plateau in draws from the fitted smooth law, %."""
    fitted, n = law_of(sample, "rare"), sample.delta_loss.shape[1]
    draws = [np.exp(draw_law(fitted, n, rng=rng)) for _ in range(n_draws)]
    return 100 * float(np.mean([released_plateau(one) is not None for one in draws]))
