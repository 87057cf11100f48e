"""What single neurons respond to: contexts that activate them most, and contexts at random.

Of the head of the last layer (the neurons with the largest effect on rare targets over all
documents) and of controls matched with them as those of the claims are.
"""

import shutil
from functools import partial

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from raretok.ablation.checkpoints import Arrays, Checkpoints, shown
from raretok.ablation.head import final_head
from raretok.measure.find import Measurements
from raretok.measure.influence import size_of
from raretok.measure.record import rounded
from raretok.measure.source import STRATIFIED, Source
from raretok.measure.unembedding import types_of, written_most
from raretok.models.rerun import capture
from raretok.stats.matching import draw_controls, neuron_traits
from raretok.text.corpus import text_of
from raretok.text.rarity import RARE

PERCENT, CONTROLS = 1.0, 10  # of the layer that is the head; controls in all
KINDS = {"top": 8, "random": 4, "bottom": 4}  # windows; the last, most negative, of gated MLPs
BEFORE, AFTER = 24, 12  # tokens of a window around its peak
TOKENS = 10  # that a neuron promotes, and that it suppresses
SEEN = 8  # binary digits of activations: off by 0.2 % at most
BATCH = 8  # contexts a forward pass

Neurons = Int[np.ndarray, " card"]
Seen = Float[np.ndarray, "context n_ctx card"]  # activations; no number where there is no text
Places = Int[np.ndarray, "card window"]
Documents = Int[np.ndarray, " context"]


def cards_part(source: Source, asked: Measurements) -> xr.Dataset:
    """Windows of text with the activation of every token, and the tokens written to."""
    neurons, matched = chosen(asked.part(f"effects: {STRATIFIED}"), source)
    seen, document = activations(source, neurons), source.contexts.document
    found = {"top": largest(seen, document, KINDS["top"])}
    noise = source.parameters.rng("windows of cards").random(seen.shape, np.float32)
    found["random"] = largest(np.where(np.isnan(seen), seen, noise), document, KINDS["random"])
    if source.model.architecture.gated:
        found["bottom"] = largest(-seen, document, KINDS["bottom"])
    context, pos = (np.concatenate(some, axis=1) for some in zip(*found.values(), strict=True))
    token, activation = windows(source.contexts.tokens, seen, context, pos)
    type_, logit = written(source, neurons)
    squares = [np.nanmean(np.maximum(one, 0) ** 2.0, axis=(0, 1)) for one in (seen, -seen)]
    many, written_to = ("card", "window"), ("card", "side", "rank")
    data = {
        "neuron": ("card", neurons),
        "matched": ("card", matched),
        "context": (many, context),
        "pos": (many, pos),
        "document": (many, document[context]),
        "token": ((*many, "place"), token),
        "activation": ((*many, "place"), rounded(activation, SEEN)),
        "square": (("side", "card"), np.stack(squares).astype(float)),
        "type": (written_to, type_),
        "logit": (written_to, logit),
    }
    used = np.union1d(token[token >= 0], type_)
    named = np.unique(document[context])
    attrs = {
        "kinds": [kind for kind, some in found.items() for _ in range(some[0].shape[1])],
        "peak": BEFORE,
        "texts": {str(one): text_of(source.model.tokenizer, int(one)) for one in used},
        "documents": {str(one): source.corpus.documents[one].file for one in named},
        "contexts": len(seen),
        "tokens": int(np.isfinite(seen[..., 0]).sum()),
    }
    return xr.Dataset(data, attrs=attrs)


