"""Tables of the page `spectra`."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from raretok.ledger.verdicts import p_text
from raretok.sections.eigenvalues import hill, noise_edges, noise_spectra
from raretok.sections.layer_spectrum import Contribution, LayerSpectrum
from raretok.sections.released_spectra import released_hill, released_tail
from raretok.sections.spectra import (
    INDEX,
    MATTERS,
    GroupSpectrum,
    Spectra,
    group_spectra,
    other_size,
)
from raretok.stats.documents import NullTest, null_test
from raretok.stats.groups import Fold

PAPER_SHAPES = ((30, 1600), (50, 2048))  # neurons, d_model: GPT-2 XL and Pythia-1B, as released
SMALL_DRAWS = 300  # draws of noise of the paper's shapes
NOISE_LAYERS = 20  # whole layers of noise; their eigenvalues hardly vary


def control_label(found: Spectra) -> str:
    return "matched groups" if found.protocol.matched else "random groups"


def statistics_table(found: Spectra) -> pd.DataFrame:
    """Every statistic of the boost part in the claim's matrix, against both references."""
    rows = {}
    for name, one in found.claimed.measured.items():
        back = np.exp if name == INDEX else np.asarray
        rows[name] = {
            "plateau group": f"{back(one.value):.3g}",
            control_label(found): middle_text(back(one.controls.null)),
            "p against them": p_text(one.controls.p),
            "Gaussian rows": middle_text(back(one.noise.null)),
            "p against noise": p_text(one.noise.p),
        }
    return pd.DataFrame(rows).T


def middle_text(draws: Float[np.ndarray, " draw"]) -> str:
    """Median of draws and where 95 % of them lie."""
    low, middle, high = np.quantile(draws[np.isfinite(draws)], [0.025, 0.5, 0.975])
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def index_row(group: GroupSpectrum) -> dict[str, str]:
    """Tail index of one group, with interval and p-values."""
    one, (low, high) = group.measured[INDEX], group.interval
    return {
        "neurons": str(group.size),
        "k": str(group.tail),
        "tail index, 95 %": f"{np.exp(one.value):.2f} ({low:.2f} to {high:.2f})",
        "controls": f"{np.exp(np.median(one.controls.null)):.2f}",
        "p against controls": p_text(one.controls.p),
        "p against noise": p_text(one.noise.p),
        "equally influential": f"{np.exp(np.median(group.equals.null)):.2f}",
        "p against those": p_text(group.equals.p),
        "power to see half": f"{min(t.power(MATTERS) for t in (one.controls, one.noise)):.2f}",
    }


def protocols_table(found: Mapping[str, Spectra]) -> pd.DataFrame:
    """Tail index of both parts in each matrix under each protocol."""
    rows = {
        (name, part, matrix + " (claim)" * (matrix == spectra.matrix)): index_row(group)
        for name, spectra in found.items()
        for (part, matrix), group in spectra.groups.items()
    }
    return pd.DataFrame(rows).T.rename_axis(["protocol", "part", "matrix"])


def sizes_table(
    found: Spectra, folds: Mapping[str, list[Fold]], *, rng: np.random.Generator
) -> pd.DataFrame:
    """The claim in groups of other sizes."""
    rows = {name: index_row(other_size(found, one, rng=rng)) for name, one in folds.items()}
    return pd.DataFrame({"as on this page": index_row(found.claimed)} | rows).T


