"""The page `modularity`: does the plateau group fall into modules? The evidence on M1.

Three statistics, one a protocol. `code`: signed Q of spectral clusters, as released. `text`: the
largest Q that any partition of the |r| graph has. That Q has a floor which is not modularity: it
is about 0.1 for 10 independent neurons, and *falls* as neurons act together, so a group that is
merely less coordinated than its controls has a higher Q. `corrected`: the partition is found on one
half of the documents and its Q taken on the other, less what communities of the same sizes have by
chance (held-out Q). It is about 0 without modules, whether neurons are independent or share one
common factor, and positive with them.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from raretok.ledger.claims import Evidence
from raretok.sections.communities import best_partitions
from raretok.sections.graphs import (
    Activity,
    correlation,
    effects_activity,
    fold_activity,
    rewired,
    shuffled,
)
from raretok.sections.module_measures import (
    STATISTICS,
    Links,
    difference_draws,
    find_links,
    links_beyond,
    measures,
)
from raretok.stats.documents import Interval, NullTest, Side, interval, null_test
from raretok.stats.groups import Compared, Fold
from raretok.text.protocol import Protocol
from raretok.text.rarity import RARE

# Two modules apart give a Q of 0.5, four 0.75, and above 0.3 a graph is usually called modular.
MATTERS = 0.1
SPLITS = 4  # of the documents, that the held-out Q is averaged over; more do not steady it
EQUALS = 200  # groups of the second control, which is shown and not tested against
OWN_DRAWS = 300  # rewired and shuffled graphs of the group
AT_ONCE = 50  # shuffled copies of the activations kept at a time
BOOTSTRAPS = 200  # samples of documents that Q is computed on again
BOOTSTRAP_CONTROLS = 10  # control groups in each of them
BOOTSTRAP_SPLITS = 2

OF_PROTOCOL = {"code": "released Q", "text": "largest Q", "corrected": "held-out Q"}
REWIRED, SHUFFLED = "strengths kept", "shuffled within documents"  # the group's own nulls


def modularity_test(
    post: Float[np.ndarray, "position neuron"],
    folds: list[Fold],
    document: Int[np.ndarray, " position"],
    *,
    rows: Bool[np.ndarray, " position"] | None = None,
    weight: Float[np.ndarray, " position"] | None = None,
    statistic: str = "held-out Q",
    n_splits: int = 1,
    rng: np.random.Generator,
) -> NullTest:
    """Is the group more modular than its controls? One-sided, on activations alone.

    `rows`: the positions of the class that is asked about (all); `weight`: what each stands for.
    """
    rows = np.ones(len(post), dtype=bool) if rows is None else rows
    weight = np.ones(len(post)) if weight is None else weight
    measure, values, nulls = STATISTICS[statistic], [], []
    for fold in folds:
        links = find_links(
            fold_activity(post, fold, rows, document, weight, n_splits=n_splits, rng=rng)
        )
        values.append(measure(links.among(fold.group[None]))[0])
        nulls.append(measure(links.among(fold.controls)))
    return null_test(float(np.mean(values)), np.mean(nulls, axis=0), "greater")


@dataclass(frozen=True)
class Modularity:
    """What one protocol finds in the group and its controls, in one class of positions."""

    protocol: Protocol
    folds: list[Fold]
    activities: list[Activity]
    links: list[Links]
    measures: dict[str, Compared]
    own: dict[str, Float[np.ndarray, " draw"]]  # largest Q of the group's own null graphs
    beyond: NullTest  # links within the group less links to its controls
    run: str

    @property
    def statistic(self) -> str:
        return OF_PROTOCOL[self.protocol.name]

    @property
    def test(self) -> NullTest:
        """The protocol's statistic against the control groups."""
        return self.against_controls(self.statistic, "greater")

    @property
    def likeness(self) -> str:
        """How control groups are drawn."""
        return "matched" if self.protocol.matched else "random"

    @property
    def nulls(self) -> dict[str, NullTest]:
        """The largest Q against each null; two-sided, since the sign is in question."""
        largest = self.measures["largest Q"]
        against = {f"{self.likeness} groups": largest.null, **self.own}
        return {name: null_test(largest.value, null, "two-sided") for name, null in against.items()}

    def against_controls(self, measure: str, side: Side) -> NullTest:
        found = self.measures[measure]
        return null_test(found.value, found.null, side)


