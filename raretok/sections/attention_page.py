"""Plotted arrays and sentences of the page `attention`."""

from typing import Any

import numpy as np
from jaxtyping import Float

from raretok.claims.attention.head_sums import Target
from raretok.ledger.verdicts import p_text
from raretok.sections.attention import Attention
from raretok.sections.attention_profiles import LAST
from raretok.sections.attention_tables import MODE_NAMES, NOT_HERE, reason, unit_name
from raretok.stats.documents import ALPHA, percentile_interval

UNITS = {"sd": "of its standard deviation", "raw": "(activation, not standardised)"}
R_PUBLISHED = 0.82  # lower end of A1's published 0.89 +- 0.07
PUBLISHED = (-50.0, -45.0)  # A4, as printed; the ledger's range allows for rounding and spread


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
        "published": PUBLISHED,
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
    numbers = {
        "lead": found.protocol.name,
        "n_null": str(n_null),
        "paths": path_sentence(found),
        "unit": UNITS[unit_name(found)],
    }
    alike, knockout = found.alike, found.knockout
    none = {
        name: NOT_HERE for name in ("r", "r_word", "r_null", "r_p", "r_other", "gini", "gini_p")
    }
    if alike is not None:
        none = {
            "r": f"{alike.profile.test.value:.2f}",
            "r_word": r_word(alike.profile.test.value),
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
    return numbers | heads | {"groups": groups_sentence(found)}


def r_word(r: float) -> str:
    """Where r lies beside the published one."""
    return "as high as published" if r >= R_PUBLISHED else "lower than published"


def groups_sentence(found: Attention) -> str:
    """In how many of the groups shown the strongest head stands out."""
    p = [k.largest.test.p for (_, mode), k in found.knockouts.items() if mode == found.mode]
    if not p:
        return NOT_HERE
    return f"in {sum(one < ALPHA for one in p)} of the {len(p)} groups"
