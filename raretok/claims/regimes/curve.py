r"""One smooth law of rank curves, and what a head stands above it.

With $L_i = \ln\frac{n + 1}{i - 1/2}$, how deep rank $i$ of $n$ lies,

$$\ln v_{(i)} = c + b\, \frac{L_i^a - 1}{a}$$

is a power law for $a = 1$, every Weibull law for $a \to 0$ and, closely, the log-normal for
$a = 1/2$: one smooth bend, no break. It is fitted by least squares to the logarithm of mean values
in bins of ranks below the head and continued to the first rank.
"""

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.special import boxcox

from raretok.errors import NotTestableError

Ranked = Float[np.ndarray, " rank"]
Bins = Float[np.ndarray, " bin"]
Edges = Float[np.ndarray, " edge"]
Fitted = Float[np.ndarray, " fitted"]
BEND = (-1.0, 2.0)  # range of a
LAST = 0.3  # of the ranks that are fitted
PER_DECADE = 8  # bins
SCATTER_DRAWS = 100
FEWEST = 5  # bins that a curve of three parameters is fitted to


def bins(first: int, last: int) -> Edges:
    """Edges (0-based, half open) of log-spaced bins over ranks first .. last - 1."""
    n = max(4, round(PER_DECADE * np.log10(last / max(first, 1))))
    return np.unique(np.round(np.geomspace(max(first, 1), last, n + 1))).astype(float)


def bin_means(values: Ranked, edges: Edges) -> Bins:
    """Mean value in each bin."""
    at = edges.astype(int)
    return np.add.reduceat(values[: at[-1]], at[:-1]) / np.diff(at)


def depth(rank: Ranked, n: int) -> Ranked:
    """L of a rank counted from 0."""
    return np.log((n + 1) / (rank + 0.5))


def bin_weights(curves: Float[np.ndarray, "left_out rank"], head: int) -> Bins:
    """Precision of the logarithm of each bin's mean, from the curves with documents left out.

    0 for a bin whose mean is not positive in every curve: it has no logarithm.
    """
    edges = bins(head, int(LAST * curves.shape[1]))
    means = np.array([bin_means(one, edges) for one in curves])
    positive = (means > 0).all(axis=0)
    logs = np.log(np.where(positive, means, 1.0))
    n = len(curves) - 1
    variance = (n - 1) * logs[1:].var(axis=0)
    # No bin counts for ten times the typical one: a variance of few numbers may be small.
    floor = 0.1 * np.median(variance[positive]) if positive.any() else 1.0
    return np.where(positive, 1 / np.maximum(variance, max(floor, 1e-12)), 0.0)


def smooth_curve(values: Ranked, head: int, weights: Bins | None = None) -> Fitted:
    """ln of the smooth curve at every rank down to `LAST`, fitted to those below the head.

    `values` are means by rank, not necessarily sorted; `weights` those of the bins. Raises
    `NotTestableError` where too few bins have a positive mean or there are too few ranks.
    """
    n, stop = values.size, int(LAST * values.size)
    if stop < 5 * head or stop < 60:
        raise NotTestableError(f"{n} neurons are too few for a curve below a head of {head}")
    edges = bins(head, stop)
    means = bin_means(values, edges)
    weights = np.ones(means.size) if weights is None else weights
    used = (weights > 0) & (means > 0)
    if used.sum() < FEWEST:
        raise NotTestableError("the rank curve is not positive below its head")
    L = depth(np.arange(stop, dtype=float), n)
    middle, y = bin_means(L, edges)[used], np.log(means[used])
    root = np.sqrt(weights[used] / weights[used].sum())

    def fitted(a: float) -> tuple[Float[np.ndarray, " 2"], float]:
        x = root[:, None] * np.vander(boxcox(middle, a), 2)
        coefficients = np.linalg.lstsq(x, root * y, rcond=None)[0]
        return coefficients, float(((root * y - x @ coefficients) ** 2).sum())

    options = {"bounds": BEND, "method": "bounded", "options": {"xatol": 1e-6}}
    a = float(minimize_scalar(lambda a: fitted(a)[1], **options).x)
    return np.vander(boxcox(L, a), 2) @ fitted(a)[0]


def log_lift(values: Ranked, head: int, weights: Bins | None = None) -> float:
    """ln of the mean value of the head over what the smooth curve predicts there.

    Raises `NotTestableError` as `smooth_curve` does and for a head that is not positive.
    """
    predicted = np.exp(smooth_curve(values, head, weights)[:head]).mean()
    mean = values[:head].mean()
    if mean <= 0:
        raise NotTestableError("the head of the rank curve is not positive")
    return float(np.log(mean / predicted))


def draw_law(fitted: Fitted, n: int, *, rng: np.random.Generator) -> Fitted:
    """ln of the largest of n values drawn at random from the smooth law, largest first.

    Order statistics of n uniform numbers stand where the law expects its ranks; above the first
    rank it is continued straight.
    """
    L = depth(np.arange(fitted.size, dtype=float), n)
    at = -np.log(np.sort(rng.random(n))[: fitted.size])
    slope = (fitted[0] - fitted[1]) / (L[0] - L[1])
    drawn = np.interp(at, L[::-1], fitted[::-1])
    return np.where(at > L[0], fitted[0] + slope * (at - L[0]), drawn)


def lift_scatter(
    values: Ranked,
    head: int,
    weights: Bins,
    *,
    n_draws: int = SCATTER_DRAWS,
    rng: np.random.Generator,
) -> float:
    """Standard deviation of the log lift over samples of neurons from one smooth law."""
    fitted = smooth_curve(values, head, weights)
    lifts = []
    for _ in range(n_draws):
        drawn = values.copy()
        drawn[: fitted.size] = np.exp(draw_law(fitted, values.size, rng=rng))
        lifts.append(log_lift(drawn, head, weights))
    return float(np.std(lifts, ddof=1))


def head_size(values: Ranked, most: float = 0.05, fewest: float = 0.001) -> int:
    """Neurons in the group at the head that is set apart most from the smooth curve.

    The change point of the mean logarithm over the curve fitted below the largest head: as many
    ranks as leave the least squares, the rest lying on the curve.
    """
    n, largest = values.size, int(most * values.size)
    over = np.log(np.maximum(values[:largest], 1e-12)) - smooth_curve(values, largest)[:largest]
    sizes = np.arange(max(2, int(np.ceil(fewest * n))), largest + 1)
    gain = np.cumsum(over)[sizes - 1] ** 2 / sizes
    return int(sizes[gain.argmax()])
