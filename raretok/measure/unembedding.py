"""What neurons write to the logits whatever the text: to which tokens, frequency, null space."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from raretok.ablation.head import FinalHead, final_head
from raretok.measure.find import Measurements
from raretok.measure.neurons import TOP
from raretok.measure.record import rounded
from raretok.measure.source import Source
from raretok.models.adapter import LanguageModel
from raretok.text.corpus import text_of
from raretok.text.rarity import unigram

NULL = 0.02  # of the directions of the residual stream that the unembedding reads least
NEURONS = 128  # whose logits are held at a time
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


def unembedding_part(source: Source, asked: Measurements | None) -> xr.Dataset:
    """Of every neuron, per unit of activation and before the final norm's scale.

    `frequency`: what it adds to the logits for one standard deviation of the type's log frequency
    (token-frequency neurons); `logit_sd`: standard deviation of what it adds over types;
    `null_share`: part of |W_out|^2 in the directions that W_U reads least (entropy neurons).
    Stolfo et al. (2024), arXiv 2406.16254.
    """
    head = final_head(source.model, torch.float64)
    u = unigram(source.counts, source.model.architecture.d_vocab)
    frequency, logit_sd = written(head, np.log(u), source.counted)
    data = {"frequency": frequency, "logit_sd": logit_sd, "null_share": null_share(head)}
    return xr.Dataset({name: ("neuron", values.cpu().numpy()) for name, values in data.items()})


def written(
    head: FinalHead, log_u: Float[np.ndarray, " d_vocab"], counted: Bool[np.ndarray, " d_vocab"]
) -> tuple[Float[Tensor, " neuron"], Float[Tensor, " neuron"]]:
    """Slope of what each neuron writes on standardised log frequency, and its sd over types."""
    types = torch.from_numpy(np.flatnonzero(counted)).to(head.G.device)
    z = torch.from_numpy(log_u).to(head.G)[types]
    z = (z - z.mean()) / z.std(correction=0)
    slopes, sds = [], []
    for W_out in head.W_out.split(NEURONS):
        logits = W_out @ head.G[:, types]
        sds.append(logits.std(dim=1, correction=0))
        slopes.append(logits @ z / len(types))
    return torch.cat(slopes), torch.cat(sds)


def null_share(head: FinalHead) -> Float[Tensor, " neuron"]:
    """Part of each neuron's |W_out|^2 in the directions that gain and W_U shrink most."""
    _, directions = torch.linalg.eigh(head.G @ head.G.T)  # ascending
    n = max(1, round(NULL * len(head.G)))
    # A centring norm removes the direction of ones: nothing is written there.
    first = int(head.centred)
    null = directions[:, first : first + n]
    return (head.W_out @ null).square().sum(dim=1) / head.W_out_sq
