"""What neurons read and heads write: by hand, by chance, and real modules of tiny models."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.random import default_rng as RNG

from raretok.errors import UserError
from raretok.measure.reading import feeding_heads, head_cosines, mlp_gain
from raretok.models.adapter import load_model
from raretok.sections.placement import reading_directions
from tests.tiny import D_MODEL, write_model

TINY = ("gpt2", "neox-parallel", "neox-sequential", "llama", "gemma")


def test_head_cosines_of_what_a_head_writes_and_of_what_it_does_not():
    W_O = np.zeros((2, 2, 4))
    W_O[0, 0, 0], W_O[0, 1, 1] = 2.0, 0.1
    W_O[1, 0, 2] = W_O[1, 1, 2] = 1.0  # both rows alike: one direction
    reading = np.array([[5.0, 5.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    expected = [[1, 0], [0, np.sqrt(0.5)], [0, 0]]
    np.testing.assert_allclose(head_cosines(reading, W_O), expected, atol=1e-12)


def test_random_directions_have_the_chance_share_of_every_head():
    rng = RNG(1)
    cosines = head_cosines(rng.normal(size=(2_000, 32)), rng.normal(size=(3, 8, 32)))
    np.testing.assert_allclose((cosines**2).mean(axis=0), 8 / 32, rtol=0.05)


@pytest.mark.parametrize("family", TINY)
def test_reading_directions_are_those_the_module_responds_to(family, tmp_path):
    """A small step of the residual moves each neuron's input by its direction, over the scale."""
    model = load_model(str(write_model(tmp_path, family)))
    block = model.last_block
    torch.manual_seed(0)
    resid = torch.randn(1, 1, D_MODEL)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: block.ln2(x[None, None])[0, 0] @ model.W_in.T, resid[0, 0]
    ).numpy()
    W_in, norm = model.W_in.double().numpy(), model.architecture.norm
    directions = reading_directions(W_in, mlp_gain(model), norm)
    # The norm also takes out the direction of the residual itself; elsewhere both must agree.
    centred = resid[0, 0].numpy()
    if norm == "LayerNorm":
        centred = centred - centred.mean()
    away = np.eye(D_MODEL) - np.outer(centred, centred) / (centred @ centred)
    found, expected = jacobian @ away, directions @ away
    scale = (found * expected).sum() / (expected**2).sum()
    np.testing.assert_allclose(found, scale * expected, atol=1e-4 * np.abs(found).max())


def test_heads_without_a_path_are_left_out(tmp_path):
    n_heads, n_layers = 2, 2
    for family, expected in (("gpt2", n_layers * n_heads), ("neox-parallel", n_heads)):
        model = load_model(str(write_model(tmp_path / family, family)))
        heads = feeding_heads(model)
        assert heads.shape == (expected, D_MODEL // n_heads, D_MODEL)


def test_a_single_parallel_block_feeds_its_mlp_from_no_head(tmp_path):
    model = load_model(str(write_model(tmp_path, "neox-parallel")))
    one = replace(model, architecture=replace(model.architecture, n_layers=1))
    with pytest.raises(UserError, match="no attention head has a path"):
        feeding_heads(one)
