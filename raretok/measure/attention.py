"""Attention as it was measured: rows of single queries, and what ablating heads does.

Rows are summed up by how far back the keys lie, effects of heads over the positions of a document
and class.
"""

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from raretok.errors import NotTestableError
from raretok.text.rarity import RARE, Positions

WHOLE = -1  # in place of a head: every head of the layer
Target = tuple[int, int]  # layer, head


@dataclass(frozen=True, eq=False)
class Rows:
    """Attention of each query, summed up; the first token is a category of its own, the first."""

    queries: Positions
    edges: Int[np.ndarray, " edge"]  # lower end of each category but the first, in tokens back
    keys: Float[np.ndarray, "query category"]  # how many keys the category holds
    mass: Float[np.ndarray, "layer query head category"]  # attention paid to them together
    gini: Float[np.ndarray, "layer query head"]
    gini_rest: Float[np.ndarray, "layer query head"]  # without the first token

    @property
    def rare(self) -> Bool[np.ndarray, " query"]:
        return self.queries.stratum == RARE

    def layer(self, number: int) -> "Rows":
        """One layer alone."""
        some = slice(number, number + 1)
        arrays = {name: getattr(self, name)[some] for name in ("mass", "gini", "gini_rest")}
        return replace(self, **arrays)

    @classmethod
    def of(cls, data: xr.Dataset) -> "Rows":
        """From the part `attention PROTOCOL` of a measurement."""
        arrays = ("edges", "keys", "mass", "gini", "gini_rest")
        return cls(Positions.of(data), *(data[name].values for name in arrays))


@dataclass(frozen=True)
class HeadSums:
    """One way to ablate heads. A *cell* is the positions of one class in one document.

    Sums run over a cell's positions: of the size of a neuron's change, of the size of its
    activation, and of that size once a whole layer is ablated.
    """

    targets: list[Target]
    layers: list[int]  # that were ablated as a whole
    document: Int[np.ndarray, " cell"]
    stratum: Int[np.ndarray, " cell"]
    count: Float[np.ndarray, " cell"]  # positions
    change: Float[np.ndarray, "target cell neuron"]
    before: Float[np.ndarray, "cell neuron"]
    after: Float[np.ndarray, "layer cell neuron"]

    @classmethod
    def of(cls, data: xr.Dataset, protocol: str) -> "HeadSums":
        """From a part `heads DRAW MODE` of a measurement, its cells classed as a protocol does.

        Raises `NotTestableError` for a protocol whose classes could not be formed.
        """
        if f"cell_{protocol}" not in data:
            raise NotTestableError(f"rare and common types of {protocol} cannot be formed here")
        layers, heads = data.target_layer.values.tolist(), data.target_head.values.tolist()
        return cls(
            targets=list(zip(layers, heads, strict=True)),
            layers=data.layer.values.tolist(),
            document=data.cell_document.values,
            stratum=data[f"cell_{protocol}"].values,
            **{name: data[name].values for name in ("count", "change", "before", "after")},
        )
