"""Do rare and common queries attend alike? Profiles over offset, their correlation, and the Gini.

Every statistic is a weighted mean over queries, so one product serves all draws of labels (the
null) and all resamples of documents (the interval).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from raretok.claims.attention.rows import Rows
from raretok.stats.documents import (
    Interval,
    NullTest,
    document_halves,
    interval,
    null_test,
    permute_within,
    resample_documents,
)

BAND = 16  # positions whose queries share one mean, where the effect of position is taken out
SPLITS = 20  # into halves of documents, that the ceiling is averaged over
LAST = 2  # layers the claims are about


@dataclass(frozen=True)
class Design:
    """Queries with their classes, and who may be exchanged for whom."""

    rare: Bool[np.ndarray, " query"]
    document: Int[np.ndarray, " query"]
    band: Int[np.ndarray, " query"]  # of positions; one for all where position is not matched

    def exchanged(
        self, n_draws: int, *, rng: np.random.Generator
    ) -> Bool[np.ndarray, "draw query"]:
        """Labels exchanged within documents."""
        return np.stack([self.rare[permute_within(self.document, rng=rng)] for _ in range(n_draws)])

    def resampled(
        self, n_draws: int, *, rng: np.random.Generator
    ) -> Float[np.ndarray, "draw query"]:
        """How often each query is drawn in bootstrap samples of the documents."""
        present, of = np.unique(self.document, return_inverse=True)
        return resample_documents(present.size, n_draws, rng=rng)[:, of]


def design_of(rows: Rows, matched: bool) -> Design:
    """`matched`: queries were matched on position, so its effect is taken out of every query."""
    pos = rows.queries.pos
    return Design(rows.rare, rows.queries.document, pos // BAND if matched else np.zeros_like(pos))


def deviations(
    mass: Float[np.ndarray, "query feature"],
    keys: Float[np.ndarray, "query feature"],
    band: Int[np.ndarray, " query"],
) -> Float[np.ndarray, "query feature"]:
    """What a query gives each feature beyond the mean per key of all queries of its band.

    Matched classes have equal means of what is taken out, so their difference stays as it is; a
    draw that unmatches them (exchanged labels, resampled documents) does not bring position in.
    """
    n = int(band.max()) + 1
    total, held = np.zeros((n, mass.shape[1])), np.zeros((n, mass.shape[1]))
    np.add.at(total, band, mass)
    np.add.at(held, band, keys)
    return mass - keys * (total / np.where(held > 0, held, 1.0))[band]


def mean_profiles(
    weights: Float[np.ndarray, "draw query"],
    mass: Float[np.ndarray, "query head category"],
    keys: Float[np.ndarray, "query category"],
    band: Int[np.ndarray, " query"],
) -> Float[np.ndarray, "draw head category"]:
    """Mean attention per key of each category, over weighted queries, position taken out."""
    n, n_heads, n_categories = mass.shape
    wide = np.tile(keys, n_heads)
    flat = mass.reshape(n, -1).astype(np.float64)
    overall = flat.sum(axis=0) / wide.sum(axis=0)
    held = np.tile(weights @ keys, n_heads)
    profile = overall + weights @ deviations(flat, wide, band) / np.where(held > 0, held, np.inf)
    return profile.reshape(-1, n_heads, n_categories)


def correlation(
    one: Float[np.ndarray, "*#shape category"], two: Float[np.ndarray, "*#shape category"]
) -> Float[np.ndarray, "..."]:
    """Pearson's r along the last axis; 0 where one of the two does not vary."""
    one = one - one.mean(axis=-1, keepdims=True)
    two = two - two.mean(axis=-1, keepdims=True)
    size = np.sqrt((one**2).sum(axis=-1) * (two**2).sum(axis=-1))
    return np.asarray((one * two).sum(axis=-1) / np.where(size > 0, size, np.inf))


@dataclass(frozen=True)
class Profiles:
    """Mean attention by category in every head, and how alike rare and common ones are."""

    rare: Float[np.ndarray, "layer head category"]  # attention per key
    common: Float[np.ndarray, "layer head category"]
    r: Float[np.ndarray, "layer head"]
    low: Float[np.ndarray, "layer head"]  # 95 % interval of r over documents
    high: Float[np.ndarray, "layer head"]
    null: Float[np.ndarray, "draw layer head"]  # r under exchanged labels
    boot: Float[np.ndarray, "boot layer head"]
    ceiling: Float[np.ndarray, "layer head"]  # r of two samples of this size that differ by chance
    r_log: Float[np.ndarray, "layer head"]  # of log attention, which weighs far keys as near ones
    other: Float[np.ndarray, " layer"]  # mean r of a head with the other heads of its layer


