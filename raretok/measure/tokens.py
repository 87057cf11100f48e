"""The tokens whose logits a neuron raises and lowers most, whatever the text."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.head import FinalHead, final_head
from raretok.measure.find import Measurements
from raretok.measure.neurons import TOP
from raretok.measure.record import rounded
from raretok.measure.source import Source
from raretok.measure.unembedding import NEURONS
from raretok.models.adapter import LanguageModel
from raretok.text.corpus import text_of

LOGITS = {"promotes": "raises", "suppresses": "lowers"}  # tokens -> what is added to their logits
BITS = 10  # binary digits of these


def tokens_part(source: Source, asked: Measurements | None) -> xr.Dataset:
    """Of every neuron of the last MLP the TOP tokens that it writes to most, and how much.

    Logits are per unit of activation, before the final norm's scale, strongest first. Tokens are
    ids; `texts` are those of the ids in `token`.
    """
    model, data = source.model, {}
    head = final_head(model, torch.float64)
    for name, (ids, logits) in written_most(head.W_out, types_of(model, head)).items():
        data[name] = (("neuron", "place"), ids.astype(np.int32))
        data[LOGITS[name]] = (("neuron", "place"), rounded(logits, BITS))
    known = np.unique(np.concatenate([data[name][1] for name in LOGITS]))
    attrs = {"texts": texts(model, known).tolist()}
    return xr.Dataset(data | {"token": ("known", known)}, attrs=attrs)


def types_of(model: LanguageModel, head: FinalHead) -> Float[Tensor, "d_model type"]:
    """Gain times W_U of the types that are tokens, without rows that only pad the vocabulary."""
    return head.G[:, : head.G.shape[1] - model.architecture.padded_rows]


def written_most(
    W_out: Float[Tensor, "neuron d_model"], G: Float[Tensor, "d_model type"], n: int = TOP
) -> dict[str, tuple[Int[np.ndarray, "neuron place"], Float[np.ndarray, "neuron place"]]]:
    """Ids and logits of the n types that each neuron raises and lowers most, strongest first."""
    found = {name: [] for name in LOGITS}
    for rows in W_out.to(G).split(NEURONS):
        logits = rows @ G
        for name, sign in zip(found, (1, -1), strict=True):
            values, ids = (sign * logits).topk(min(n, G.shape[1]), dim=1)
            found[name].append((ids, sign * values))
    joined = {k: [torch.cat(parts) for parts in zip(*of, strict=True)] for k, of in found.items()}
    return {k: tuple(one.detach().cpu().numpy() for one in of) for k, of in joined.items()}


def texts(model: LanguageModel, ids: Int[np.ndarray, "*some"]) -> np.ndarray:
    """The text of each token."""
    known, of = np.unique(ids, return_inverse=True)
    return np.array([text_of(model.tokenizer, int(i)) for i in known])[of.reshape(ids.shape)]
