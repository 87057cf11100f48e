"""Worlds in which a claim is planted true or false, at the level of neurons.

Each starts from what was measured of a model and keeps its documents' noise. *Curves*: the mean
effect of each neuron is replaced by a draw from the smooth law that fits its rank curve, and the
head is raised. *Groups*: the effects of the most influential neurons go to random neurons, whose
activations, weights or reactions to heads are then edited. *Queries*: labels are exchanged within
documents, and the attention of the rare ones is edited. Noise about the means changes its sign at
random, document by document (the wild bootstrap of Wu, 1986). For groups and queries documents are
drawn with replacement first (calibration.py), so that each world is another sample of them.
Size 0 plants nothing; 1 plants what data/claims.yaml declares.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm

from raretok.claims.attention.estimate import LAST, alike
from raretok.claims.attention.profiles import bands, deviations
from raretok.claims.coordination.dimension import participation_ratio
from raretok.claims.coordination.estimate import POSITIONS
from raretok.claims.coordination.information import ksg_terms, prepared
from raretok.claims.modularity.estimate import held_out_Q
from raretok.claims.regimes.curve import bin_weights, draw_law, smooth_curve
from raretok.claims.regimes.estimate import head_of, rank_curves
from raretok.claims.sample import KINDS, Sample, ranked
from raretok.claims.spectra.estimate import squared_cosine, weight_rows
from raretok.errors import NotTestableError
from raretok.ledger.claims import planted
from raretok.measure.attention import WHOLE, HeadSums, Rows
from raretok.stats.documents import permute_within
from raretok.stats.jackknife import deal
from raretok.text.rarity import COMMON, RARE

Activations = Float[np.ndarray, "position member"]
Ranked = Float[np.ndarray, " rank"]
Random = np.random.Generator
STEPS = 12  # of the bisection that finds how strongly to edit


def flipped(sample: Sample, *, rng: Random) -> dict[str, np.ndarray]:
    """Mean effects on each class, and noise about them with random signs by document."""
    present, index = np.unique(sample.document, return_inverse=True)
    sign = rng.choice([-1.0, 1.0], present.size)[index][:, None]
    delta = sample.delta_loss.astype(np.float64)
    means, noise = {}, np.zeros_like(delta)
    for kind, stratum in KINDS.items():
        rows = sample.stratum == stratum
        means[kind] = np.average(delta[rows], axis=0, weights=sample.weight[rows])
        noise[rows] = sign[rows] * (delta[rows] - means[kind])
    return means | {"noise": noise}


def with_means(sample: Sample, parts: dict[str, np.ndarray]) -> Sample:
    """The sample with other mean effects on both classes."""
    delta = parts["noise"].copy()
    for kind, stratum in KINDS.items():
        delta[sample.stratum == stratum] += parts[kind]
    return replace(sample, delta_loss=delta)


def smooth_draw(sample: Sample, kind: str, *, rng: Random) -> Ranked:
    """Values of all neurons drawn from the smooth law of a class's rank curve, largest first.

    The first 30 % follow the law; the rest keep the shape that was measured.
    """
    curves, head = rank_curves(sample, kind), head_of(sample)
    curve = curves[0]
    fitted = smooth_curve(curve, head, bin_weights(curves, head))
    drawn = np.exp(draw_law(fitted, curve.size, rng=rng))
    rest = np.sort(curve)[::-1][fitted.size :]
    return np.concatenate([drawn, np.minimum(rest, drawn[-1])])


def by_rank(values: Ranked, means: Float[np.ndarray, " neuron"]) -> Float[np.ndarray, " neuron"]:
    """The values in the neurons' own order."""
    return values[ranked(-means).astype(int)]


def curve_world(
    sample: Sample, factor: float, kind: str, share: float = 0.01, *, rng: Random
) -> Sample:
    """One class follows a smooth law, its first neurons raised by a factor."""
    parts = flipped(sample, rng=rng)
    values = smooth_draw(sample, kind, rng=rng)
    values[: head_of(sample, share)] *= factor
    return with_means(sample, parts | {kind: by_rank(values, parts[kind])})


def head_share_world(sample: Sample, percent: float, *, rng: Random) -> Sample:
    """The raised head of rare targets has so many % of the neurons; 0: it is not raised."""
    if percent == 0:
        return curve_world(sample, 1.0, "rare", rng=rng)
    return curve_world(sample, planted("R1", "lift") ** 2, "rare", percent / 100, rng=rng)


def share_world(sample: Sample, more: float, *, rng: Random) -> Sample:
    """Both classes follow one smooth law; the rare head holds so much more of all influence."""
    parts = flipped(sample, rng=rng)
    head = head_of(sample)
    values = {kind: smooth_draw(sample, "rare", rng=rng) for kind in KINDS}
    positive = values["common"].clip(0)
    share = positive[:head].sum() / positive.sum()
    rare = values["rare"].clip(0)
    wanted = share + more
    rest = rare[head:].sum()
    values["rare"][:head] *= wanted * rest / ((1 - wanted) * rare[:head].sum())
    return with_means(sample, parts | {kind: by_rank(values[kind], parts[kind]) for kind in KINDS})


