"""Does it matter what is put in a neuron's place? Mean, zero, another position's value, direct."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from scipy.stats import spearmanr

from raretok.ledger.verdicts import p_text
from raretok.sections.influence import influence, top_overlap, top_share
from raretok.sections.plateau import HEAD, HeadTest, head_test
from raretok.text.rarity import COMMON, RARE

KINDS = {"rare": RARE, "common": COMMON}


@dataclass(frozen=True)
class Intervened:
    """Mean effect of each neuron on a class of targets under one intervention, in nats."""

    values: Float[np.ndarray, " neuron"]
    head: HeadTest
    share: float  # of all positive influence, held by the top 1 %

    @property
    def curve(self) -> tuple[Float[np.ndarray, " rank"], Float[np.ndarray, " rank"]]:
        """Ranks and values of the neurons whose ablation raises the loss."""
        descending = np.sort(self.values[self.values > 0])[::-1]
        return np.arange(1.0, descending.size + 1), descending


def intervene(mean: xr.Dataset, others: xr.Dataset) -> dict[str, dict[str, Intervened]]:
    """Signed influence, head test and share for rare and common targets, mean ablation first.

    `others` holds the sums of other interventions by class and document.
    """
    found: dict[str, dict[str, Intervened]] = {"mean": {}}
    for kind, stratum in KINDS.items():
        rows = mean.stratum.values == stratum
        values = influence(mean.delta_loss.values[rows], mean.weight.values[rows], signed=True)
        found["mean"][kind] = intervened(values)
        cells = others.cell_stratum.values == stratum
        total = others.weight.values[cells].sum()
        for name, sums in zip(others.interventions, others.delta_loss.values, strict=True):
            one = intervened(sums[cells].sum(axis=0) / total)
            found.setdefault(name, {})[kind] = one
    return found


def intervened(values: Float[np.ndarray, " neuron"]) -> Intervened:
    return Intervened(values, head_test(values), top_share(values))


def intervention_table(found: Mapping[str, Mapping[str, Intervened]]) -> pd.DataFrame:
    """What each intervention says, and how far its ranking is that of the first one."""
    reference = next(iter(found.values()))
    rows = []
    for name, kinds in found.items():
        for kind, one in kinds.items():
            base = reference[kind].values
            k = max(1, round(HEAD * base.size))
            shared = top_overlap(np.argsort(-one.values), np.argsort(-base), k)
            rows.append(
                {
                    "intervention": name,
                    "targets": kind,
                    "all positive effects, nats": f"{one.values.clip(0).sum():.2f}",
                    "top 1 % hold": f"{100 * one.share:.0f} %",
                    "head set apart: p": p_text(one.head.p),
                    "rank correlation with mean": f"{spearmanr(one.values, base).statistic:.2f}",
                    "top 1 % shared with mean": f"{100 * shared:.0f} %",
                }
            )
    return pd.DataFrame(rows).set_index(["intervention", "targets"])


def intervention_words(found: Mapping[str, Mapping[str, Intervened]]) -> dict[str, str]:
    """Numbers of the page's sentences: how often a head is found, and the least agreement."""
    heads = [one.head.p for kinds in found.values() for one in kinds.values()]
    base, *others = [kinds["rare"].values for kinds in found.values()]
    correlations = [spearmanr(values, base).statistic for values in others]
    return {
        "i_heads": f"{sum(p < 0.05 for p in heads)} of {len(heads)}",
        "i_least": f"{min(correlations):.2f}",
        "interventions": "on rare targets zero, resample and direct effects rank the neurons as "
        f"mean ablation does, to a rank correlation of {min(correlations):.2f} or more",
    }