def compare_profiles(
    rows: Rows, design: Design, *, n_null: int, n_boot: int, rng: np.random.Generator
) -> Profiles:
    """Profiles of both classes in every layer, with null, interval and ceiling of their r."""
    keep = rows.keys.sum(axis=0) > 0
    keys = rows.keys[:, keep]
    labels = design.exchanged(n_null, rng=rng).astype(float)
    counts = design.resampled(n_boot, rng=rng)
    observed = design.rare[None].astype(float)
    halves = half_weights(design, rng=rng)
    found: dict[str, list] = {name: [] for name in ("pair", "null", "boot", "ceiling")}
    for mass in rows.mass[..., keep]:

        def means(weights, mass=mass):
            return mean_profiles(weights, mass, keys, design.band)

        pair = means(observed)[0], means(1 - observed)[0]
        found["pair"].append(pair)
        found["null"].append(correlation(means(labels), means(1 - labels)))
        both = means(counts * design.rare), means(counts * ~design.rare)
        found["boot"].append(correlation(*both))
        found["ceiling"].append(ceiling_of([correlation(means(a), means(b)) for a, b in halves]))
    rare, common = (np.stack(part) for part in zip(*found["pair"], strict=True))
    null, boot = (np.stack(found[name], axis=1) for name in ("null", "boot"))
    low, high = np.quantile(boot, [0.025, 0.975], axis=0)
    log = [np.log(np.maximum(one, 1e-12)) for one in (rare, common)]
    return Profiles(
        rare=rare,
        common=common,
        r=correlation(rare, common),
        low=low,
        high=high,
        null=null,
        boot=boot,
        ceiling=np.stack(found["ceiling"]),
        r_log=correlation(*log),
        other=other_heads(rare, common),
    )


def half_weights(
    design: Design, *, rng: np.random.Generator
) -> list[tuple[Float[np.ndarray, "draw query"], Float[np.ndarray, "draw query"]]]:
    """Weights of the two halves of the documents, many splits, for each class alone."""
    first = np.stack([document_halves(design.document, rng=rng) for _ in range(SPLITS)])
    return [(first * kind * 1.0, ~first * kind * 1.0) for kind in (design.rare, ~design.rare)]


def ceiling_of(halves: list[Float[np.ndarray, "split head"]]) -> Float[np.ndarray, " head"]:
    """The r of both classes if only chance set them apart, from the r of halves of each.

    A half holds half the queries: Spearman and Brown's 2r / (1 + r) is the reliability of all of
    them, and the geometric mean of both reliabilities the largest r their means can have.
    """
    mean = [np.maximum(r.mean(axis=0), 0.0) for r in halves]
    reliability = [2 * r / (1 + r) for r in mean]
    return np.sqrt(reliability[0] * reliability[1])


def other_heads(
    rare: Float[np.ndarray, "layer head category"], common: Float[np.ndarray, "layer head category"]
) -> Float[np.ndarray, " layer"]:
    """Mean r of the rare profile of a head with the common profiles of the layer's other heads."""
    n_heads = rare.shape[1]
    if n_heads < 2:
        return np.zeros(rare.shape[0])
    r = correlation(rare[:, :, None], common[:, None])
    return (r.sum(axis=(1, 2)) - np.trace(r, axis1=1, axis2=2)) / (n_heads * (n_heads - 1))


@dataclass(frozen=True)
class Tested:
    """A mean over the heads of the last two layers, its null and its interval over documents."""

    test: NullTest
    interval: Interval


def profile_test(found: Profiles) -> Tested:
    """Is r, in the mean over the heads of the last two layers, lower than by chance?"""
    value, null, boot = (
        part[..., -LAST:, :].mean(axis=(-2, -1)) for part in (found.r, found.null, found.boot)
    )
    return Tested(null_test(float(value), null, "less"), interval(boot))


@dataclass(frozen=True)
class Concentration:
    """Gini coefficients of attention rows: rare less common, in every head."""

    rare: Float[np.ndarray, "layer head"]
    common: Float[np.ndarray, "layer head"]
    difference: Float[np.ndarray, "layer head"]
    null: Float[np.ndarray, "draw layer head"]  # exchanged labels
    boot: Float[np.ndarray, "boot layer head"]


def compare_gini(
    gini: Float[np.ndarray, "layer query head"],
    design: Design,
    *,
    n_null: int,
    n_boot: int,
    rng: np.random.Generator,
) -> Concentration:
    """Mean Gini of both classes and their difference, with null and interval."""
    n_layers, n, n_heads = gini.shape
    flat = gini.transpose(1, 0, 2).reshape(n, -1)
    left = deviations(flat, np.ones_like(flat), design.band)

    def difference(one, two):
        means = [
            w @ left / np.maximum(w.sum(axis=1, keepdims=True), 1e-300)
            for w in (one.astype(float), two.astype(float))
        ]
        return (means[0] - means[1]).reshape(-1, n_layers, n_heads)

    labels = design.exchanged(n_null, rng=rng)
    counts = design.resampled(n_boot, rng=rng)
    rare = design.rare
    return Concentration(
        rare=gini[:, rare].mean(axis=1),
        common=gini[:, ~rare].mean(axis=1),
        difference=difference(rare[None], ~rare[None])[0],
        null=difference(labels, ~labels),
        boot=difference(counts * rare, counts * ~rare),
    )


def gini_test(found: Concentration) -> Tested:
    """Does the Gini differ, in the mean over the heads of the last two layers?"""
    value, null, boot = (
        part[..., -LAST:, :].mean(axis=(-2, -1))
        for part in (found.difference, found.null, found.boot)
    )
    return Tested(null_test(float(value), null, "two-sided"), interval(boot))
