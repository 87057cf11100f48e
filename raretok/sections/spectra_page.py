"""What the page `spectra` draws and says; its tables are in spectra_tables.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from raretok.ledger.verdicts import p_text
from raretok.sections.eigenvalues import (
    hill,
    hill_curve,
    noise_density,
    noise_edges,
    shared_direction_spectra,
)
from raretok.sections.layer_spectrum import (
    Contribution,
    LayerSpectrum,
    contribution,
    layer_spectrum,
)
from raretok.sections.released_spectra import released_noise_distance
from raretok.sections.spectra import INDEX, MATRICES, MATTERS, GroupSpectrum, Spectra
from raretok.sections.spectra_tables import control_label, index_tests
from raretok.stats.documents import ALPHA, NullTest, null_test, percentile_interval


def layer_spectra(found: Spectra, *, rng: np.random.Generator) -> dict[str, LayerSpectrum]:
    """The spectrum of the whole layer in each matrix; the same under every protocol."""
    return {name: layer_spectrum(found.rows[name], rng=rng) for name in MATRICES}


def contributions(found: Spectra, of: Mapping[str, LayerSpectrum]) -> dict[str, Contribution]:
    """What the boost part adds to the layer's tail, in what it reads and in what it writes."""
    return {
        name: contribution(found.rows[name], of[name], found.folds["boost"])
        for name in ("W_in", "W_out")
    }


def eigenvalue_figure(found: Spectra, matrix: str) -> dict[str, Any]:
    """Arguments of `spectra_figures.group_eigenvalues`."""
    group = found.groups["boost", matrix]
    return {
        "spectrum": group.spectrum.mean(axis=0),
        "controls": percentile_interval(group.controls),
        "noise": percentile_interval(group.noise),
        "edge": noise_edges(group.size, group.width)[1],
        "control_label": control_label(found),
    }


def hill_figure(found: Spectra) -> dict[str, Any]:
    """Arguments of `spectra_figures.hill_plot`: the claim's matrix."""
    group = found.claimed
    return {
        "index": np.exp(np.log(hill_curve(group.spectrum)).mean(axis=0)),
        "controls": percentile_interval(hill_curve(group.controls)),
        "noise": percentile_interval(hill_curve(group.noise)),
        "used": group.tail,
        "control_label": control_label(found),
    }


def layer_figure(trained: LayerSpectrum, untrained: LayerSpectrum) -> dict[str, Any]:
    """Arguments of `spectra_figures.layer_density`."""
    both = {"trained": trained.spectrum, "untrained": untrained.spectrum}
    low = min(spectrum[-1] for spectrum in both.values()) * 0.99
    edges = np.geomspace(low, trained.spectrum[0] * 1.01, 41)
    edge = noise_edges(trained.n, trained.d)
    x = np.geomspace(max(edge[0], low) * 1.001, edge[1] * 0.999, 300)
    return {
        "edges": edges,
        "densities": {k: np.histogram(v, edges, density=True)[0] for k, v in both.items()},
        "x": x,
        "law": noise_density(x, trained.n, trained.d),
    }


def share_figure(found: Spectra, layer: LayerSpectrum, of: Contribution) -> dict[str, Any]:
    """Arguments of `spectra_figures.direction_share`."""
    return {
        "share": 100 * of.share.mean(axis=0),
        "controls": percentile_interval(100 * of.control_share),
        "beyond": layer.beyond,
        "control_label": control_label(found),
    }


@dataclass(frozen=True)
class Layers:
    """The whole layer, trained and untrained, and the group's part in it under each protocol."""

    trained: Mapping[str, LayerSpectrum]
    untrained: Mapping[str, LayerSpectrum]
    parts: Mapping[str, Mapping[str, Contribution]]


def shared_direction(group: GroupSpectrum, *, rng: np.random.Generator) -> NullTest:
    """Would one direction common to all rows give the same tail index (its logarithm)?

    Gaussian rows that share one direction, as strong as the group's largest eigenvalue.
    """
    largest = group.measured["largest eigenvalue"].value
    n_draws = len(group.noise)
    spectra = shared_direction_spectra(group.size, group.width, largest, n_draws, rng=rng)
    return null_test(group.measured[INDEX].value, np.log(hill(spectra, group.tail)), "two-sided")


