r"""Is a small group of neurons set apart at the head of the rank curve? A calibrated test.

A "plateau" has two readings (the released code looks for the second), and both are tested:

- *flat*: the head levels off below the extrapolated curve; $\sum_{i<k} E_i/g_i$ is too small for
  a Gamma(k-1) variable;
- *excess*: a gap parts the k-th from the next value; $E_k/g_k$ is too large for an Exp(1) one.

Both are scanned over k from 0.3 % to 3 % of the positive values, each minimum is referred to its
own null, and so is the smaller of the two p-values. $g$ (spacings.py) is a straight line in x; for
*flat* it is fitted to ranks 3 % to 30 % and extrapolated, for *excess* over all ranks to 30 %: one
spacing cannot bend it, and a gap loses less power than to an extrapolation.
The residuals $E/\hat g$ do not depend on the true line, so one null table serves each n, exactly
for a power law and to a good approximation for the other laws (calibration.py measures it).

What the test assumes and what it cannot see. Under the null the neurons' values, *noise of the
estimate included*, are exchangeable draws from one smooth law: noise common to all neurons or with
sizes that vary at random among them is part of that law and does no harm; copies of a neuron would.
Noise blurs a true head, so it costs power. A bounded law is flat at its head, and a mixture of two
scales has a bend of its own: both are found, rightly, as no one smooth law of this family. A
head that is only *steeper* than the curve has its own `p_steep`, kept out of `p`: heavy-tailed
smooth laws (Student's t) do the same.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import gammainc, gammaincc, gammaln

from raretok.sections.spacings import (
    basis,
    curve_from_slopes,
    depth,
    exponential_regression,
    fitted_slopes,
    normalised_spacings,
    positive_log_values,
)

# Fractions of the positive values. Up to 30 %, since nearer the centre laws differ in shape and
# mislead the extrapolation: with 40 % Student's t (3 df) looks steeper at its head in 24 % of
# samples, with 30 % in 15 %. A narrower window loses power.
SCAN = (0.003, 0.03)
WINDOW_END = 0.30
HEAD = 0.01
MIN_POSITIVE = 200
N_NULL = 4000


@dataclass(frozen=True)
class HeadScan:
    """Log p-values of both readings at each group size, before any correction for the scan."""

    sizes: Int[np.ndarray, " size"]
    flat: Float[np.ndarray, "draw size"]
    excess: Float[np.ndarray, "draw size"]
    steep: Float[np.ndarray, "draw size"]
    theta: Float[np.ndarray, " draw"]  # g ~ log(n/i) ** -theta below the head
    slope_ratio: Float[np.ndarray, " draw"]  # slope of the top 1 % over the extrapolated one
    lift: Float[np.ndarray, " draw"]  # mean log v of the top 1 % less the extrapolated, nats of log


@dataclass(frozen=True)
class HeadNull:
    """Minima over the scan for smooth laws, sorted; `combined` is of the two p-values."""

    flat: Float[np.ndarray, " null"]
    excess: Float[np.ndarray, " null"]
    steep: Float[np.ndarray, " null"]
    combined: Float[np.ndarray, " null"]


@dataclass(frozen=True)
class HeadTest:
    kind: Literal["flat", "excess", "none"]  # "none" where p > alpha
    size: int  # neurons in the group that stands out most, whatever p
    p: float  # two-sided over both readings and all sizes; its floor is 1 / (draws + 1)
    p_flat: float
    p_excess: float
    p_steep: float  # not part of p, see the module
    statistic: float  # min(p_flat, p_excess)
    null: Float[np.ndarray, " null"]  # of the statistic
    gap: float  # v_(size) / v_(size + 1)
    slope_ratio: float  # of the top 1 %: 1 as extrapolated, 0 flat
    lift: float  # of the top 1 %: log units above (+) or below (-) the extrapolated curve
    theta: float
    n_positive: int
    alpha: float


def _log_gamma_cdf(
    shape: Float[np.ndarray, " size"], x: Float[np.ndarray, "draw size"]
) -> Float[np.ndarray, "draw size"]:
    """log P(Gamma(shape) <= x), also where P is too small for a float; x = 0 counts as 1e-300."""
    x = np.maximum(x, 1e-300)
    # Leading term of the series; it takes over below 1e-280, where x is far below shape.
    series = shape * np.log(x) - x - gammaln(shape + 1)
    return np.where(series < -640, series, np.log(np.maximum(gammainc(shape, x), 1e-290)))


def scan_heads(log_values: Float[np.ndarray, "draw rank"], n: int) -> HeadScan:
    """Both readings at every group size, for the top ranks of samples of n positive values."""
    return _scan(normalised_spacings(log_values[:, : int(WINDOW_END * n) + 1]), n)


def _scan(spacings: Float[np.ndarray, "draw rank"], n: int) -> HeadScan:
    sizes = np.arange(max(2, int(np.ceil(SCAN[0] * n))), int(SCAN[1] * n) + 1)
    x, first = depth(n, spacings.shape[1]), int(sizes[-1]) + 1
    slopes, every = fitted_slopes(spacings, basis(x, 1, first), first), basis(x, 1, 0)
    total = np.cumsum(spacings / slopes, axis=1)
    at_size = every[sizes - 1]
    gap = spacings[:, sizes - 1] / np.exp(exponential_regression(spacings, every) @ at_size.T)
    log_slopes = np.log(slopes)
    head = max(2, round(HEAD * n))
    return HeadScan(
        sizes=sizes,
        flat=_log_gamma_cdf(sizes - 1.0, total[:, sizes - 2]),
        excess=-gap,
        steep=np.log(np.maximum(gammaincc(1.0 * sizes, total[:, sizes - 1]), 1e-300)),
        theta=(log_slopes[:, -1] - log_slopes[:, 0]) / (x[0] - x[-1]),
        slope_ratio=total[:, head - 2] / (head - 1),
        # The curve is continued upwards from the value below the largest head.
        lift=curve_from_slopes((spacings - slopes)[:, :first])[:, :head].mean(axis=1),
    )


@lru_cache(maxsize=64)
def head_null(n: int, n_null: int = N_NULL) -> HeadNull:
    """Null table for n positive values.

    Like a printed table it is the same for every reader: its draws are seeded by n.
    """
    rng = np.random.default_rng(n)
    n_ranks, block = int(WINDOW_END * n), max(1, 2**21 // n)
    minima = []
    for start in range(0, n_null, block):
        scan = _scan(rng.exponential(size=(min(block, n_null - start), n_ranks)), n)
        minima.append([log_p.min(axis=1) for log_p in (scan.flat, scan.excess, scan.steep)])
    flat, excess, steep = np.concatenate(minima, axis=1)
    combined = np.minimum(_rank_p(flat, np.sort(flat)), _rank_p(excess, np.sort(excess)))
    return HeadNull(np.sort(flat), np.sort(excess), np.sort(steep), np.sort(combined))


def _rank_p(
    observed: Float[np.ndarray, " draw"], null: Float[np.ndarray, " null"]
) -> Float[np.ndarray, " draw"]:
    """Share of the sorted null at or below what was observed, floor 1 / (draws + 1)."""
    return (1 + np.searchsorted(null, observed, side="right")) / (1 + null.size)


def table_size(n: int) -> int:
    """n rounded to 16 tables an octave: neighbours' critical values differ by less than noise."""
    return round(2 ** (round(16 * np.log2(n)) / 16))


