"""Influence summed up by blocks of documents: all that an estimate with an interval needs."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.gather import gather
from raretok.ablation.head import final_head
from raretok.errors import NotTestableError
from raretok.measure.record import rounded
from raretok.measure.source import Source
from raretok.stats.jackknife import block_sums, deal
from raretok.text.rarity import COMMON, RARE, Positions, draw_stratified

if TYPE_CHECKING:
    from raretok.measure.find import Measurements

CLASSES = {"rare": RARE, "common": COMMON}
PRECISE = 8  # binary digits of sums that every estimate reads: off by 0.2 % at most
SCORED = 800  # rare positions of a part of the corpus, and as many common ones
EXACT = 1e-7  # nats of a pair
OTHERS = "the others"


def blocks_of(positions: Positions, rng: np.random.Generator) -> Int[np.ndarray, " position"]:
    """Block of each position, its document's."""
    return deal(positions.document, rng=rng).of(positions.document)


def influence_sums(
    values: Float[np.ndarray, "position *some neuron"],
    positions: Positions,
    block: Int[np.ndarray, " position"],
) -> tuple[
    Float[np.ndarray, "token_class block *some neuron"], Float[np.ndarray, "token_class block"]
]:
    """Weighted sums over the rare and the common positions of each block, and their weights."""
    sums, weights, n = [], [], int(block.max()) + 1
    for stratum in CLASSES.values():
        rows = positions.stratum == stratum
        weight = positions.weight[rows]
        sums.append(block_sums(values[rows].astype(np.float64), weight, block[rows], n))
        weights.append(np.bincount(block[rows], weight, n))
    return np.stack(sums), np.stack(weights)


def counted_in(positions: Positions) -> dict[str, int]:
    """Positions and documents of the rarer class, for the gates."""
    of = [positions.stratum == stratum for stratum in CLASSES.values()]
    return {
        "positions": int(min(rows.sum() for rows in of)),
        "documents": int(min(np.unique(positions.document[rows]).size for rows in of)),
    }


def documents_part(source: Source, asked: "Measurements | None") -> xr.Dataset:
    """Domain of each document of the corpus."""
    names, of = np.unique([one.domain for one in source.corpus.documents], return_inverse=True)
    return xr.Dataset({"domain": ("document", of)}, attrs={"domains": names.tolist()})


def influence_part(source: Source, asked: "Measurements | None", domain: str = "") -> xr.Dataset:
    """Influence of every neuron, of the whole corpus or of a domain and, beside it, of the others.

    Positions are drawn afresh in either. Raises `NotTestableError` for a domain that is not there.
    """
    domains = np.array([one.domain for one in source.corpus.documents])
    if domain and domain not in domains:
        raise NotTestableError(f"the corpus has no domain {domain!r}")
    found, names = [], [domain, OTHERS] if domain else ["all"]
    for name in names:
        everything = source.everything("corrected")
        if domain:
            inside = (domains[everything.document] == domain) == (name == domain)
            everything = everything[inside]
        found.append(influence_of(source, everything, f"influence {name}"))
    n = max(one.sizes["block"] for one in found)  # few documents make fewer blocks
    padded = [one.pad(block=(0, n - one.sizes["block"]), constant_values=0) for one in found]
    return xr.concat(padded, "part").assign_attrs(parts=names)


def influence_of(source: Source, everything: Positions, purpose: str) -> xr.Dataset:
    """Influence on some of these positions, summed over the vocabulary."""
    rng = source.rng(purpose)
    drawn = draw_stratified(everything, n_per_class=SCORED, n_middle=0, rng=rng)
    seen = gather(source.model, source.contexts, drawn, include_first=False, progress=True)
    target = source.on_device(drawn.target)
    head = final_head(source.model)
    found = delta_loss(head, seen.resid, seen.post, target, seen.mean_post, tolerance=EXACT)
    sums, weight = influence_sums(found.cpu().numpy(), drawn, blocks_of(drawn, rng))
    return xr.Dataset(
        {
            "sums": (("token_class", "block", "neuron"), rounded(sums, PRECISE)),
            "weight": (("token_class", "block"), weight),
            "rare_share": ((), float((everything.stratum == RARE).mean())),
            **{name: ((), value) for name, value in counted_in(drawn).items()},
        }
    )
