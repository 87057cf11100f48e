"""Samples, ablated heads and attention rows made by hand, small enough for many of them."""

from dataclasses import replace

import numpy as np

from raretok.claims.sample import Sample
from raretok.ledger.calibration import Ground
from raretok.measure.attention import WHOLE, HeadSums, Rows
from raretok.stats.jackknife import deal
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import COMMON, RARE, Positions

DOCUMENTS, PER_CLASS, NEURONS, D_MODEL, SIZE = 24, 12, 240, 16, 6
EDGES = np.array([0, 1, 2, 4, 8, 16])  # tokens back; the first token is a category before them
HEADS, LAYERS = 3, [0, 1]


def power_law(n=NEURONS, first=0.02, exponent=0.7):
    return first * np.arange(1, n + 1) ** -exponent


def a_sample(
    seed=0,
    protocol="corrected",
    *,
    rare=None,
    common=None,
    noise=0.01,
    post=None,
    n_documents=DOCUMENTS,
    per_class=PER_CLASS,
    size=SIZE,
    uneven=True,
) -> Sample:
    """Every document has positions of both classes; neuron 0 matters most unless told otherwise."""
    rng = np.random.default_rng(seed)
    rare = power_law() if rare is None else np.asarray(rare, dtype=float)
    common = rare / 2 if common is None else np.asarray(common, dtype=float)
    n_neurons = rare.size
    document = np.repeat(3 * np.arange(n_documents) + 2, 2 * per_class)  # numbers with gaps
    n = document.size
    stratum = np.tile([RARE, COMMON], n // 2)
    topic = rng.normal(size=(n_documents, n_neurons)).repeat(2 * per_class, axis=0)
    scatter = noise * (0.5 * topic + rng.normal(size=(n, n_neurons)))
    delta_loss = np.where((stratum == RARE)[:, None], rare, common) + scatter
    if post is None:
        scale, mean = rng.uniform(0.5, 2, (2, n_neurons))
        post = mean + scale * (0.3 * topic + rng.normal(size=(n, n_neurons)))
    return Sample(
        PROTOCOLS[protocol],
        delta_loss,
        post,
        rng.uniform(0.5, 2, n) if uneven else np.ones(n),
        document,
        stratum,
        rng.normal(size=(n_neurons, D_MODEL)),
        rng.normal(size=(n_neurons, D_MODEL)),
        deal(document, rng=rng),
        size,
        seed,
    )


def clear_group(n=NEURONS, size=SIZE):
    """Effects that set the first neurons apart, so that every fold chooses them."""
    effects = power_law(n)
    effects[:size] = 0.2
    return effects


def with_protocol(sample: Sample, name: str) -> Sample:
    return replace(sample, protocol=PROTOCOLS[name])


def some_heads(sample: Sample, seed=0) -> HeadSums:
    """Three heads and a whole-layer ablation in each of two layers, over all documents."""
    rng = np.random.default_rng(seed)
    documents = np.unique(sample.document)
    document, stratum = documents.repeat(2), np.tile([RARE, COMMON], documents.size)
    n_cells, n_neurons = document.size, sample.post.shape[1]
    count = rng.integers(3, 9, n_cells).astype(float)
    before = count[:, None] * rng.uniform(0.5, 1.5, (n_cells, n_neurons))
    targets = [(layer, head) for layer in LAYERS for head in (*range(HEADS), WHOLE)]
    shape = (len(targets), n_cells, n_neurons)
    return HeadSums(
        targets=targets,
        layers=LAYERS,
        document=document,
        stratum=stratum,
        count=count,
        change=count[:, None] * rng.uniform(0.05, 0.15, shape),
        before=before,
        after=before * rng.uniform(0.6, 0.9, (len(LAYERS), n_cells, n_neurons)),
    )


def category_keys(pos):
    """How many keys lie in each category; query and first token count, the first apart."""
    back = np.arange(pos.max() + 1)
    held = (back < pos[:, None]).astype(float)
    category = np.searchsorted(EDGES, back, side="right") - 1
    within = np.stack([held[:, category == c].sum(axis=1) for c in range(EDGES.size)], axis=1)
    return np.column_stack([np.ones(pos.size), within])


def some_rows(seed=0, *, n_documents=DOCUMENTS, per_class=8, matched=True, lift=0.0) -> Rows:
    """Attention that falls with distance; rare queries give `lift` of theirs to the last token.

    `matched`: rare and common queries stand at the same positions, in other documents.
    """
    rng = np.random.default_rng(seed)
    n = n_documents * per_class
    pos = rng.integers(3, 40, n)
    other = rng.permutation(pos) if matched else rng.integers(3, 40, n) // 2 + 3
    pos = np.concatenate([pos, other])
    document = np.tile(np.arange(n_documents).repeat(per_class), 2)
    stratum = np.repeat([RARE, COMMON], n)
    some = rng.integers(99, size=(2, 2 * n))
    queries = Positions(document, pos, *some, document, stratum, np.ones(2 * n))
    keys = category_keys(pos)
    shape = (len(LAYERS), 2 * n, HEADS, keys.shape[1])
    topic = rng.normal(size=(len(LAYERS), n_documents, HEADS, keys.shape[1]))[:, document]
    mass = keys[:, None] * np.exp(0.3 * (topic + rng.normal(size=shape)))
    mass /= 1 + np.arange(keys.shape[1])
    mass /= mass.sum(axis=-1, keepdims=True)
    rare = stratum == RARE
    mass[:, rare] *= 1 - lift
    mass[:, rare, :, 1] += lift
    gini = 0.7 + 0.05 * rng.normal(size=shape[:3]) + pos[:, None] / 400
    return Rows(queries, EDGES, keys, mass, gini, gini + 0.1)


def some_ground(seed=0) -> Ground:
    sample = a_sample(seed, rare=clear_group())
    return Ground(sample, some_heads(sample), some_rows(seed), LAYERS)