def tails_table(found: Spectra) -> pd.DataFrame:
    """How sure a tail index is, by the number of eigenvalues it is estimated from."""
    group = found.claimed
    rows = {}
    for k in sorted({1, 2, 3, group.size // 2, group.size - 1} & set(range(1, group.size))):
        tests = index_tests(group, k)
        smallest = max(test.smallest for test in tests)
        rows[f"k = {k}"] = {
            "relative standard error, independent values": f"{100 / np.sqrt(k):.0f} %",
            "sd of its logarithm, Gaussian rows": f"{tests[1].null.std():.2f}",
            f"the same, {control_label(found)}": f"{tests[0].null.std():.2f}",
            "drop seen in 80 % of runs": f"to {100 * np.exp(-smallest):.0f} % of the index",
            "power to see half": f"{min(test.power(MATTERS) for test in tests):.2f}",
        }
    return pd.DataFrame(rows).T


def index_tests(group: GroupSpectrum, k: int) -> tuple[NullTest, NullTest]:
    """The log tail index of k eigenvalues against controls and against Gaussian rows."""
    value = float(np.log(hill(group.spectrum, k)).mean())
    controls, noise = (np.log(hill(draws, k)) for draws in (group.controls, group.noise))
    return null_test(value, controls, "less"), null_test(value, noise, "less")


def union_table(found: Spectra, *, rng: np.random.Generator) -> pd.DataFrame:
    """What unequal size alone does: a union of two groups against one group, nothing planted.

    The released code compares boost and suppress neurons together (2 n) with n controls.
    """
    size = found.claimed.size
    rows = found.rows[found.matrix]
    order = np.argsort(rng.random((len(found.claimed.noise), len(rows))), axis=1)
    pairs = {
        f"random neurons of this layer, {found.matrix}": (
            group_spectra(rows, order[:, size : 3 * size]),
            group_spectra(rows, order[:, :size]),
        )
    }
    for n, d in ((size, found.claimed.width), *PAPER_SHAPES):
        pairs[f"Gaussian rows of {d} entries"] = tuple(
            noise_spectra(m, d, SMALL_DRAWS, rng=rng) for m in (2 * n, n)
        )
    return pd.DataFrame({name: union_row(*pair) for name, pair in pairs.items()}).T


def union_row(
    union: Float[np.ndarray, "draw large"], one: Float[np.ndarray, "draw rank"]
) -> dict[str, str]:
    indices = released_hill(union), released_hill(one)
    lower = float((indices[0] < indices[1]).mean())
    sizes = f"{union.shape[1]} (k = {released_tail(union.shape[1])}) against "
    return {
        "sizes": sizes + f"{one.shape[1]} (k = {released_tail(one.shape[1])})",
        "tail index of the union": middle_text(indices[0]),
        "tail index of one group": middle_text(indices[1]),
        "union has the lower index": f"{100 * lower:.0f} % of draws",
    }


def layers_table(
    trained: Mapping[str, LayerSpectrum],
    untrained: Mapping[str, LayerSpectrum],
    *,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Is the layer heavy-tailed at all? Trained and untrained, against noise of its shape."""
    shapes = {(one.n, one.d) for one in trained.values()}
    noise = {shape: noise_spectra(*shape, NOISE_LAYERS, rng=rng) for shape in sorted(shapes)}
    rows = {}
    for name, one in trained.items():
        twin, k = untrained[name], one.tail
        rows[name] = {
            "aspect n / d": f"{one.n} / {one.d}",
            "edge of noise": f"{noise_edges(one.n, one.d)[1]:.2f}",
            "largest eigenvalue": f"{one.spectrum[0]:.1f}",
            "beyond the edge": f"{one.beyond} of {one.spectrum.size}",
            "untrained": str(twin.beyond),
            "distance to noise law (KS)": f"{one.distance:.2f}",
            "untrained, KS": f"{twin.distance:.2f}",
            "eigenvalues in the tail, a tenth": str(k),
            "tail index, 95 %": f"{one.index:.2f} ({one.interval.low:.2f} to "
            f"{one.interval.high:.2f})",
            "untrained, index": f"{twin.index:.2f}",
            "Gaussian rows": middle_text(hill(noise[one.n, one.d], k)),
            "shuffled entries": f"{hill(one.shuffled[None], k)[0]:.2f}",
        }
    return pd.DataFrame(rows)


def contributions_table(found: Mapping[str, dict[str, Contribution]]) -> pd.DataFrame:
    """The group in the layer's tail, under each protocol."""
    rows = {}
    for protocol, of in found.items():
        for matrix, one in of.items():
            rows[protocol, matrix] = {
                "share beyond noise": f"{100 * one.lead.value:.0f} %",
                "controls": middle_text(100 * one.lead.null) + " %",
                "p": p_text(one.lead.p),
                "layer's index without the group": f"{100 * np.expm1(one.left_out.value):+.1f} %",
                "without controls": middle_text(100 * np.expm1(one.left_out.null)) + " %",
                "p, left out": p_text(one.left_out.p),
            }
    return pd.DataFrame(rows).T.rename_axis(["protocol", "matrix"])


def cosines_table(found: Mapping[str, Spectra]) -> pd.DataFrame:
    """Mean cosine of centred rows, within the boost part and between it and the suppress part."""
    rows = {}
    for protocol, spectra in found.items():
        for matrix in ("W_in", "W_out"):
            rows[protocol, matrix] = cosine_row(spectra, matrix)
    return pd.DataFrame(rows).T.rename_axis(["protocol", "matrix"])


def cosine_row(found: Spectra, matrix: str) -> dict[str, str]:
    """Signed and squared cosines of the boost part, with their controls."""
    rows = found.rows[matrix] / np.sqrt(found.rows[matrix].shape[1])
    boost, suppress = found.folds["boost"], found.folds["suppress"]
    pairs, size = list(zip(boost, suppress, strict=True)), boost[0].group.size

    def within(groups: Int[np.ndarray, "draw member"]) -> Float[np.ndarray, " draw"]:
        return ((rows[groups].sum(axis=1) ** 2).sum(axis=1) - size) / (size * (size - 1))

    def between(
        groups: Int[np.ndarray, "draw member"], others: Int[np.ndarray, "draw other"]
    ) -> Float[np.ndarray, " draw"]:
        return (rows[groups].mean(axis=1) * rows[others].mean(axis=1)).sum(axis=1)

    inside = null_test(
        float(np.mean([within(fold.group[None]) for fold in boost])),
        np.concatenate([within(fold.controls) for fold in boost]),
        "two-sided",
    )
    across = null_test(
        float(np.mean([between(a.group[None], b.group[None]) for a, b in pairs])),
        np.concatenate([between(a.controls, b.controls) for a, b in pairs]),
        "two-sided",
    )
    return {
        "mean cosine within": f"{inside.value:.3f}",
        "controls": middle_text(inside.null),
        "p": p_text(inside.p),
        "boost with suppress": f"{across.value:.3f}",
        "controls, boost with suppress": middle_text(across.null),
        "p, boost with suppress": p_text(across.p),
    }
