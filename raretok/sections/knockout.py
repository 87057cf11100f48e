"""What ablated heads do to a group of last-MLP neurons, against control groups.

The effect of a head on a neuron is its mean absolute change over rare positions, in units of the
neuron's standard deviation (released code: un-normalised).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from raretok.claims.attention.head_sums import WHOLE, HeadSums, Target
from raretok.sections.attention_profiles import Tested
from raretok.stats.documents import Interval, NullTest, interval, null_test, resample_documents
from raretok.stats.groups import Compared, Fold, compare
from raretok.text.rarity import RARE

FEWEST = 10  # rare positions of a fold, below which nothing is compared
INTERVAL_CONTROLS = 50  # control groups that an interval of a ratio is computed with

Groups = Int[np.ndarray, "group member"]


@dataclass(frozen=True)
class Means:
    """Means over weighted positions, one a draw of weights."""

    size: Float[np.ndarray, "draw target neuron"]  # of |change|, in the unit of the effect
    before: Float[np.ndarray, "draw neuron"]  # of |activation|
    after: Float[np.ndarray, "draw layer neuron"]  # of |activation| once a layer is ablated


def unit_of(post: Float[np.ndarray, "position neuron"]) -> Float[np.ndarray, " neuron"]:
    """Standard deviation of each neuron; 1 for a constant one."""
    sd = post.std(axis=0, dtype=np.float64)
    return np.where(sd > 0, sd, 1.0)


def neuron_means(
    sums: HeadSums,
    cells: Int[np.ndarray, " kept"],
    unit: Float[np.ndarray, " neuron"],
    weights: Float[np.ndarray, "draw kept"],
    neurons: Int[np.ndarray, " some"] | slice = slice(None),
) -> Means:
    """Effects of every target on some neurons, over the positions of weighted cells."""
    total = (weights @ sums.count[cells])[:, None]
    w = weights / np.maximum(total, 1e-300)
    return Means(
        size=np.stack([w @ one[cells][:, neurons] / unit[neurons] for one in sums.change], axis=1),
        before=w @ sums.before[cells][:, neurons],
        after=np.stack([w @ one[cells][:, neurons] for one in sums.after], axis=1),
    )


def group_effects(
    size: Float[np.ndarray, "*draw target neuron"], groups: Groups
) -> Float[np.ndarray, "*draw group target"]:
    """Mean effect of each target on the neurons of each group."""
    return np.moveaxis(size[..., groups].mean(axis=-1), -1, -2)


def largest_share(effects: Float[np.ndarray, "*group target"]) -> Float[np.ndarray, "*group"]:
    """Share of the head with the largest effect in the effects of all heads; 0 without effects."""
    total = effects.sum(axis=-1)
    return effects.max(axis=-1) / np.where(total > 0, total, np.inf)


def size_change(
    before: Float[np.ndarray, "*draw neuron"],
    after: Float[np.ndarray, "*draw target neuron"],
    groups: Groups,
) -> Float[np.ndarray, "*draw group target"]:
    """Relative change, in %, of the mean size of a group's activations.

    100 (sum |ablated| / sum |clean| - 1), sums over neurons and positions. Sizes, since a mean with
    its sign may lie near 0, where a ratio means nothing: a GELU is slightly negative most of the
    time. A group that is always silent keeps its size.
    """
    silent = before[..., groups].sum(axis=-1)[..., None]
    left = np.moveaxis(after[..., groups].sum(axis=-1), -1, -2)
    return 100 * np.where(silent > 0, left / np.where(silent > 0, silent, 1.0) - 1, 0.0)


def attention_test(sizes: list[Float[np.ndarray, "head neuron"]], folds: list[Fold]) -> NullTest:
    """Is the largest effect of one head larger on the group than on its controls?

    `sizes`: effect of each head on each neuron, one array a fold. The statistic is the largest of
    the heads' mean effects, of the group as of every control group, so that many heads need no
    correction; in units of the mean of the controls. Raises `ValueError` ("not testable") where
    no head has an effect.
    """
    found = over_folds(sizes, folds, lambda size, groups: group_effects(size, groups).max(axis=-1))
    return ratio_test(found)


def ratio_test(found: Compared) -> NullTest:
    """Is a positive statistic of the group larger than that of its controls, in units of these?"""
    scale = float(found.null.mean())
    if not scale > 0:
        raise ValueError("not testable: no head of these layers has an effect on the last MLP")
    return null_test(found.value / scale, found.null / scale, "greater")


def over_folds(
    measured: list[Any], folds: list[Fold], statistic: Callable[..., Float[np.ndarray, " group"]]
) -> Compared:
    """A statistic of the group and its controls, from what each fold measured."""
    of = {id(fold): one for fold, one in zip(folds, measured, strict=True)}
    return compare(folds, lambda fold, groups: statistic(of[id(fold)], groups))


@dataclass(frozen=True)
class Part:
    """What one fold measured: changes at its rare positions, cell by cell."""

    fold: Fold
    sums: HeadSums
    cells: Int[np.ndarray, " kept"]  # of the rare positions of the documents it measures
    unit: Float[np.ndarray, " neuron"]
    document: Int[np.ndarray, " kept"]  # of each cell, counted from 0 over all folds

    @property
    def targets(self) -> list[Target]:
        return self.sums.targets

    @property
    def n_positions(self) -> int:
        return int(self.sums.count[self.cells].sum())

    def means(self) -> Means:
        """Over all positions."""
        return neuron_means(self.sums, self.cells, self.unit, np.ones((1, self.cells.size)))

    def resampled(self, counts: Float[np.ndarray, "boot document"]) -> tuple[Means, Groups]:
        """Bootstrap means of the group and of a few controls, and where these are among them."""
        groups = np.vstack([self.fold.group[None], self.fold.controls[:INTERVAL_CONTROLS]])
        neurons, at = np.unique(groups, return_inverse=True)
        means = neuron_means(self.sums, self.cells, self.unit, counts[:, self.document], neurons)
        return means, at.reshape(groups.shape)


def part_of(
    sums: HeadSums,
    fold: Fold,
    measured: Int[np.ndarray, " document"],
    unit: Float[np.ndarray, " neuron"],
) -> Part:
    """The rare positions of the documents that a fold measures.

    Raises `ValueError` ("not testable") for fewer than 10.
    """
    cells = np.flatnonzero(np.isin(sums.document, measured) & (sums.stratum == RARE))
    n = int(sums.count[cells].sum())
    if n < FEWEST:
        raise ValueError(f"not testable: {n} rare positions, {FEWEST} are needed")
    if np.unique(sums.document[cells]).size < 2:
        raise ValueError("not testable: all rare positions are in one document")
    document = np.searchsorted(np.unique(sums.document), sums.document)[cells]
    return Part(fold, sums, cells, unit, document)


@dataclass(frozen=True)
class LayerKnockout:
    """What ablating whole layers does to the size of a group's activations."""

    change: Tested  # %, mean over layers
    change_layer: dict[int, float]
    change_null: dict[int, Float[np.ndarray, " draw"]]