@dataclass(frozen=True)
class HeadPValues:
    p: Float[np.ndarray, " draw"]
    p_flat: Float[np.ndarray, " draw"]
    p_excess: Float[np.ndarray, " draw"]
    p_steep: Float[np.ndarray, " draw"]
    size: Int[np.ndarray, " draw"]


def judge_heads(scan: HeadScan, null: HeadNull) -> HeadPValues:
    """Calibrated p-values of each draw of a scan, and the size that stands out most."""
    p_flat = _rank_p(scan.flat.min(axis=1), null.flat)
    p_excess = _rank_p(scan.excess.min(axis=1), null.excess)
    # A flat head ends where the sum is still small *and* a step follows: both logs count there.
    size = np.where(
        p_flat <= p_excess,
        (scan.flat + scan.excess).argmin(axis=1),
        scan.excess.argmin(axis=1),
    )
    return HeadPValues(
        p=_rank_p(np.minimum(p_flat, p_excess), null.combined),
        p_flat=p_flat,
        p_excess=p_excess,
        p_steep=_rank_p(scan.steep.min(axis=1), null.steep),
        size=scan.sizes[size],
    )


def head_test(
    values: Float[np.ndarray, " neuron"], *, alpha: float = 0.05, n_null: int = N_NULL
) -> HeadTest:
    """Test the head of the rank curve of the positive values; sizes are fractions of those.

    Raises `ValueError` ("not testable") for fewer than 200 positive values, or equal ones.
    """
    scan, log_values = _scan_values(values)
    null = head_null(table_size(log_values.size), n_null)
    judged = judge_heads(scan, null)
    p, p_flat, p_excess = (float(p[0]) for p in (judged.p, judged.p_flat, judged.p_excess))
    size = int(judged.size[0])
    kind = "none" if p > alpha else "flat" if p_flat <= p_excess else "excess"
    return HeadTest(
        kind=kind,
        size=size,
        p=p,
        p_flat=p_flat,
        p_excess=p_excess,
        p_steep=float(judged.p_steep[0]),
        statistic=min(p_flat, p_excess),
        null=null.combined,
        gap=float(np.exp(log_values[size - 1] - log_values[size])),
        slope_ratio=float(scan.slope_ratio[0]),
        lift=float(scan.lift[0]),
        theta=float(scan.theta[0]),
        n_positive=log_values.size,
        alpha=alpha,
    )


def _scan_values(
    values: Float[np.ndarray, " neuron"],
) -> tuple[HeadScan, Float[np.ndarray, " rank"]]:
    log_values = positive_log_values(values)
    if log_values.size < MIN_POSITIVE:
        raise ValueError(
            f"not testable: {log_values.size} positive values, the head test needs {MIN_POSITIVE}"
        )
    return scan_heads(log_values[None], log_values.size), log_values


def head_lift(values: Float[np.ndarray, " neuron"]) -> float:
    """Height of the top 1 % above (+) or below (-) the extrapolated curve, in nats of log.

    Raises `ValueError` as `head_test` does; needs no null table.
    """
    return float(_scan_values(values)[0].lift[0])


def head_size(values: Float[np.ndarray, " neuron"]) -> int:
    """Neurons in the group that stands out most, significant or not (as in `head_test`)."""
    scan, log_values = _scan_values(values)
    return int(judge_heads(scan, head_null(table_size(log_values.size))).size[0])
