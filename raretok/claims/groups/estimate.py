r"""The page `groups`: what neurons do together, beside the sum of what each does alone.

Groups are chosen on one half of the blocks of documents and measured on the other, so an interval
leaves one block out of the sums with the groups held.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from raretok.claims.compare import ratio
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate, jackknife
from raretok.text.rarity import KINDS


@dataclass(frozen=True, eq=False)
class Groups:
    """Loss change of groups that go together and the sum of their single effects."""

    means: xr.Dataset  # joint and single: over all blocks, then without each; nats a token
    n_neurons: int  # of the layer

    @classmethod
    def of(cls, data: xr.Dataset) -> "Groups":
        """From the part `groups` of a measurement. Raises `NotTestableError` for no weight."""
        n_neurons = round(100 / float(data.percent[-1]) * data.sizes["rank"])
        n = data.sizes["block"]
        kept = xr.DataArray(np.vstack([np.ones(n), 1 - np.eye(n)]), dims=("left_out", "block"))
        data = data[["joint", "single", "weight"]].astype(float)
        sums = data.map(lambda one: xr.dot(kept, one, dim="block"))
        if not (sums.weight > 0).all():
            raise NotTestableError("a part of the documents has no position of a class")
        means = (sums / sums.weight).assign_coords(token_class=list(KINDS), chosen_for=list(KINDS))
        return cls(means, n_neurons)

    @property
    def percent(self) -> Float[np.ndarray, " percent"]:
        return self.means.percent.values.astype(float)

    @property
    def sizes(self) -> list[int]:
        """Neurons in a group of each percentage, at least one."""
        return [max(1, round(one / 100 * self.n_neurons)) for one in self.percent]

    def at(self, percent: float) -> int:
        """Where a percentage stands. Raises `NotTestableError` where it was not measured."""
        near = np.flatnonzero(np.isclose(self.percent, percent))
        if not near.size:
            raise NotTestableError(f"groups of {percent:g} % were not measured: measure them")
        return int(near[0])

    def of_set(
        self, name: str, kind: str, chosen_for: str, percent: float
    ) -> Float[np.ndarray, "left_out set"]:
        """Mean change of a class of targets by the group, then by each random set, nats a token.

        `name`: joint or single.
        """
        some = self.means[name].sel(token_class=kind, chosen_for=chosen_for)
        return some.isel(percent=self.at(percent)).transpose("left_out", "set").values


def effect(groups: Groups, kind: str, chosen_for: str, percent: float) -> Estimate:
    """Loss change as a group goes together, nats a token."""
    return jackknife(groups.of_set("joint", kind, chosen_for, percent)[:, 0])


def of_sets(groups: Groups, kind: str, chosen_for: str, percent: float) -> tuple[float, float]:
    """Range of the loss change over the matched random sets, nats a token."""
    sets = groups.of_set("joint", kind, chosen_for, percent)[0, 1:]
    return float(sets.min()), float(sets.max())


def synergy(groups: Groups, kind: str, chosen_for: str, percent: float) -> Estimate:
    """Effect of a group that goes together over the sum of what its neurons do alone."""
    pair = (groups.of_set(name, kind, chosen_for, percent)[:, 0] for name in ("joint", "single"))
    return ratio(*pair, "joint over single effects")


def selectivity(groups: Groups, chosen_for: str, percent: float) -> Estimate:
    """Effect of a group on rare targets over its effect on common ones."""
    pair = (groups.of_set("joint", kind, chosen_for, percent)[:, 0] for kind in KINDS)
    return ratio(*pair, "rare over common effect")


def selectivity_of_sets(groups: Groups, chosen_for: str, percent: float) -> Estimate:
    """The same of the mean over the matched random sets."""
    pair = (groups.of_set("joint", kind, chosen_for, percent)[:, 1:].mean(axis=1) for kind in KINDS)
    return ratio(*pair, "rare over common effect of the random sets")