@dataclass(frozen=True)
class Knockout:
    """One way to ablate heads, and what it does to one group of neurons."""

    mode: str
    layers: list[int]  # tested: the last two that reach the last MLP
    n_positions: int  # rare ones
    effect: dict[Target, float]  # on the group, in the unit of the effect
    control: dict[Target, float]  # on the control groups, mean
    largest: Tested  # of the effects of single heads, in units of the controls
    equals_p: float  # the same against groups as influential on common targets
    share: NullTest  # of the largest head in the effects of all
    whole: LayerKnockout

    @property
    def strongest(self) -> Target:
        """The head with the largest effect on the group, of the layers tested."""
        heads = [t for t in self.effect if t[0] in self.layers and t[1] != WHOLE]
        return max(heads, key=self.effect.__getitem__)


def knock_out(
    mode: str,
    parts: list[Part],
    layers: list[int],
    *,
    n_boot: int,
    rng: np.random.Generator,
) -> Knockout:
    """What one way of ablating does to a group, tested on `layers`.

    Raises `ValueError` ("not testable") where no head has an effect.
    """
    folds, targets = [part.fold for part in parts], parts[0].targets
    heads = [i for i, t in enumerate(targets) if t[0] in layers and t[1] != WHOLE]
    sizes = [part.means().size[0] for part in parts]
    tested = [size[heads] for size in sizes]
    effect, control = head_effects(parts)
    largest = over_folds(tested, folds, lambda size, g: group_effects(size, g).max(axis=-1))
    share = over_folds(tested, folds, lambda size, g: largest_share(group_effects(size, g)))
    return Knockout(
        mode=mode,
        layers=layers,
        n_positions=sum(part.n_positions for part in parts),
        effect=effect,
        control=control,
        largest=Tested(ratio_test(largest), largest_interval(parts, heads, n_boot, rng)),
        equals_p=null_test(largest.value, largest.equals, "greater").p,
        share=null_test(share.value, share.null, "greater"),
        whole=knock_out_layers(parts, layers, n_boot=n_boot, rng=rng),
    )


