"""Tables and plotted arrays of the page `regimes`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from raretok.ledger.verdicts import p_text
from raretok.sections.calibration import OTHER, PLANTS, SMOOTH, calibration_table
from raretok.sections.influence import top_overlap
from raretok.sections.plateau import HEAD, HeadTest
from raretok.sections.regimes import ClassRegimes, Regimes
from raretok.sections.released import released_detector
from raretok.stats.documents import Interval


@dataclass(frozen=True)
class DrawnFits:
    """Sorted influence and its fits, at each rank that is fitted."""

    rank: Float[np.ndarray, " rank"]
    value: Float[np.ndarray, " rank"]
    pieces: Float[np.ndarray, " rank"]
    smooth: Float[np.ndarray, " rank"]
    breaks: Float[np.ndarray, " break"]


def drawn_fits(found: ClassRegimes) -> DrawnFits:
    """Sorted influence with the three-piece and the smooth fit, in nats."""
    smooth = np.exp(found.pieces.smooth)
    rank = np.arange(1.0, smooth.size + 1)
    fit = found.pieces.fits[2]
    value = np.sort(found.values)[::-1][: smooth.size]
    return DrawnFits(rank, value, np.exp(fit.curve), smooth, fit.breaks.astype(float))


def interval_text(found: Interval, digits: int) -> str:
    return f"{found.low:.{digits}f} to {found.high:.{digits}f}"


def pieces_table(found: Regimes) -> pd.DataFrame:
    """Gain of each added piece, its p-value, and what the three pieces look like."""
    rows = {}
    for kind, one in found:
        test = one.pieces
        rows[f"{kind} targets"] = {
            "two pieces over one: p": p_text(test.p_two),
            "three over two: p": p_text(test.p_three),
            "three over a smooth curve: p": p_text(test.p_curve),
            "slopes of the three": ", ".join(f"{slope:.2f}" for slope in test.fits[2].slopes),
            "first piece ends at rank, 95 %": interval_text(one.breaks[0], 0),
            "second piece ends at rank, 95 %": interval_text(one.breaks[1], 0),
        }
    return pd.DataFrame(rows)


def head_score(test: HeadTest) -> float:
    """The head statistic on a scale that grows with the evidence: -log10 of its smaller p."""
    return -float(np.log10(test.statistic))


def head_figure(found: Regimes, untrained: Regimes) -> dict[str, Any]:
    """Null and observed head scores, as arguments of `figures.null_histogram`."""
    observed = {f"{kind} targets": head_score(one.head) for kind, one in found}
    observed["untrained, rare targets"] = head_score(untrained.rare.head)
    null = -np.log10(found.rare.head.null)
    return {
        "null": null,
        "observed": observed,
        "level": float(np.quantile(null, 0.95)),
        "xlabel": r"head score ($-\log_{10}$ of the smaller p of flat and excess)",
        "null_label": "one smooth curve",
    }


def heads_table(found: Mapping[str, Regimes]) -> pd.DataFrame:
    """Head test of both classes in several runs, and what the released detector says."""
    rows = []
    for name, regimes in found.items():
        for kind, one in regimes:
            head, released = one.head, released_detector(one.values)
            rows.append(
                {
                    "run": name,
                    "targets": kind,
                    "head": head.kind,
                    "p": p_text(head.p),
                    "p, flat": p_text(head.p_flat),
                    "p, excess": p_text(head.p_excess),
                    "group that stands out": f"{head.size} neurons",
                    "% of neurons, 95 %": interval_text(one.size, 1),
                    "top 1 % over the smooth curve": f"x {np.exp(head.lift):.2f}"
                    f" ({interval_text(one.lift, 2)})",
                    "released detector: plateau to rank": released.plateau or "none",
                }
            )
    return pd.DataFrame(rows).set_index(["run", "targets"])


def share_figure(found: Regimes) -> dict[str, Any]:
    """Null and observed difference in share, as arguments of `figures.null_histogram`."""
    return {
        "null": 100 * found.share.null,
        "observed": {"observed": 100 * found.share.difference},
        "xlabel": "rare less common (pp)",
        "null_label": "permuted labels",
    }


def calibration(rng: np.random.Generator, n_samples: int = 200) -> pd.DataFrame:
    """How often the head test fires: on smooth laws, and with a head planted on them."""
    rows = pd.DataFrame([asdict(row) for row in calibration_table(n_samples, rng=rng)])
    rows = rows.replace({"planted": ""}, {"planted": "nothing"})
    table = rows.pivot(index="law", columns="planted", values="found")
    table = table.loc[[*SMOOTH, *OTHER], ["nothing", *PLANTS]]
    table.insert(1, "nothing, released detector", [released_rate(law, rng) for law in table.index])
    tripled = rows[rows.planted == "x 3"].set_index("law").size_within
    table.insert(len(table.columns), "x 3, size within x 1.5", tripled)
    percent = (100 * table).round().astype("Int64").astype(str) + " %"
    return percent.where(table.notna(), "")


def released_rate(law: str, rng: np.random.Generator, n_samples: int = 20) -> float:
    """How often the released detector reports a plateau on a smooth law."""
    samples = (SMOOTH | OTHER)[law](rng, (n_samples, 1024))
    return float(np.mean([released_detector(row).plateau is not None for row in samples]))


def told(both: Regimes, untrained: Regimes, n_null: int) -> dict[str, str]:
    """Numbers and findings of the page's sentences, as they are shown."""
    numbers = {
        "lead": both.protocol.name,
        "n_null": str(n_null),
        "n_rare": str(both.rare.n_positions),
        "n_common": str(both.common.n_positions),
        "more": f"{both.rare.values.clip(0).sum() / both.common.values.clip(0).sum():.1f}",
        "rare_head": head_sentence("rare", both.rare),
        "common_head": head_sentence("common", both.common),
        "untrained_head": head_sentence("rare", untrained.rare),
        "overlap": f"{100 * top_overlap(both.rare.ranked, both.common.ranked, top(both)):.0f}",
        "chance": f"{100 * top(both) / both.d_mlp:.0f}",
        "share_rare": f"{100 * both.share.rare:.0f}",
        "share_common": f"{100 * both.share.common:.0f}",
        "share_p": p_text(both.share.p),
    }
    for kind, one in both:
        first, second = one.curve.value[:2]
        numbers |= {f"first_{kind}": f"{first:.2g}", f"second_{kind}": f"{second:.2g}"}
    return numbers


def top(found: Regimes) -> int:
    """Neurons in the published 1 %."""
    return max(1, round(HEAD * found.d_mlp))


def head_sentence(kind: str, one: ClassRegimes) -> str:
    """The finding of the head test, in words."""
    head = one.head
    if head.kind == "none":
        return f"no group at the head of the {kind} curve is set apart (p {equals(head.p)})"
    return (
        f"a group of {head.size} neurons at the head of the {kind} curve is set apart "
        f"({head.kind} head, p {equals(head.p)})"
    )


def equals(p: float) -> str:
    """A p-value inside a sentence."""
    return p_text(p) if p < 0.001 else f"= {p_text(p)}"
