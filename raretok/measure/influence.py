"""Influence summed up by blocks of documents: all that an estimate with an interval needs."""

from collections.abc import Iterable

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import final_head
from raretok.errors import NotTestableError
from raretok.measure.find import Measurements
from raretok.measure.record import rounded
from raretok.measure.source import Source
from raretok.stats.jackknife import block_sums, deal
from raretok.text.rarity import COMMON, KINDS, RARE, Positions, draw_stratified

Blocks = Int[np.ndarray, " position"]
Weights = Float[np.ndarray, "token_class block"]
PRECISE = 8  # binary digits of sums that every estimate reads: off by 0.2 % at most
SCORED = 800  # rare positions of a part of the corpus, and as many common ones
EXACT = 1e-7  # nats of a pair
OTHERS = "the others"
FEWEST = 4  # documents that are dealt into blocks


def blocks_of(positions: Positions, rng: np.random.Generator) -> Blocks:
    """Block of each position, its document's."""
    return deal(positions.document, rng=rng).of(positions.document)


def influence_sums(
    values: Float[np.ndarray, "position *some neuron"], positions: Positions, block: Blocks
) -> tuple[Float[np.ndarray, "token_class block *some neuron"], Weights]:
    """Weighted sums over the rare and the common positions of each block, and their weights."""
    sums, weights, n = [], [], int(block.max(initial=0)) + 1
    for stratum in KINDS.values():
        rows = positions.stratum == stratum
        weight = positions.weight[rows]
        sums.append(block_sums(values[rows].astype(np.float64), weight, block[rows], n))
        weights.append(np.bincount(block[rows], weight, n).astype(np.float64))
    return np.stack(sums), np.stack(weights)


def counted_in(positions: Positions, classes: Iterable[int] = (RARE, COMMON)) -> dict[str, int]:
    """Positions and documents of the rarest of the classes, for the gates."""
    of = [positions.stratum == stratum for stratum in classes]
    documents = [np.unique(positions.document[rows]).size for rows in of]
    return {"positions": int(min(rows.sum() for rows in of)), "documents": min(documents)}


def domains_part(source: Source, asked: Measurements | None) -> xr.Dataset:
    """Influence of every neuron on the rare targets of each domain of the corpus.

    Raises `NotTestableError` where the corpus has one domain.
    """
    names, of = np.unique([one.domain for one in source.corpus.documents], return_inverse=True)
    if names.size < 2:
        raise NotTestableError(f"the corpus {source.corpus.name} has one domain, {names[0]}")
    everything, rng = source.everything("corrected"), source.rng("domains")
    rare, domain = everything.stratum == RARE, of[everything.document]
    chosen = [rng.permutation(np.flatnonzero(rare & (domain == i))) for i in range(names.size)]
    rows = np.sort(np.concatenate([some[:SCORED] for some in chosen]))
    drawn, effects, found = everything[rows], effects_at(source, everything[rows]), []
    for i in range(names.size):
        mine = domain[rows] == i
        some, share = drawn[mine], float(rare[domain == i].mean())
        few = np.unique(some.document).size < FEWEST
        block = np.zeros(len(some), dtype=np.int64) if few else blocks_of(some, rng)
        found.append(summed(effects[mine], some, block, share, (RARE,)))
    return stacked(found, names.tolist())


def influence_part(source: Source, asked: Measurements | None, domain: str = "") -> xr.Dataset:
    """Influence of every neuron, of the whole corpus or of a domain and, beside it, of the others.

    Positions are drawn afresh in either. Raises `NotTestableError` for a domain that is not there.
    """
    domains = np.array([one.domain for one in source.corpus.documents])
    if domain and domain not in domains:
        raise NotTestableError(f"the corpus has no domain {domain!r}")
    found, names = [], [domain, OTHERS] if domain else ["all"]
    for name in names:
        everything, rng = source.everything("corrected"), source.rng(f"influence {name}")
        if domain:
            everything = everything[(domains[everything.document] == domain) == (name == domain)]
        drawn = draw_stratified(everything, n_per_class=SCORED, n_middle=0, rng=rng)
        effects, share = effects_at(source, drawn), float((everything.stratum == RARE).mean())
        found.append(summed(effects, drawn, blocks_of(drawn, rng), share))
    return stacked(found, names)


def effects_at(source: Source, drawn: Positions) -> Float[np.ndarray, "position neuron"]:
    """Loss change of mean-ablating every neuron, summed over the vocabulary; nats."""
    seen = source.gathered(drawn)
    inputs = seen.resid, seen.post, seen.target, seen.mean
    found = delta_loss(final_head(source.model), *inputs, tolerance=EXACT)
    return found.cpu().numpy()


def summed(
    effects: Float[np.ndarray, "position neuron"],
    drawn: Positions,
    block: Blocks,
    rare_share: float,
    classes: Iterable[int] = (RARE, COMMON),
) -> xr.Dataset:
    """What is kept of the effects on one part of a text."""
    sums, weight = influence_sums(effects, drawn, block)
    data = {"sums": (("token_class", "block", "neuron"), rounded(sums, PRECISE))}
    data["weight"] = (("token_class", "block"), weight)
    counts = {"rare_share": rare_share} | counted_in(drawn, classes)
    return xr.Dataset(data | {name: ((), value) for name, value in counts.items()})


def stacked(found: list[xr.Dataset], names: list[str]) -> xr.Dataset:
    """Parts of a text in one dataset; few documents make fewer blocks, the rest are empty."""
    n = max(one.sizes["block"] for one in found)
    padded = [one.pad(block=(0, n - one.sizes["block"]), constant_values=0) for one in found]
    return xr.concat(padded, "part").assign_attrs(parts=names)
