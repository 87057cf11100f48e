"""Tables, plotted arrays and sentences on the overlap of rare and common rankings."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from raretok.ledger.verdicts import p_text
from raretok.sections.overlap import Overlap
from raretok.sections.rankings import ranks
from raretok.stats.documents import ALPHA


def scatter_figure(found: Overlap) -> dict[str, Any]:
    """Arguments of `overlap_figures.rank_scatter`: ranks on all positions."""
    rare, common = (ranks(values[None])[0] for values in (found.rare, found.common))
    both = (rare < found.k) & (common < found.k)
    return {"rare": rare + 1.0, "common": common + 1.0, "both": both, "k": found.k}


def tops_figure(found: Overlap) -> dict[str, Any]:
    """Arguments of `overlap_figures.shared_tops`."""
    n = found.curve.size
    return {
        "share": 100 * found.curve,
        "permuted": tuple(100 * end for end in found.permuted),
        "ceiling": 100 * found.ceiling,
        "chance": 100 * np.arange(1.0, n + 1) / n,
        "used": found.k,
    }


def overlap_table(found: Mapping[str, Overlap], untrained: Mapping[str, Overlap]) -> pd.DataFrame:
    """The two questions under each protocol, trained and untrained."""
    rows = {}
    for network, of in (("trained", found), ("untrained", untrained)):
        for name, one in of.items():
            low, high = 100 * one.interval.low, 100 * one.interval.high
            rows[name, network] = {
                f"of the first {one.k} shared, 95 %": f"{100 * one.value:.0f} % "
                f"({low:.0f} to {high:.0f})",
                "chance": f"{100 * one.k / one.curve.size:.1f} %",
                "p, more than chance": p_text(one.chance.p),
                "labels exchanged": f"{100 * np.median(one.labels.null):.0f} %",
                "p, fewer than that": p_text(one.labels.p),
                "two halves share, rare": f"{100 * one.within['rare']:.0f} %",
                "two halves share, common": f"{100 * one.within['common']:.0f} %",
                "rank correlation": f"{one.spearman:.2f}",
                "carries of common influence": f"{100 * one.carried.value:.1f} %",
                "controls carry": f"{100 * np.median(one.carried.null):.1f} %",
                "p, carried": p_text(one.carried.p),
            }
    return pd.DataFrame(rows).rename_axis(columns=["protocol", "network"])


def top_table(found: Overlap) -> pd.DataFrame:
    """What each of the top rare neurons does to common targets."""
    rows = {
        str(one.neuron): {
            "rare loss, nats": f"{one.rare:+.2g}",
            "common loss, nats, 95 %": f"{one.common:+.2g} ({one.common_interval.low:+.2g} to "
            f"{one.common_interval.high:+.2g})",
            "rank on common targets": str(one.common_rank),
        }
        for one in found.top
    }
    return pd.DataFrame(rows).T.rename_axis("neuron")


def told(found: Overlap) -> dict[str, str]:
    """Numbers and findings of the section's sentences."""
    first, more = found.top[0], found.chance.p < ALPHA
    fewer = found.labels.p < ALPHA
    return {
        "o_k": str(found.k),
        "o_both": str(int(scatter_figure(found)["both"].sum())),
        "o_n": str(found.curve.size),
        "o_share": f"{100 * found.value:.0f}",
        "o_low": f"{100 * found.interval.low:.0f}",
        "o_high": f"{100 * found.interval.high:.0f}",
        "o_chance": f"{100 * found.k / found.curve.size:.1f}",
        "o_chance_p": p_text(found.chance.p),
        "o_more": "more than" if more else "not clearly more than",
        "o_labels": f"{100 * np.median(found.labels.null):.0f}",
        "o_labels_p": p_text(found.labels.p),
        "o_fewer": "fewer than" if fewer else "not clearly fewer than",
        "o_ceiling": f"{100 * found.ceiling[found.k - 1]:.0f}",
        "o_within_rare": f"{100 * found.within['rare']:.0f}",
        "o_within_common": f"{100 * found.within['common']:.0f}",
        "o_spearman": f"{found.spearman:.2f}",
        "o_neuron": str(first.neuron),
        "o_first_rare": f"{first.rare:.2g}",
        "o_first_common": f"{first.common:.2g}",
        "o_first_low": f"{first.common_interval.low:.2g}",
        "o_first_high": f"{first.common_interval.high:.2g}",
        "o_first_rank": str(first.common_rank),
        "o_hurt": str(sum(one.common < 0 for one in found.top)),
        "o_carried": f"{100 * found.carried.value:.1f}",
        "o_carried_controls": f"{100 * np.median(found.carried.null):.1f}",
        "o_carried_p": p_text(found.carried.p),
    }
