"""Tables, plotted arrays and sentences of the page `attention`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from raretok.ledger import p_text, paper_claims
from raretok.rarity import COMMON, RARE
from raretok.sections.attention import Attention
from raretok.sections.attention_profiles import LAST, Tested
from raretok.sections.head_ablation import WHOLE, HeadEffects, Target
from raretok.sections.knockout import Knockout
from raretok.stats import (
    bootstrap_means,
    document_sums,
    percentile_interval,
    resample_documents,
)

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


def profile_panels(found: Attention) -> list[dict[str, Any] | str]:
    """For each of the last two layers its most alike and its least alike head."""
    if found.alike is None:
        return [reason(found, "A1")]
    profiles, panels = found.alike.profiles, []
    n_layers = profiles.r.shape[0]
    offset = found.alike.edges[: profiles.rare.shape[2] - 1].astype(float)
    for layer in range(max(0, n_layers - LAST), n_layers):
        order = np.argsort(profiles.r[layer])
        for head in dict.fromkeys([int(order[0]), int(order[-1])]):
            rare, common = profiles.rare[layer, head], profiles.common[layer, head]
            panels.append(
                {
                    "offset": offset,
                    "rare": rare[1:],
                    "common": common[1:],
                    "first": {"rare": float(rare[0]), "common": float(common[0])},
                    "title": f"layer {layer}, head {head}: r = {profiles.r[layer, head]:.2f}",
                }
            )
    return panels


def head_labels(n_layers: int, n_heads: int) -> list[str]:
    return [f"{layer}.{head}" for layer in range(n_layers) for head in range(n_heads)]


def band(null: Float[np.ndarray, "draw *shape"]) -> dict[str, Float[np.ndarray, " item"]]:
    """95 % of a null, flat."""
    low, high = np.quantile(null, [0.025, 0.975], axis=0)
    return {"null_low": low.ravel(), "null_high": high.ravel()}


def r_dots(found: Attention) -> dict[str, Any] | str:
    """Correlation of both profiles in every head."""
    if found.alike is None:
        return reason(found, "A1")
    profiles = found.alike.profiles
    return {
        "label": head_labels(*profiles.r.shape),
        "value": profiles.r.ravel(),
        "low": profiles.low.ravel(),
        "high": profiles.high.ravel(),
        **band(profiles.null),
        "ceiling": profiles.ceiling.ravel(),
        "xlabel": "layer.head",
        "ylabel": "r of rare and common profile",
        "null_label": "exchanged labels, 95 %",
    }


def gini_dots(found: Attention, rest: bool = False) -> dict[str, Any] | str:
    """Difference in Gini in every head, with or without the first token."""
    if found.alike is None:
        return reason(found, "A2")
    gini = found.alike.gini_rest if rest else found.alike.gini
    low, high = percentile_interval(gini.boot)
    return {
        "label": head_labels(*gini.difference.shape),
        "value": gini.difference.ravel(),
        "low": low.ravel(),
        "high": high.ravel(),
        **band(gini.null),
        "xlabel": "layer.head",
        "ylabel": "Gini, rare less common",
        "null_label": "exchanged labels, 95 %",
        "zero": True,
    }


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


def heat_maps(found: Attention) -> list[dict[str, Any] | str]:
    """Effect of every head that was ablated, on the group and on its controls."""
    knockout = found.knockout
    if knockout is None:
        return [reason(found, "A3")] * 2
    early = early_effects(found)
    maps = []
    for name, effects in (("plateau group", "effect"), ("control groups", "control")):
        every = {**early.get(effects, {}), **getattr(knockout, effects)}
        layers = sorted({layer for layer, _ in every})
        heads = range(found.architecture.n_heads)
        grid = np.array([[every[layer, head] for head in heads] for layer in layers])
        maps.append({"effect": grid, "layers": layers, "title": name})
    largest = max(float(one["effect"].max()) for one in maps)
    return [{**one, "largest": largest} for one in maps]


def early_effects(found: Attention) -> dict[str, dict[Target, float]]:
    """Effects of earlier layers' heads, where these were ablated."""
    return found.early if found.mode == "mean" else {}


def layer_dots(found: Attention) -> dict[str, Any] | str:
    """Change of the group's activations by whole layers under every mode, with the controls."""
    items = [
        (f"{MODE_NAMES[mode].split()[0]}\nlayer {layer}", k.whole.change_layer[layer], null)
        for (name, mode), k in found.knockouts.items()
        if name == "boost"
        for layer, null in k.whole.change_null.items()
    ]
    if not items:
        return reason(found, "A4")
    return {
        "label": [label for label, _, _ in items],
        "value": np.array([value for _, value, _ in items]),
        "low": None,
        "high": None,
        **band(np.stack([null for _, _, null in items], axis=1)),
        "xlabel": "ablation of a whole attention layer",
        "ylabel": "size of activations, change (%)",
        "null_label": "control groups, 95 %",
        "published": (-50.0, -45.0),
        "zero": True,
    }


