"""Weight spectra (claim S1): is the correlation spectrum of a group's weights heavy-tailed?

A row of W_in is what a neuron reads, a row of W_out what it writes, both in the raw basis of the
residual stream (nothing folded). Rows are centred and scaled over their entries; eigenvalues are
those of C = X X^T / d. eigenvalues.py has the statistics, layer_spectrum.py the whole layer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t as student

from raretok.ledger.claims import Evidence
from raretok.sections.eigenvalues import (
    beyond_edge,
    descending,
    hill,
    noise_distance,
    noise_spectra,
    spectral_entropy,
    stable_rank,
    standard_rows,
)
from raretok.sections.released_spectra import released_matrix, released_tail
from raretok.stats.documents import NullTest, Side, null_test
from raretok.stats.groups import Fold
from raretok.text.protocol import Protocol

Rows = Float[np.ndarray, "neuron weight"]  # standardised
Statistic = Callable[[Float[np.ndarray, "draw rank"]], Float[np.ndarray, " draw"]]

MATRICES = ("W_in", "W_out", "both")
MATTERS = np.log(2.0)  # half the controls' tail index, as a shift of its logarithm
CHUNK = 2**25  # numbers gathered at once


@dataclass(frozen=True)
class Measured:
    """One statistic of a group, referred to its controls and to Gaussian rows."""

    controls: NullTest
    noise: NullTest

    @property
    def value(self) -> float:
        return self.controls.value

    @property
    def worse(self) -> NullTest:
        """The reference it stands out from less: an effect must beat both."""
        return max(self.controls, self.noise, key=lambda test: test.p)


@dataclass(frozen=True)
class GroupSpectrum:
    """The spectrum of a group's rows of one matrix, with its references."""

    matrix: str
    part: str  # boost or suppress
    size: int
    width: int  # entries a row
    tail: int  # eigenvalues the tail index is estimated from
    spectrum: Float[np.ndarray, "fold rank"]
    controls: Float[np.ndarray, "draw rank"]
    noise: Float[np.ndarray, "sample rank"]
    measured: dict[str, Measured]  # by statistic; that of INDEX is the natural logarithm
    interval: tuple[float, float]  # 95 % of the tail index, over neurons
    equals: NullTest  # ln tail index, against neurons as influential on common targets


@dataclass(frozen=True)
class Spectra:
    """What the page shows under one protocol."""

    protocol: Protocol
    matrix: str  # that the claim is read in
    groups: dict[tuple[str, str], GroupSpectrum]  # by part and matrix
    rows: dict[str, Rows]  # of the whole layer, by matrix
    folds: dict[str, list[Fold]]  # by part

    @property
    def claimed(self) -> GroupSpectrum:
        return self.groups["boost", self.matrix]


INDEX = "tail index"


def weight_rows(
    W_in: Float[np.ndarray, "neuron d_model"], W_out: Float[np.ndarray, "neuron d_model"]
) -> dict[str, Rows]:
    """Standardised rows of W_in, of W_out, and of both side by side."""
    rows = {"W_in": standard_rows(W_in), "W_out": standard_rows(W_out)}
    return rows | {"both": np.concatenate(list(rows.values()), axis=1)}


