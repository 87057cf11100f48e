"""What the heads do at a few queries: contexts to run, queries matched on position, their rows.

A *query* is the position that attends; its row is the attention it pays to each key up to itself.
Rows are summed up while a batch runs, so that no pattern is kept.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from raretok.ablation.batches import ScoredBatch, scored_batches
from raretok.errors import NotTestableError
from raretok.measure.attention import Rows
from raretok.models.adapter import LanguageModel
from raretok.models.rerun import run
from raretok.text.corpus import Contexts
from raretok.text.rarity import COMMON, RARE, Positions

AttentionRows = Float[Tensor, "query head key"]
Random = np.random.Generator
BATCH = 16  # contexts a forward pass
FEWEST = 20  # queries of a class, below which nothing is compared
Queries = Int[np.ndarray, " query"]
Edges = Int[np.ndarray, " edge"]
INFEASIBLE = 10.0  # cost of leaving a document's balance, against random costs below 1


def contexts_of(positions: Positions, n_rare: int, *, rng: Random) -> Int[np.ndarray, " context"]:
    """Contexts in random order until they hold `n_rare` positions of a rare class (or all)."""
    contexts = rng.permutation(np.unique(positions.context))
    rare = np.bincount(positions.context[positions.stratum == RARE], minlength=contexts.max() + 1)
    enough = int(np.searchsorted(np.cumsum(rare[contexts]), n_rare)) + 1
    return np.sort(contexts[:enough])


def choose_queries(
    everything: Positions, matched: bool, *, rng: Random, most: int = 800
) -> Positions:
    """Equal numbers of rare and common queries: the rare ones, at most `most`, and common ones.

    `matched`: there are as many common as rare queries at each position, so that both have the
    same numbers of keys, and as many in each document as far as that goes. Otherwise common ones
    are drawn at random. Raises `UserError` for fewer than 20 of a class.
    """
    rare = np.flatnonzero(everything.stratum == RARE)
    rare = np.sort(rng.permutation(rare)[:most])
    common = rng.permutation(np.flatnonzero(everything.stratum == COMMON))
    if matched:
        partner = match_queries(everything[rare], everything[common], rng=rng)
        rare, common = rare[partner >= 0], common[partner[partner >= 0]]
    n = min(rare.size, common.size)
    if n < FEWEST:
        raise NotTestableError(
            f"{n} rare queries have a common one to be compared with, {FEWEST} are needed: "
            "raise n_positions or rare_percentile, or give more text"
        )
    if np.unique(everything.document[rare]).size < 2:
        why = "all rare queries are in one document: an interval needs 2, give more text"
        raise NotTestableError(why)
    rare = np.sort(rng.permutation(rare)[:n]) if rare.size > n else rare
    return everything[np.sort(np.concatenate([rare, common[:n]]))]


def match_queries(rare: Positions, common: Positions, *, rng: Random) -> Int[np.ndarray, " rare"]:
    """For each rare query a common one at the same position, none twice; -1 where none is left.

    The documents of the common queries are dealt out so that each document is used as often as
    among the rare ones, where a common query at the position wanted is there.
    """
    free: dict[tuple[int, int], list[int]] = {}
    for row, key in enumerate(zip(common.document.tolist(), common.pos.tolist(), strict=True)):
        free.setdefault(key, []).append(row)
    document = deal_documents(rare.document, rare.pos, set(free), rng=rng)
    partner = np.full(len(rare), -1)
    for wanted in (document, None):  # second round: any document
        for query in rng.permutation(np.flatnonzero(partner < 0)):
            pos = int(rare.pos[query])
            keys = [k for k in free if k[1] == pos] if wanted is None else [(wanted[query], pos)]
            rows = next((free[key] for key in keys if free.get(key)), None)
            partner[query] = rows.pop() if rows else -1
    return partner


def deal_documents(
    document: Queries, pos: Queries, there: set[tuple[int, int]], *, rng: Random
) -> list[int]:
    """The documents in another order, so that as many pairs (document, pos) as can be are there."""
    present = np.array(
        [[(int(d), int(p)) in there for d in np.unique(document)] for p in np.unique(pos)]
    )
    at = np.searchsorted(np.unique(pos), pos)
    of = np.searchsorted(np.unique(document), document)
    cost = rng.random((pos.size, pos.size)) + INFEASIBLE * ~present[at][:, of]
    return document[linear_sum_assignment(cost)[1]].tolist()


def offset_edges(n_ctx: int) -> Edges:
    """Lower ends of the bins of relative offset: single up to 8, then five to an octave pair."""
    wide = [int(2**octave * part) for octave in range(3, 30) for part in (1, 1.25, 1.5)]
    edges = np.unique([*range(8), *wide])
    return edges[edges < n_ctx]


@torch.no_grad()
def capture_rows(model: LanguageModel, contexts: Contexts, queries: Positions) -> Rows:
    """Run the contexts of the queries and sum up the rows of every head."""
    shape = (model.architecture.n_layers, len(queries), model.architecture.n_heads)
    edges = offset_edges(contexts.tokens.shape[1])
    mass = np.zeros((*shape, edges.size + 1), dtype=np.float32)
    gini, gini_rest = np.zeros(shape), np.zeros(shape)
    for batch in whole_batches(model, contexts, queries):
        pos = batch.pos.cpu()

        def keep(layer: int, pattern: Tensor, hook: Any, batch=batch, pos=pos) -> None:
            rows = causal(pattern[batch.place, :, batch.pos].float().cpu(), pos)
            mass[layer, batch.rows] = category_mass(rows, pos, edges).numpy()
            gini[layer, batch.rows] = causal_gini(rows, pos + 1).numpy()
            gini_rest[layer, batch.rows] = causal_gini(rows[..., 1:], pos).numpy()

        layers = range(model.architecture.n_layers)
        hooks = [(f"blocks.{n}.attn.hook_pattern", partial(keep, n)) for n in layers]
        run(model, batch.tokens, hooks=hooks)
    keys = category_keys(queries.pos, edges)
    return Rows(queries, edges, keys, mass, gini, gini_rest)


def whole_batches(
    model: LanguageModel, contexts: Contexts, queries: Positions
) -> list[ScoredBatch]:
    """The contexts that hold a query, cut after the last one, those of like length together."""
    return scored_batches(model, contexts, queries, size=BATCH, most=None)


def causal(rows: AttentionRows, pos: Int[Tensor, " query"]) -> AttentionRows:
    """Rows with exact zeros beyond the query."""
    return rows * (torch.arange(rows.shape[-1]) <= pos[:, None])[:, None]


def categories(pos: Int[Tensor, " query"], edges: Edges) -> Tensor:
    """Category of each key of each query, one-hot: the first token, then bins of offset."""
    offset = pos[:, None] - torch.arange(int(pos.max()) + 1)
    index = torch.bucketize(offset, torch.from_numpy(edges), right=True)
    index[:, 0] = 0
    hot = torch.nn.functional.one_hot(index.clamp(min=0), edges.size + 1)
    return hot * (offset >= 0)[..., None]


def category_mass(
    rows: AttentionRows, pos: Int[Tensor, " query"], edges: Edges
) -> Float[Tensor, "query head category"]:
    """Attention each query pays to the keys of each category together."""
    hot = categories(pos, edges).to(rows.dtype)
    return torch.einsum("qhk,qkc->qhc", rows[..., : hot.shape[1]], hot)


def category_keys(pos: Queries, edges: Edges) -> Float[np.ndarray, "query category"]:
    """How many keys of each query fall into each category."""
    return categories(torch.from_numpy(pos), edges).sum(dim=1).double().numpy()


def causal_gini(rows: AttentionRows, n_keys: Int[Tensor, " query"]) -> Float[Tensor, "query head"]:
    r"""Gini coefficient of each row over its `n_keys` first keys; the others hold zero.

    $$G = \sum_k (2k - K - 1)\, p_{(k)} \Big/ \Big(K \sum_k p_k\Big),\ p_{(1)} \le p_{(2)} \dots$$

    0: all keys get the same, and (K - 1) / K: one gets all. A row without attention counts as 0.
    """
    p = rows.double().sort(dim=-1).values
    width, keys = p.shape[-1], n_keys.double()[:, None]
    rank = torch.arange(1, width + 1, dtype=torch.float64)
    # The zeros beyond the query sort first, so a key of rank k among K stands at k + width - K.
    total = p.sum(dim=-1)
    weighted = 2 * (p * rank).sum(dim=-1) - (2 * width - keys + 1) * total
    return torch.where(total > 0, weighted / (keys * total).clamp(min=1e-300), 0.0)
