"""The page `layers`: whether the neurons of the last MLP do more than those before it (G3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from raretok.claims.finding import Finding, found
from raretok.claims.regimes.estimate import head_of, lift
from raretok.claims.sample import LeftOut, Sample, by_rank
from raretok.errors import NotTestableError, UserError
from raretok.stats.jackknife import Estimate, jackknife

ESTIMANDS = (("G3", "share of the last layer"), ("G3", "lift of the layer before"))
BACK = (-1, -2, -3, -4)  # layers that are read, the last one first
EFFECTS = ("total", "unmediated")

Agreement = Float[np.ndarray, "token_class subset bound measure"]


@dataclass(frozen=True)
class Layers:
    """First-order effects of the last layers, by layer; of those that are missing the reason."""

    total: dict[int, Sample]
    unmediated: dict[int, Sample]  # the same positions and blocks
    agreement: dict[int, Agreement]
    counted: dict[str, float]
    gaps: dict[int, str]

    @property
    def whole(self) -> dict[int, Sample]:
        """Total effects of every layer asked for that the model has, at least two.

        Raises `NotTestableError` where one of them was not measured.
        """
        return complete(self.total, int(self.counted["layers"]))


def read(study: Any) -> Layers:
    """The measured layers of a study. Raises `NotTestableError` where none was measured."""
    parts, gaps = {}, {}
    for layer in BACK:
        try:
            parts[layer] = study.part(f"layer: {layer}")
        except NotTestableError as error:
            gaps[layer] = str(error)
    if not parts:
        raise NotTestableError(next(iter(gaps.values())))
    first = next(iter(parts.values()))
    counted = {name: float(first[name]) for name in ("positions", "documents")}
    return Layers(
        *({layer: study.blocks(one, name) for layer, one in parts.items()} for name in EFFECTS),
        {layer: one.agreement.values.astype(float) for layer, one in parts.items()},
        counted | {"layers": float(min(study.architecture.n_layers, len(BACK)))},
        gaps,
    )


def check_depth(n: int) -> None:
    """Raise `NotTestableError` for a model of one layer."""
    if n < 2:
        raise NotTestableError("the model has one layer: there is none before the last")


def complete(layers: dict[int, Sample], n: int) -> dict[int, Sample]:
    """The last `n` layers, all of the same positions.

    Raises `NotTestableError` where one is missing.
    """
    check_depth(n)
    missing = [str(layer) for layer in BACK[:n] if layer not in layers]
    if missing:
        raise NotTestableError(f"layer {', '.join(missing)} was not measured: measure it first")
    if any(not np.array_equal(one.weight, layers[-1].weight) for one in layers.values()):
        raise UserError("layers were measured at other positions: measure them again")
    return {layer: layers[layer] for layer in BACK[:n]}


def head_influence(sample: Sample, kind: str, effect: Sample | None = None) -> LeftOut:
    """Influence of the top 1 % of a layer, each ablated alone, added up; nats a token.

    Chosen on some blocks and measured on others; `effect`: another effect of the same neurons.
    """
    curves = by_rank(sample.influence(kind), (effect or sample).influence(kind, True))
    return curves[..., : head_of(sample)].sum(axis=-1).mean(axis=1)


def share(layers: dict[int, Sample], layer: int, kind: str = "rare") -> Estimate:
    """Influence of one layer's top 1 % over that of the top 1 % of every layer, paired by block.

    Raises `NotTestableError` where those of all layers together do not help.
    """
    each = {at: head_influence(one, kind) for at, one in layers.items()}
    total = np.sum(list(each.values()), axis=0)
    if not (total > 0).all():
        raise NotTestableError(f"the top neurons of these layers do not help {kind} targets")
    return jackknife(each[layer] / total)


def findings(layers: Layers) -> Iterator[Finding]:
    """G3 of the layers of one model. Raises `NotTestableError` where the last was not measured."""
    if -1 not in layers.total:
        raise NotTestableError("layer -1 was not measured: measure it first")
    computed = (
        (-1, lambda: share(layers.whole, -1)),
        (-2, lambda: lift(complete(layers.total, 2)[-2], "rare")),
    )
    for key, (layer, compute) in zip(ESTIMANDS, computed, strict=True):
        sample = layers.total.get(layer, layers.total[-1])
        more = {"neurons": float(head_of(sample)), "reliability": sample.reliability("rare")}
        yield found(key, "corrected", layers.counted | more, compute)
