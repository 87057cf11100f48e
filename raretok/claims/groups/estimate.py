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

KINDS = ("rare", "common")  # of targets, and what groups are chosen for, in the order of the data
LeftOut = Float[np.ndarray, " left_out"]


@dataclass(frozen=True, eq=False)
class Groups:
    """Loss change of groups that go together and the sum of their single effects, by block."""

    # By name, joint and single: over all blocks, then without each; the group, then random sets.
    means: dict[str, Float[np.ndarray, "left_out token_class chosen_for set percent"]]
    percent: Float[np.ndarray, " percent"]
    n_neurons: int  # of the layer

    @classmethod
    def of(cls, data: xr.Dataset) -> "Groups":
        """From the part `groups` of a measurement. Raises `NotTestableError` for no weight."""
        percent, weight = data.percent.values.astype(float), data.weight.values.astype(float)
        n_neurons = round(100 / percent[-1] * data.sizes["rank"])
        sums = {name: data[name].values.astype(float) for name in ("joint", "single")}
        means = {name: means_left_out(one, weight) for name, one in sums.items()}
        return cls(means, percent, n_neurons)

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
        at = (KINDS.index(kind), KINDS.index(chosen_for))
        return self.means[name][:, *at, :, self.at(percent)]


def means_left_out(
    sums: Float[np.ndarray, "token_class block *rest"],
    weight: Float[np.ndarray, "token_class block"],
) -> Float[np.ndarray, "left_out token_class *rest"]:
    """Means over all blocks, then without each of them. Raises `NotTestableError` for no weight."""
    n = weight.shape[1]
    kept = np.vstack([np.ones(n), 1 - np.eye(n)])
    total = kept @ weight.T
    if not (total > 0).all():
        raise NotTestableError("a part of the documents has no position of a class")
    flat = sums.reshape(*weight.shape, -1)
    means = np.einsum("lb,cbr->lcr", kept, flat) / total[..., None]
    return means.reshape(n + 1, len(weight), *sums.shape[2:])


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
