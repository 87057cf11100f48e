"""Attention of single queries, summed up by how far back the keys lie, as it was measured."""

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from raretok.text.rarity import RARE, Positions


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
