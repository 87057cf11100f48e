"""What neurons write to the logits, against sums over every type and direction."""

import numpy as np
import pytest
import torch

from raretok.ablation.head import FinalHead
from raretok.measure.unembedding import NULL, null_share, written

D_MLP, D_MODEL, D_VOCAB = 200, 50, 90  # more neurons than are read at a time


def a_head(seed=0, centred=True) -> FinalHead:
    generator = torch.Generator().manual_seed(seed)
    W_out, G = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((D_MLP, D_MODEL), (D_MODEL, D_VOCAB))
    )
    if centred:
        W_out -= W_out.mean(dim=1, keepdim=True)
        G -= G.mean(dim=0, keepdim=True)  # the direction of ones is read by nothing
    bias = torch.zeros(D_VOCAB, dtype=torch.float64)
    return FinalHead(W_out, W_out.square().sum(dim=1), G, bias, 1e-5, centred)


def test_slope_and_spread_are_those_of_every_counted_type():
    head, rng = a_head(), np.random.default_rng(0)
    log_u, counted = rng.normal(size=D_VOCAB), rng.random(D_VOCAB) < 0.7
    slope, sd = (values.numpy() for values in written(head, log_u, counted))
    logits = head.W_out.numpy() @ head.G.numpy()[:, counted]
    z = (log_u[counted] - log_u[counted].mean()) / log_u[counted].std()
    np.testing.assert_allclose(sd, logits.std(axis=1), rtol=1e-10)
    fitted = [np.polyfit(z, row, 1)[0] for row in logits]
    np.testing.assert_allclose(slope, fitted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("centred", [True, False])
def test_null_share_is_the_part_in_the_directions_that_are_read_least(centred):
    head = a_head(1, centred)
    left = np.linalg.svd(head.G.numpy())[0]
    n, first = round(NULL * D_MODEL), int(centred)
    # Singular vectors descend: the last but the direction of ones, where the norm removes that.
    null = left[:, D_MODEL - first - n : D_MODEL - first]
    W_out = head.W_out.numpy()
    expected = ((W_out @ null) ** 2).sum(axis=1) / (W_out**2).sum(axis=1)
    np.testing.assert_allclose(null_share(head).numpy(), expected, rtol=1e-6)


def test_a_neuron_of_the_null_direction_has_share_one_and_all_shares_add_up():
    head = a_head(2)
    left = torch.linalg.svd(head.G)[0]
    # One neuron a direction that is written in; the last, that of ones, is not.
    W_out = left[:, :-1].T.contiguous()
    shares = null_share(
        FinalHead(W_out, W_out.square().sum(dim=1), head.G, head.logit_bias, head.eps, True)
    )
    assert shares[-1].item() == pytest.approx(1)
    assert shares[:-1].max() < 1e-9
    assert shares.sum().item() == pytest.approx(round(NULL * D_MODEL))
