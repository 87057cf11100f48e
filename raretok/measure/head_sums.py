"""What ablating heads does, as measured: sums over the positions of a document and class."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from raretok.errors import NotTestableError

WHOLE = -1  # in place of a head: every head of the layer
Target = tuple[int, int]  # layer, head


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