def told(
    found: Mapping[str, Spectra],
    untrained: Mapping[str, Spectra],
    lead: str,
    layers: Layers,
    *,
    rng: np.random.Generator,
) -> dict[str, str]:
    """Numbers and findings of the page's sentences, as they are shown."""
    group, twin = found[lead].claimed, untrained[lead].claimed
    direction = shared_direction(group, rng=rng)
    code = found["code"].claimed
    medians = {name: index_numbers(one.claimed)["controls"] for name, one in found.items()}
    return {
        "lead": lead,
        "size": str(group.size),
        "matrix": {"both": "W_in and W_out together"}.get(found[lead].matrix, found[lead].matrix),
        "tail": str(group.tail),
        "kind": control_label(found[lead]),
        "code_matrix": found["code"].matrix,
        "code_tail": str(code.tail),
        "code_error": f"{100 / np.sqrt(code.tail):.0f}",
        "code_index": f"{np.exp(code.measured[INDEX].value):.2f}",
        "code_low": f"{code.interval[0]:.2f}",
        "code_high": f"{code.interval[1]:.2f}",
        "code_distance": f"{released_noise_distance(code.spectrum[0]):.2f}".replace("nan", "NaN"),
        "untrained_p": p_text(twin.measured[INDEX].worse.p),
        "one_low": f"{np.exp(np.quantile(direction.null, 0.025)):.1f}",
        "one_high": f"{np.exp(np.quantile(direction.null, 0.975)):.1f}",
        "one_finding": "inside" if direction.p >= ALPHA else "outside",
        "edge": f"{noise_edges(group.size, group.width)[1]:.2f}",
        "power_first": f"{index_power(group, 1):.2f}",
        "power_tail": f"{index_power(group, group.tail):.2f}",
        **{f"controls_{name}": median for name, median in medians.items()},
        **index_numbers(group),
        **{f"untrained_{k}": v for k, v in index_numbers(twin).items() if k == "index"},
        **{f"suppress_{k}": v for k, v in index_numbers(suppressed(found[lead])).items()},
        **layer_numbers(layers, lead),
    }


def index_power(group: GroupSpectrum, k: int) -> float:
    """Chance that a tail index of k eigenvalues at half the controls' would be seen."""
    return min(test.power(MATTERS) for test in index_tests(group, k))


def suppressed(found: Spectra) -> GroupSpectrum:
    return found.groups["suppress", found.matrix]


def index_numbers(group: GroupSpectrum) -> dict[str, str]:
    """Tail index of a group with what it is compared to."""
    one = group.measured[INDEX]
    return {
        "index": f"{np.exp(one.value):.2f}",
        "low": f"{group.interval[0]:.2f}",
        "high": f"{group.interval[1]:.2f}",
        "controls": f"{np.exp(np.median(one.controls.null)):.2f}",
        "noise": f"{np.exp(np.median(one.noise.null)):.2f}",
        "p_controls": p_text(one.controls.p),
        "p_noise": p_text(one.noise.p),
        "equals": f"{np.exp(np.median(group.equals.null)):.2f}",
        "p_equals": p_text(group.equals.p),
    }


def layer_numbers(layers: Layers, lead: str) -> dict[str, str]:
    """The layer's eigenvalues beyond noise, and the group's share in them."""
    numbers = {}
    for name, part in layers.parts[lead].items():
        layer = layers.trained[name]
        numbers |= {
            f"beyond_{name}": str(layer.beyond),
            f"rank_{name}": str(layer.spectrum.size),
            f"first_{name}": f"{layer.spectrum[0]:.0f}",
            f"untrained_beyond_{name}": str(layers.untrained[name].beyond),
            f"layer_index_{name}": f"{layer.index:.2f}",
            f"untrained_layer_index_{name}": f"{layers.untrained[name].index:.2f}",
            f"share_{name}": f"{100 * part.lead.value:.0f}",
            f"share_controls_{name}": f"{100 * np.median(part.lead.null):.0f}",
            f"share_p_{name}": p_text(part.lead.p),
            f"left_out_{name}": f"{100 * np.expm1(part.left_out.value):+.1f}",
            f"left_out_p_{name}": p_text(part.left_out.p),
        }
    return numbers