def chosen(effects: xr.Dataset, source: Source) -> tuple[Neurons, Neurons]:
    """The neurons that get a card, and the neuron that each is a control of (-1: the head).

    Raises `NotTestableError` where too few neurons are left for controls.
    """
    delta, post = effects.delta_loss.values, effects.post.values
    rare = effects.stratum.values == RARE
    mean = effects.weight.values[rare] @ delta[rare]
    head = np.argsort(-mean, kind="stable")[: max(2, size_of(PERCENT, mean.size))]
    rate = effects.gate_rate.values if "gate_rate" in effects else None
    traits = neuron_traits(post, source.model.W_out.double().cpu().numpy(), rate)
    draws, silent = CONTROLS if head.size < CONTROLS else 1, np.ptp(post, axis=0) == 0
    more = {"matched": True, "silent": silent, "rng": source.parameters.rng("controls of cards")}
    found = draw_controls(head[None], traits, draws, **more)[head].T.ravel()
    # The first ranks' controls; one that is drawn twice counts once.
    first = np.sort(np.unique(found, return_index=True)[1])[:CONTROLS]
    matched = [np.full(head.size, -1), np.tile(head, draws)[first]]
    return np.concatenate([head, found[first]]), np.concatenate(matched)


def activations(source: Source, neurons: Neurons) -> Seen:
    """Activations of some neurons at every token of the text; a killed process goes on."""
    contexts = source.contexts
    folder = source.under_way("cards", [neurons])
    order, kept = np.argsort(contexts.length, kind="stable"), Checkpoints(folder)
    seen = np.full((*contexts.tokens.shape, neurons.size), np.nan, dtype=np.float32)
    for start in shown(range(0, len(order), BATCH), "contexts"):
        some = order[start : start + BATCH]
        post = kept.part(f"{start}", partial(captured, source, some, neurons))["post"]
        seen[some, : post.shape[1]] = post
    shutil.rmtree(folder)
    return seen


def captured(source: Source, some: Int[np.ndarray, " few"], neurons: Neurons) -> Arrays:
    """Activations in a few contexts, without first tokens and padding."""
    tokens = source.contexts.tokens[some, : source.contexts.length[some].max()]
    post = capture(source.model, torch.from_numpy(tokens)).post[..., neurons].float().cpu().numpy()
    # The first token stands for padding too, and between packed documents: none of it is text.
    return {"post": np.where((tokens == source.model.bos)[..., None], np.nan, post)}


def largest(seen: Seen, document: Documents, n: int) -> tuple[Places, Places]:
    """Context and position of each neuron's n largest activations, at most one a document."""
    filled = np.where(np.isnan(seen), -np.inf, seen)
    pos, order = filled.argmax(axis=1), np.argsort(-filled.max(axis=1), axis=0, kind="stable").T
    first = [np.sort(np.unique(document[one], return_index=True)[1])[:n] for one in order]
    context = np.take_along_axis(order, np.array(first), axis=1)
    return context, pos[context, np.arange(len(context))[:, None]]


def windows(
    tokens: Int[np.ndarray, "context n_ctx"], seen: Seen, context: Places, pos: Places
) -> tuple[Int[np.ndarray, "card window place"], Float[np.ndarray, "card window place"]]:
    """Tokens around each peak, -1 where there is no text, and the neuron's activation there."""
    at = pos[..., None] + np.arange(-BEFORE, AFTER + 1)
    at = np.where((at >= 0) & (at < tokens.shape[1]), at, 0)  # the first token is no text
    value = seen[context[..., None], at, np.arange(len(pos))[:, None, None]]
    there = np.isfinite(value)
    return np.where(there, tokens[context[..., None], at], -1), np.where(there, value, 0.0)


def written(
    source: Source, neurons: Neurons
) -> tuple[Int[np.ndarray, "card side rank"], Float[np.ndarray, "card side rank"]]:
    """Types whose logits a unit of activation raises and lowers most, and by how much."""
    head = final_head(source.model, torch.float64)
    W_out = head.W_out[torch.from_numpy(neurons).to(head.W_out.device)]
    found = written_most(W_out, types_of(source.model, head), TOKENS).values()
    types, logits = (np.stack(some, axis=1) for some in zip(*found, strict=True))
    return types, logits