def largest_figure(found: Attention) -> dict[str, Any] | str:
    """Null and observed largest head effect, as arguments of `figures.null_histogram`."""
    if found.knockout is None:
        return reason(found, "A3")
    test = found.knockout.largest.test
    return {
        "null": test.null,
        "observed": {"observed": test.value},
        "xlabel": "largest head effect (x controls)",
        "null_label": "control groups",
        "level": float(np.quantile(test.null, 0.95)),
    }


def knockout_row(knockout: Knockout, unit: str) -> dict[str, str]:
    """One line of a table of knockouts."""
    layer, head = knockout.strongest
    whole = knockout.whole.change
    return {
        "rare positions": str(knockout.n_positions),
        "largest head": f"{layer}.{head}",
        f"its effect, {unit}": f"{knockout.effect[layer, head]:.2f}",
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
        MODE_NAMES[mode]: knockout_row(k, unit_name(found))
        for (name, mode), k in found.knockouts.items()
        if name == "boost"
    }
    return pd.DataFrame(rows) if rows else note_table(reason(found, "A3"))


def groups_table(found: Attention) -> pd.DataFrame:
    """Boost and suppress part, and other sizes, under the mode of the claims."""
    rows = {
        name: knockout_row(k, unit_name(found))
        for (name, mode), k in found.knockouts.items()
        if mode == found.mode
    }
    return pd.DataFrame(rows) if rows else note_table(reason(found, "A3"))


def protocols_table(found: Mapping[str, Attention]) -> pd.DataFrame:
    """The plateau group under each protocol."""
    rows = {}
    for name, one in found.items():
        if one.knockout is None:
            rows[name] = {"ablation": reason(one, "A3")}
            continue
        row = {"ablation": MODE_NAMES[one.mode], **knockout_row(one.knockout, "")}
        rows[name] = {key.removesuffix(", "): value for key, value in row.items()}
        rows[name]["unit of its effect"] = unit_name(one)
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
    run: HeadEffects, target: Target, stratum: int, n_boot: int, rng: np.random.Generator
) -> str:
    """Mean loss change of a class, nats, with its interval over documents."""
    rows = run.positions.stratum == stratum
    document = np.unique(run.positions.document[rows], return_inverse=True)[1]
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
        total = np.abs(run.change[run.index(layer, head)][:, found.group]).sum(axis=1)
        rare, other = (total[run.positions.stratum == s].mean() for s in (RARE, COMMON))
        rows[f"{layer}.{head}"] = {
            "influence, rare": f"{rare:.3f}",
            "influence, other": f"{other:.3f}",
            "selectivity (difference)": f"{rare - other:+.3f}",
            "quotient": f"{rare / other:.2f}" if other > 0 else "no effect",
        }
    return pd.DataFrame(rows).T.rename_axis(index="head")


def path_sentence(found: Attention) -> str:
    """Which heads of the last two layers can reach the last MLP at all."""
    n = found.architecture.n_layers
    if len(found.layers) == min(LAST, n):
        return (
            f"in {found.architecture.family} attention comes before the MLP of a block, so the "
            "heads of both layers can"
        )
    return (
        "its blocks run attention and MLP in parallel, so the heads of the last layer cannot: "
        "their effect is exactly 0, and the claims are tested on the layer before"
    )


def told(found: Attention, n_null: int) -> dict[str, str]:
    """Numbers and findings of the page's sentences."""
    numbers = {"lead": found.protocol.name, "n_null": str(n_null), "paths": path_sentence(found)}
    alike, knockout = found.alike, found.knockout
    none = {name: NOT_HERE for name in ("r", "r_null", "r_p", "r_other", "gini", "gini_p")}
    if alike is not None:
        none = {
            "r": f"{alike.profile.test.value:.2f}",
            "r_null": f"{alike.profile.test.null.mean():.2f}",
            "r_p": p_text(alike.profile.test.p),
            "r_other": f"{alike.profiles.other[-LAST:].mean():.2f}",
            "gini": f"{alike.gini_tested.test.value:+.3f}",
            "gini_p": p_text(alike.gini_tested.test.p),
        }
    numbers |= none
    heads = {name: NOT_HERE for name in ("head", "effect", "ratio", "head_p", "change", "lost")}
    if knockout is not None:
        layer, head = knockout.strongest
        heads = {
            "head": f"{layer}.{head}",
            "effect": f"{knockout.effect[layer, head]:.2f}",
            "ratio": f"{knockout.largest.test.value:.1f}",
            "head_p": p_text(knockout.largest.test.p),
            "change": f"{knockout.whole.change.test.value:+.0f}",
            "lost": f"{knockout.whole.change.test.null.mean():+.0f}",
        }
    return numbers | heads | {"published_layers": paper_claims()["A4"].published}
