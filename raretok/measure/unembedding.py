"""What the last MLP's neurons write to the logits whatever the text: frequency and null space."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from raretok.ablation.head import FinalHead, final_head
from raretok.measure.find import Measurements
from raretok.measure.source import Source
from raretok.text.rarity import unigram

NULL = 0.02  # of the directions of the residual stream that the unembedding reads least
NEURONS = 128  # whose logits are held at a time


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