def group_world(sample: Sample, *, rng: Random) -> tuple[Sample, Int[np.ndarray, " member"]]:
    """Every neuron has the effects of a random one; and which have those of the first ones.

    So no neuron's activations or weights have to do with its rank, runners-up included.
    """
    parts = flipped(sample, rng=rng)
    order = rng.permutation(sample.delta_loss.shape[1])
    first = np.argsort(-parts["rare"][order], kind="stable")[: sample.size]
    moved = {name: part[..., order] for name, part in parts.items()}
    return with_means(sample, moved), first


def strength(measure: Callable[[float], float], wanted: float) -> float:
    """How strongly to edit, in 0..1, until an increasing measure reaches what is wanted.

    Raises `NotTestableError` where the strongest edit does not.
    """
    low, high = 0.0, 1.0
    if measure(high) < wanted:
        raise NotTestableError(f"an effect of {wanted:.3g} cannot be planted here")
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if measure(middle) < wanted else (low, middle)
    return (low + high) / 2


def mixed(post: Activations, shared: Activations, share: float) -> Activations:
    """Activations whose ranks follow a shared factor in part; each neuron keeps its own values.

    `share`: of the variance of its normal scores. Traits stay as they are, so controls still match.
    """
    own = norm.ppf((ranked(post.T).T + 0.5) / len(post))
    both = np.sqrt(1 - share) * own + np.sqrt(share) * shared
    places = ranked(both.T).T.astype(int)
    return np.take_along_axis(np.sort(post, axis=0), places, axis=0)


def activity_world(
    sample: Sample,
    more: float,
    n_factors: int,
    measure: Callable[[Activations], float],
    *,
    rng: Random,
) -> Sample:
    """At rare positions the group's neurons share factors, so that a measure of them rises.

    `n_factors`: 1 for coordination, 2 for two modules.
    """
    world, group = group_world(sample, rng=rng)
    rows = sample.stratum == RARE
    at_rare = sample.post[rows].astype(np.float64)
    # Random mixtures of all activations, in standard units: with the topics of the documents.
    sd = at_rare.std(axis=0)
    causes = (at_rare / np.where(sd > 0, sd, np.inf)) @ rng.standard_normal((sd.size, n_factors))
    causes = (causes - causes.mean(axis=0)) / causes.std(axis=0)
    post, shared = at_rare[:, group], causes[:, np.arange(group.size) % n_factors]
    edited = sample.post.astype(np.float64)
    if more > 0:
        share = strength(lambda s: measure(mixed(post, shared, s)), measure(post) + more)
        edited[np.ix_(rows, group)] = mixed(post, shared, share)
    return replace(world, post=edited)


def fewer_dimensions(post: Activations) -> float:
    """-ln participation ratio."""
    return -float(np.log(participation_ratio(np.corrcoef(post.T)[None])[0]))