def find_modularity(
    effects: xr.Dataset,
    folds: list[Fold],
    protocol: Protocol,
    *,
    stratum: int = RARE,
    rng: np.random.Generator,
) -> Modularity:
    """Measure the group, its controls and its own nulls on one class of positions.

    Raises `UserError` where there are too few positions for a group of that size.
    """
    activities = [
        effects_activity(effects, fold, stratum, n_splits=SPLITS, rng=rng) for fold in folds
    ]
    links = [find_links(activity) for activity in activities]
    own = {
        REWIRED: rewired_null(folds, links, rng=rng),
        SHUFFLED: shuffled_null(folds, activities, rng=rng),
    }
    run = str(effects.attrs.get("measurement", ""))
    compared, beyond = compare_all(folds, links), links_test(folds, links)
    return Modularity(protocol, folds, activities, links, compared, own, beyond, run)


def compare_all(folds: list[Fold], links: list[Links]) -> dict[str, Compared]:
    """Every measure of the group, its controls and its equals; means over the folds."""
    per_fold = []
    for fold, link in zip(folds, links, strict=True):
        sets = {"value": fold.group[None], "null": fold.controls, "equals": fold.equals[:EQUALS]}
        per_fold.append({name: measures(link.among(groups)) for name, groups in sets.items()})

    def mean(name: str, measure: str) -> Float[np.ndarray, " draw"]:
        return np.mean([one[name][measure] for one in per_fold], axis=0)

    return {
        key: Compared(float(mean("value", key)[0]), mean("null", key), mean("equals", key))
        for key in per_fold[0]["value"]
    }


def rewired_null(
    folds: list[Fold], links: list[Links], *, rng: np.random.Generator
) -> Float[np.ndarray, " draw"]:
    """Largest Q of graphs with the group's strengths and its links permuted."""
    draws = [
        best_partitions(rewired(link.among(fold.group[None]).size[0], OWN_DRAWS, rng=rng)).Q
        for fold, link in zip(folds, links, strict=True)
    ]
    return np.mean(draws, axis=0)


def shuffled_null(
    folds: list[Fold], activities: list[Activity], *, rng: np.random.Generator
) -> Float[np.ndarray, " draw"]:
    """Largest Q of the group with each neuron's activations shuffled within documents."""
    means = []
    for fold, activity in zip(folds, activities, strict=True):
        post = activity.post[:, activity.column[fold.group]]
        graphs = [
            correlation(shuffled(post, activity.document, AT_ONCE, rng=rng), activity.weight)
            for _ in range(OWN_DRAWS // AT_ONCE)
        ]
        means.append(best_partitions(np.abs(np.concatenate(graphs))).Q)
    return np.mean(means, axis=0)


def links_test(folds: list[Fold], links: list[Links]) -> NullTest:
    """Do members link to each other more than to the controls' neurons? Each control likewise."""
    pairs = list(zip(folds, links, strict=True))
    value = [links_beyond(link, fold.group[None], fold.controls)[0] for fold, link in pairs]
    null = [links_beyond(link, fold.controls, fold.controls) for fold, link in pairs]
    return null_test(float(np.mean(value)), np.mean(null, axis=0), "greater")


def difference_interval(found: Modularity, *, rng: np.random.Generator) -> Interval:
    """95 % interval over documents of the group's statistic less the mean of its controls.

    The spread of samples of documents about their own mean, put around what was found: a sample
    repeats documents, which blurs the links and moves any Q. A few controls stand for all.
    """
    test, draws = found.test, []
    for fold, activity in zip(found.folds, found.activities, strict=True):
        draws.append(
            difference_draws(
                activity,
                np.concatenate([fold.group[None], fold.controls[:BOOTSTRAP_CONTROLS]]),
                STATISTICS[found.statistic],
                n_draws=BOOTSTRAPS,
                n_splits=BOOTSTRAP_SPLITS,
                rng=rng,
            )
        )
    mean = np.mean(draws, axis=0)
    return interval(mean - mean.mean() + test.value - float(test.null.mean()))


def evidence(
    found: Modularity, untrained: Modularity | None, *, rng: np.random.Generator
) -> Evidence:
    """What the page found on M1 under one protocol, for the ledger."""
    test, spread = found.test, difference_interval(found, rng=rng)
    return Evidence(
        claim="M1",
        protocol=found.protocol.name,
        value=test.value - float(test.null.mean()),
        interval=(spread.low, spread.high),
        null=f"{found.statistic} of {test.null.size} {found.likeness} groups of the same size",
        p=test.p,
        null_world_p=None if untrained is None else untrained.test.p,
        power=test.power(MATTERS),
        smallest=test.smallest,
        figure="fig-modules",
        run=found.run,
    )


def untestable(protocol: str, reason: str) -> Evidence:
    """The evidence where a protocol's groups cannot be measured."""
    null = "control groups of the same size"
    return Evidence("M1", protocol, None, None, null, None, None, reason=reason)
