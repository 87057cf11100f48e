"""What the page `regimes` shows beside its estimands."""

from functools import partial

import numpy as np
import xarray as xr
from jaxtyping import Float

from raretok.claims.finding import or_none
from raretok.claims.regimes.curve import bin_weights, draw_law, smooth_curve
from raretok.claims.regimes.estimate import HEADS, head_of, intervention_curves, lift, rank_curves
from raretok.claims.regimes.released import released_detector
from raretok.claims.sample import KINDS, Sample
from raretok.stats.jackknife import Estimate, jackknife

PER_DECADE = 8


def curve_figure(sample: Sample, kind: str) -> dict[str, Float[np.ndarray, " rank"]]:
    """A rank curve and its 95 % band, as arguments of `figures.rank_curve`; means in bins."""
    curves = np.array([binned(one) for one in rank_curves(sample, kind)])
    bands = [jackknife(column) for column in curves.T]
    low, high = (np.array([getattr(one, end) for one in bands]) for end in ("low", "high"))
    return {"values": curves[0], "low": low, "high": high}


def binned(values: Float[np.ndarray, " rank"]) -> Float[np.ndarray, " rank"]:
    """Each value replaced by the mean of its log-spaced bin of ranks: single ones up to rank 8."""
    n = values.size
    edges = np.unique(np.round(np.geomspace(1, n + 1, round(PER_DECADE * np.log10(n + 1)) + 1)))
    at = edges.astype(int) - 1
    count = np.diff(at)
    return np.repeat(np.add.reduceat(values, at[:-1]) / count, count)


def law_figure(sample: Sample, kind: str) -> Float[np.ndarray, " fitted"]:
    """The smooth curve of a class, nats."""
    curves, head = rank_curves(sample, kind), head_of(sample)
    return np.exp(smooth_curve(curves[0], head, bin_weights(curves, head)))


def lifts_by_head(sample: Sample) -> dict[str, list[Estimate | None]]:
    """R1's estimand for heads of several sizes; None where it cannot be had."""

    return {
        kind: [or_none(partial(lift, sample, kind, share)) for share in HEADS] for kind in KINDS
    }


def intervened(sample: Sample, others: xr.Dataset) -> dict[str, Float[np.ndarray, " rank"]]:
    """Rank curves on rare targets under every intervention, mean ablation first; in bins."""
    curves = {"mean": rank_curves(sample, "rare")[0]}
    for name in others.interventions:
        curves[name] = intervention_curves(sample, others, name, "rare")[0]
    return {name: binned(one) for name, one in curves.items()}


def released_rate(sample: Sample, n_draws: int, *, rng: np.random.Generator) -> float:
    """How often the released detector reports a plateau in draws from the fitted smooth law, %."""
    fitted, n = np.log(law_figure(sample, "rare")), sample.delta_loss.shape[1]
    draws = [np.exp(draw_law(fitted, n, rng=rng)) for _ in range(n_draws)]
    return 100 * float(np.mean([released_detector(one).plateau is not None for one in draws]))