def pair_information(post: Activations) -> float:
    """Mean mutual information of the pairs at some positions, nats."""
    some = post[:: max(1, len(post) // POSITIONS)]
    z = prepared(some, rng=np.random.default_rng(0)).T
    return float(np.mean([ksg_terms(z[i], z[j]) for i, j in combinations(range(len(z)), 2)]))


def modular_structure(post: Activations) -> float:
    """Held-out Q of all positions, odd and even ones apart."""
    graphs = [
        np.abs(np.corrcoef(part.T) - np.eye(post.shape[1]))[None]
        for part in (post[::2], post[1::2])
    ]
    return float(held_out_Q(*graphs)[0])


dimension_world = partial(activity_world, n_factors=1, measure=fewer_dimensions)
information_world = partial(activity_world, n_factors=1, measure=pair_information)
modular_world = partial(activity_world, n_factors=2, measure=modular_structure)


def weight_world(sample: Sample, more: float, *, rng: Random) -> Sample:
    """The group's weights share a direction, so that their squared cosine rises by `more`."""
    world, group = group_world(sample, rng=rng)
    if more <= 0:
        return world
    rows = weight_rows(sample)
    half = rows.shape[1] // 2
    parts = [rows[group][:, :half], rows[group][:, half:]]
    shared = [rng.standard_normal(half) for _ in parts]

    def edited(share: float) -> list[np.ndarray]:
        return [
            np.sqrt(1 - share) * part + np.sqrt(share) * one / one.std()
            for part, one in zip(parts, shared, strict=True)
        ]

    def measure(share: float) -> float:
        return float(squared_cosine(np.corrcoef(np.concatenate(edited(share), axis=1))[None])[0])

    share = strength(measure, measure(0.0) + more / rows.shape[1])
    weights = [sample.W_in.copy(), sample.W_out.copy()]
    for matrix, part in zip(weights, edited(share), strict=True):
        own = matrix[group]
        matrix[group] = own.mean(axis=1, keepdims=True) + own.std(axis=1, keepdims=True) * part
    return replace(world, W_in=weights[0], W_out=weights[1])


def head_world(
    sample: Sample,
    sums: HeadSums,
    layers: list[int],
    wanted: float,
    by_median: bool,
    *,
    rng: Random,
) -> tuple[Sample, HeadSums]:
    """One head changes the group by `wanted` standard deviations, or median heads; 0: as it is."""
    world, group = group_world(sample, rng=rng)
    heads = [i for i, (layer, h) in enumerate(sums.targets) if layer in layers and h != WHOLE]
    if wanted <= 0:
        return world, sums
    rare = sums.stratum == RARE
    sd = sample.post.std(axis=0, dtype=np.float64)[group]
    unit = np.where(sd > 0, sd, np.inf) * sums.count[rare].sum()
    changes = (sums.change[i][rare][:, group].sum(axis=0) for i in heads)
    effect = np.array([(change / unit).mean() for change in changes])
    one = int(rng.integers(len(heads)))
    target = wanted * float(np.median(effect)) if by_median else wanted
    change = sums.change.astype(np.float64)
    change[heads[one]][:, group] *= target / effect[one]
    return world, replace(sums, change=change)


def layer_world(
    sample: Sample, sums: HeadSums, layers: list[int], percent: float, *, rng: Random
) -> tuple[Sample, HeadSums]:
    """Ablated layers change the size of the group's activations by so many %."""
    world, group = group_world(sample, rng=rng)
    rare = sums.stratum == RARE
    before = sums.before[rare][:, group].sum()
    after = sums.after.astype(np.float64)
    for layer in (after[sums.layers.index(one)] for one in layers):
        layer[:, group] *= before * (1 + percent / 100) / layer[rare][:, group].sum()
    return world, replace(sums, after=after)


def exchanged_queries(rows: Rows, *, rng: Random) -> Rows:
    """Rare and common queries exchanged within documents; what documents differ by is left."""
    order = permute_within(rows.queries.document, rng=rng)
    stratum = np.where(rows.rare, RARE, COMMON)[order]
    return replace(rows, queries=replace(rows.queries, stratum=stratum))


def profile_world(rows: Rows, share: float, *, rng: Random) -> Rows:
    """A share of the attention of rare queries goes to far keys as it went to near ones.

    Attention per key of each category is exchanged, first against last; rows keep their sums.
    """
    world = exchanged_queries(rows, rng=rng)
    keys, mass, rare = rows.keys[:, None, :].astype(np.float64), rows.mass, world.rare
    turned = (mass / np.where(keys > 0, keys, np.inf))[..., ::-1] * keys
    total = turned.sum(axis=-1, keepdims=True)
    turned = turned * (mass.sum(axis=-1, keepdims=True) / np.where(total > 0, total, np.inf))
    mass = mass.astype(np.float64)
    mass[:, rare] = (1 - share) * mass[:, rare] + share * turned[:, rare]
    return replace(world, mass=mass)


def apart_world(rows: Rows, lower: float, matched: bool, first_token: bool, *, rng: Random) -> Rows:
    """Profiles that differ until their correlation over its ceiling is so much lower."""
    if lower <= 0:
        return profile_world(rows, 0.0, rng=rng)
    even, seed = deal(rows.queries.document, rng=rng), int(rng.integers(2**31))

    def drop(share: float) -> float:
        world = profile_world(rows, share, rng=np.random.default_rng(seed))
        return 1 - alike(world, even, matched, first_token).over_ceiling().value

    return profile_world(rows, strength(drop, lower), rng=rng)


def gini_world(rows: Rows, more: float, matched: bool = True, *, rng: Random) -> Rows:
    """The Gini coefficients of rare queries are higher by so much, and by nothing else.

    Labels exchanged within documents keep what documents with many rare queries differ by; what is
    expected of that is taken out.
    """
    world = exchanged_queries(rows, rng=rng)
    found = {}
    for name in ("gini", "gini_rest"):
        values = getattr(rows, name)
        add = more - expected_difference(values, rows, matched)
        found[name] = values + add * world.rare[:, None]
    return replace(world, **found)


def expected_difference(
    gini: Float[np.ndarray, "layer query head"], rows: Rows, matched: bool
) -> float:
    """Difference of the classes that exchanging labels within documents leaves on average."""
    present, document = np.unique(rows.queries.document, return_inverse=True)
    rare = np.bincount(document, rows.rare, present.size) / np.bincount(document)
    mean = gini[-LAST:].mean(axis=(0, 2))[:, None]
    apart = deviations(mean, np.ones_like(mean), bands(rows, matched))[:, 0]
    weights = rare[document], 1 - rare[document]
    one, two = (float(apart @ weight / weight.sum()) for weight in weights)
    return one - two
