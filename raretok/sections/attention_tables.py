"""Tables of the page `attention`."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from raretok.claims.attention.head_sums import WHOLE, HeadSums, Target
from raretok.ledger.verdicts import p_text
from raretok.sections.attention import Attention
from raretok.sections.attention_profiles import LAST, Tested
from raretok.sections.knockout import Knockout
from raretok.stats.documents import (
    bootstrap_means,
    document_sums,
    percentile_interval,
    resample_documents,
)
from raretok.text.rarity import COMMON, RARE

MODE_NAMES = {
    "mean": "mean",
    "zero": "zero",
    "resample": "resample",
    "first": "redirect to the first token",
}
NOT_HERE = "not testable here"


def reason(found: Attention, claim: str) -> str:
    """Why a claim has no figure."""
    text = found.reasons.get(claim, "not run").removeprefix("not testable: ")
    return f"{NOT_HERE}: {text}"


def queries_table(found: Mapping[str, Attention]) -> pd.DataFrame:
    """What was compared under each protocol."""
    rows = {}
    for name, one in found.items():
        if one.alike is None:
            rows[name] = {"queries a class": reason(one, "A1")}
            continue
        queries = one.alike.queries
        rare = queries.stratum == RARE
        rows[name] = {
            "queries a class": str(int(rare.sum())),
            "documents": str(np.unique(queries.document).size),
            "matched on": "position, document" if one.protocol.matched else "nothing",
            "mean position, rare": f"{queries.pos[rare].mean():.1f}",
            "mean position, common": f"{queries.pos[~rare].mean():.1f}",
        }
    return pd.DataFrame(rows).T.fillna("")


def layer_gini_table(found: Attention) -> pd.DataFrame:
    """Gini by layer, mean over its heads, with interval and null."""
    if found.alike is None:
        return note_table(reason(found, "A2"))
    rows = {}
    for name, one in (("all keys", found.alike.gini), ("no first token", found.alike.gini_rest)):
        low, high = percentile_interval(one.boot.mean(axis=2))
        null = one.null.mean(axis=2)
        for layer, difference in enumerate(one.difference.mean(axis=1)):
            above = np.mean(np.abs(null[:, layer]) >= abs(difference))
            rows[name, layer] = {
                "rare": f"{one.rare[layer].mean():.3f}",
                "common": f"{one.common[layer].mean():.3f}",
                "difference": f"{difference:+.3f}",
                "95 %": f"{low[layer]:+.3f} to {high[layer]:+.3f}",
                "exchanged labels as large": f"{100 * above:.1f} %",
            }
    table = pd.DataFrame(rows).T
    return table.rename_axis(index=["keys", "layer"])


def note_table(text: str) -> pd.DataFrame:
    """A table that says why there is none."""
    return pd.DataFrame({"": [text]}).set_index("")


def alike_table(found: Mapping[str, Attention]) -> pd.DataFrame:
    """Means over the heads of the last two layers, under each protocol."""
    rows = {}
    for name, one in found.items():
        if one.alike is None:
            rows[name] = {"r": reason(one, "A1")}
            continue
        alike, profiles = one.alike, one.alike.profiles
        rows[name] = {
            "r": tested_text(alike.profile, 3),
            "r, exchanged labels": f"{alike.profile.test.null.mean():.3f}",
            "r, split-half ceiling": f"{profiles.ceiling[-LAST:].mean():.3f}",
            "r of log attention": f"{profiles.r_log[-LAST:].mean():.3f}",
            "r with other heads": f"{profiles.other[-LAST:].mean():.2f}",
            "p, r lower": p_text(alike.profile.test.p),
            "Gini difference": tested_text(alike.gini_tested, 3),
            "p, Gini": p_text(alike.gini_tested.test.p),
            "the same, no first token": tested_text(alike.gini_rest_tested, 3),
            "p, no first token": p_text(alike.gini_rest_tested.test.p),
        }
    return pd.DataFrame(rows).fillna("")


def tested_text(tested: Tested, digits: int) -> str:
    low, high = tested.interval.low, tested.interval.high
    return f"{tested.test.value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def knockout_row(knockout: Knockout) -> dict[str, str]:
    """One line of a table of knockouts."""
    layer, head = knockout.strongest
    whole = knockout.whole.change
    return {
        "rare positions": str(knockout.n_positions),
        "largest head": f"{layer}.{head}",
        "its effect": f"{knockout.effect[layer, head]:.2f}",
        "x controls": tested_text(knockout.largest, 2),
        "p": p_text(knockout.largest.test.p),
        "p, equals on common": p_text(knockout.equals_p),
        "its share of all heads": f"{100 * knockout.share.value:.0f} %"
        f" (controls {100 * knockout.share.null.mean():.0f} %)",
        "p, share": p_text(knockout.share.p),
        "whole layers, change %": tested_text(whole, 1),
        "controls, change %": f"{whole.test.null.mean():.1f}",
        "p, change": p_text(whole.test.p),
    }


def unit_name(found: Attention) -> str:
    return "raw" if found.mode == "first" else "sd"


def modes_table(found: Attention) -> pd.DataFrame:
    """The plateau group under every mode."""
    rows = {
        MODE_NAMES[mode]: knockout_row(k)
        for (name, mode), k in found.knockouts.items()
        if name == "boost"
    }
    return pd.DataFrame(rows) if rows else note_table(reason(found, "A3"))


def groups_table(found: Attention) -> pd.DataFrame:
    """Boost and suppress part, and other sizes, under the mode of the claims."""
    rows = {
        name: knockout_row(k) for (name, mode), k in found.knockouts.items() if mode == found.mode
    }
    return pd.DataFrame(rows) if rows else note_table(reason(found, "A3"))


def protocols_table(found: Mapping[str, Attention]) -> pd.DataFrame:
    """The plateau group under each protocol."""
    rows = {}
    for name, one in found.items():
        if one.knockout is None:
            rows[name] = {"ablation": reason(one, "A3")}
            continue
        rows[name] = {
            "ablation": MODE_NAMES[one.mode],
            "unit of the effect": unit_name(one),
            **knockout_row(one.knockout),
        }
    return pd.DataFrame(rows).fillna("")


def loss_table(found: Attention, n_boot: int, rng: np.random.Generator) -> pd.DataFrame:
    """Loss change, nats, of ablating whole layers and the strongest head, rare and common."""
    rows = {}
    for mode in MODE_NAMES:
        run, knockout = found.heads.get(mode), found.knockouts.get(("boost", mode))
        if run is None:
            continue
        whole = [target for target in run.targets if target[1] == WHOLE]
        for target in [*([knockout.strongest] if knockout else []), *whole]:
            layer, head = target
            name = f"layer {layer}" if head == WHOLE else f"head {layer}.{head}"
            rows[MODE_NAMES[mode], name] = {
                kind: loss_text(run, target, stratum, n_boot, rng)
                for kind, stratum in (("rare targets", RARE), ("common targets", COMMON))
            }
    return pd.DataFrame(rows).T.rename_axis(index=["ablation", "of"])


def loss_text(
    run: HeadSums, target: Target, stratum: int, n_boot: int, rng: np.random.Generator
) -> str:
    """Mean loss change of a class, nats, with its interval over documents."""
    rows = run.loss_stratum == stratum
    document = np.unique(run.loss_document[rows], return_inverse=True)[1]
    if document.size == 0 or document.max() == 0:
        return "too few documents"
    values = run.delta_loss[run.index(*target), rows, None].astype(np.float64)
    sums = document_sums(values, document, np.ones(rows.sum()))
    counts = resample_documents(int(document.max()) + 1, n_boot, rng=rng)
    low, high = percentile_interval(bootstrap_means(sums, counts)[:, 0])
    return f"{values.mean():+.3f} ({float(low):+.3f} to {float(high):+.3f})"


def released_table(found: Attention) -> pd.DataFrame:
    """The released statistic: sums of changes over the group, rare and other inputs; no test."""
    run = found.heads.get("first")
    if run is None or found.group is None:
        return note_table(reason(found, "A3"))
    rows = {}
    for layer, head in run.targets:
        if head == WHOLE:
            continue
        total = run.change[run.index(layer, head)][:, found.group].sum(axis=1)
        classes = [run.stratum == s for s in (RARE, COMMON)]
        rare, other = (total[of].sum() / run.count[of].sum() for of in classes)
        rows[f"{layer}.{head}"] = {
            "influence, rare": f"{rare:.3f}",
            "influence, other": f"{other:.3f}",
            "selectivity (difference)": f"{rare - other:+.3f}",
            "quotient": f"{rare / other:.2f}" if other > 0 else "no effect",
        }
    return pd.DataFrame(rows).T.rename_axis(index="head")