def head_effects(parts: list[Part]) -> tuple[dict[Target, float], dict[Target, float]]:
    """Effect of every target on the group, and on its control groups on average."""
    sizes = [part.means().size[0] for part in parts]
    effect, control = over_targets(sizes, [part.fold for part in parts], group_effects)
    named = (effect.tolist(), control.mean(axis=0).tolist())
    return tuple(dict(zip(parts[0].targets, one, strict=True)) for one in named)


def knock_out_layers(
    parts: list[Part], layers: list[int], *, n_boot: int, rng: np.random.Generator
) -> LayerKnockout:
    """Do whole layers take more of the group's activations away than of its controls'?"""
    whole = [parts[0].sums.layers.index(layer) for layer in layers]
    means = [part.means() for part in parts]
    pairs = [(one.before[0], one.after[0][whole]) for one in means]
    change, null = over_targets(pairs, [part.fold for part in parts], size_change)
    return LayerKnockout(
        Tested(
            null_test(float(change.mean()), null.mean(axis=1), "less"),
            change_interval(parts, whole, n_boot, rng),
        ),
        dict(zip(layers, change.tolist(), strict=True)),
        dict(zip(layers, null.T, strict=True)),
    )


def over_targets(
    measured: list[Any],
    folds: list[Fold],
    statistic: Callable[..., Float[np.ndarray, "group target"]],
) -> tuple[Float[np.ndarray, " target"], Float[np.ndarray, "draw target"]]:
    """A statistic of every target, of the group and of its controls; means over the folds."""
    both = []
    for one, fold in zip(measured, folds, strict=True):
        arguments = one if isinstance(one, tuple) else (one,)
        both.append([statistic(*arguments, g) for g in (fold.group[None], fold.controls)])
    group, controls = (np.mean(part, axis=0) for part in zip(*both, strict=True))
    return group[0], controls


def document_counts(
    parts: list[Part], n_boot: int, rng: np.random.Generator
) -> Float[np.ndarray, "boot document"]:
    """Bootstrap samples of documents, the same for every fold."""
    n_documents = max(int(part.document.max()) for part in parts) + 1
    return resample_documents(n_documents, n_boot, rng=rng)


def largest_interval(
    parts: list[Part], heads: list[int], n_boot: int, rng: np.random.Generator
) -> Interval:
    """Of the largest head effect in units of the controls, over documents."""
    counts = document_counts(parts, n_boot, rng)
    largest = []
    for part in parts:
        means, at = part.resampled(counts)
        largest.append(group_effects(means.size[:, heads], at).max(axis=-1))
    mean = np.mean(largest, axis=0)
    controls = mean[:, 1:].mean(axis=1)
    return interval(mean[:, 0] / np.where(controls > 0, controls, np.inf))


def change_interval(
    parts: list[Part], whole: list[int], n_boot: int, rng: np.random.Generator
) -> Interval:
    """Of the change of the group's activations, %, over documents."""
    counts = document_counts(parts, n_boot, rng)
    change = []
    for part in parts:
        means, at = part.resampled(counts)
        change.append(size_change(means.before, means.after[:, whole], at[:1]).mean(axis=(1, 2)))
    return interval(np.mean(change, axis=0))