def group_spectra(
    rows: Rows, groups: Int[np.ndarray, "draw member"]
) -> Float[np.ndarray, "draw member"]:
    """Eigenvalues of the correlation matrix of each group's rows, largest first."""
    step = max(1, CHUNK // (groups.shape[1] * rows.shape[1]))
    spectra = np.empty(groups.shape)
    for start in range(0, len(groups), step):
        some = rows[groups[start : start + step]]
        spectra[start : start + step] = descending(some @ some.swapaxes(1, 2) / rows.shape[1])
    return spectra


def tail_size(protocol: Protocol, size: int) -> int:
    """Eigenvalues in the tail: a tenth as released (`code`), else half, as is usual for layers."""
    return released_tail(size) if protocol.name == "code" else max(1, size // 2)


def claimed_matrix(protocol: Protocol, family: str) -> str:
    """As released one matrix, which depends on the family; else both."""
    return released_matrix(family) if protocol.name == "code" else "both"


def pooled(
    rows: Rows, folds: list[Fold]
) -> tuple[Float[np.ndarray, "fold rank"], Float[np.ndarray, "draw rank"]]:
    """Spectra of the group in each fold, and those of all its controls in one heap.

    The groups of two folds share most neurons, so their mean varies nearly as one of them does.
    Means of *independent* controls would vary half as much and make a test that fires on nothing.
    """
    group = group_spectra(rows, np.stack([fold.group for fold in folds]))
    return group, group_spectra(rows, np.concatenate([fold.controls for fold in folds]))


def measure(
    statistic: Statistic,
    side: Side,
    group: Float[np.ndarray, "fold rank"],
    controls: Float[np.ndarray, "draw rank"],
    noise: Float[np.ndarray, "sample rank"],
) -> Measured:
    """Mean over folds of a statistic, against its controls and against Gaussian rows."""
    value = float(statistic(group).mean())
    return Measured(*(null_test(value, statistic(draws), side) for draws in (controls, noise)))


def spectra_test(
    rows: Rows, folds: list[Fold], noise: Float[np.ndarray, "sample rank"], tail: int
) -> NullTest:
    """Is the tail index (its logarithm) below the controls' and below that of Gaussian rows?

    `noise` is `noise_spectra` of a group's size. Of the two tests the one with the larger p.
    """
    return measure(lambda s: np.log(hill(s, tail)), "less", *pooled(rows, folds), noise).worse


def statistics(size: int, width: int, tail: int) -> dict[str, tuple[Statistic, Side]]:
    """What is measured of a spectrum, and which side is heavy-tailed."""
    return {
        INDEX: (lambda s: np.log(hill(s, tail)), "less"),
        "largest eigenvalue": (lambda s: s[:, 0], "greater"),
        "eigenvalues beyond the noise edge": (lambda s: beyond_edge(s, size, width), "greater"),
        "stable rank": (stable_rank, "less"),
        "spectral entropy, nats": (spectral_entropy, "less"),
        "distance to noise law (KS)": (lambda s: noise_distance(s, size, width), "greater"),
        # n r^2 (n - 1) is what the squared eigenvalues hold beyond those of unrelated rows.
        "mean squared cosine within": (mean_squared_cosine, "greater"),
    }


def mean_squared_cosine(spectra: Float[np.ndarray, "draw rank"]) -> Float[np.ndarray, " draw"]:
    """Mean squared correlation of two rows of a group: (sum of squares - n) / n (n - 1)."""
    n = spectra.shape[1]
    return ((spectra**2).sum(axis=1) - n) / (n * (n - 1))


def jackknife_sd(rows: Rows, members: Int[np.ndarray, " member"], tail: int) -> float:
    """Standard error of the log tail index over neurons, each left out in turn.

    No bootstrap: a neuron drawn twice correlates perfectly with itself, which makes a tail. The
    jackknife errs, if at all, on the wide side (Efron and Stein, 1981).
    """
    n = members.size
    without = np.stack([np.delete(members, i) for i in range(n)])
    values = np.log(hill(group_spectra(rows, without), min(tail, n - 2)))
    return float(np.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum()))


def group_spectrum(
    matrix: str,
    part: str,
    rows: Rows,
    folds: list[Fold],
    noise: Float[np.ndarray, "sample rank"],
    tail: int,
) -> GroupSpectrum:
    """Every statistic of one group in one matrix."""
    size, width = folds[0].group.size, rows.shape[1]
    group, controls = pooled(rows, folds)
    measured = {
        name: measure(statistic, side, group, controls, noise)
        for name, (statistic, side) in statistics(size, width, tail).items()
    }
    sd = float(np.mean([jackknife_sd(rows, fold.group, tail) for fold in folds]))
    influential = group_spectra(rows, np.concatenate([fold.equals for fold in folds]))
    equals = null_test(measured[INDEX].value, np.log(hill(influential, tail)), "less")
    reach = float(student.ppf(0.975, size - 1)) * sd
    low, high = (float(np.exp(measured[INDEX].value + way * reach)) for way in (-1, 1))
    return GroupSpectrum(
        matrix, part, size, width, tail, group, controls, noise, measured, (low, high), equals
    )


def find_spectra(
    rows: dict[str, Rows],
    folds: dict[str, list[Fold]],
    protocol: Protocol,
    family: str,
    *,
    rng: np.random.Generator,
) -> Spectra:
    """Spectra of the group's boost and suppress parts in each matrix."""
    size, n_draws = folds["boost"][0].controls.shape[::-1]
    tail = tail_size(protocol, size)
    widths = {rows[name].shape[1] for name in MATRICES}
    noise = {width: noise_spectra(size, width, n_draws, rng=rng) for width in sorted(widths)}
    groups = {
        (part, name): group_spectrum(
            name, part, rows[name], found, noise[rows[name].shape[1]], tail
        )
        for part, found in folds.items()
        for name in MATRICES
    }
    return Spectra(protocol, claimed_matrix(protocol, family), groups, rows, folds)


def other_size(found: Spectra, folds: list[Fold], *, rng: np.random.Generator) -> GroupSpectrum:
    """The boost part in another size, in the claim's matrix."""
    rows, (n_draws, size) = found.rows[found.matrix], folds[0].controls.shape
    noise = noise_spectra(size, rows.shape[1], n_draws, rng=rng)
    tail = tail_size(found.protocol, size)
    return group_spectrum(found.matrix, "boost", rows, folds, noise, tail)


def evidence(found: Spectra, untrained: Spectra, run: str = "") -> list[Evidence]:
    """What the page found on S1: the tail must be heavier than the controls' and than noise."""
    claimed = found.claimed
    tests = (claimed.measured[INDEX].controls, claimed.measured[INDEX].noise)
    kind = "matched" if found.protocol.matched else "random"
    return [
        Evidence(
            claim="S1",
            protocol=found.protocol.name,
            value=float(np.exp(claimed.measured[INDEX].value)),
            interval=claimed.interval,
            null=f"{kind} groups of the same size, and Gaussian rows: the larger p",
            p=max(test.p for test in tests),
            null_world_p=untrained.claimed.measured[INDEX].worse.p,
            power=min(test.power(MATTERS) for test in tests),
            smallest=seen_drop(*tests),
            figure="fig-hill",
            run=run,
        )
    ]


def seen_drop(controls: NullTest, noise: NullTest) -> float:
    """Drop of the tail index below the controls' median that both tests see in 80 % of runs."""
    shift = max(controls.smallest, noise.smallest)
    return float(np.exp(np.median(controls.null)) * -np.expm1(-shift))
