"""How often gates are open, against the model's own forward pass with a hook of PyTorch."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from raretok.measure.source import gate_rate
from raretok.models.loading import load_model
from raretok.text.corpus import Contexts
from tests.tiny import positions_at, write_model


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma"])
def test_rates_are_those_of_the_gate_projection(tmp_path, family):
    folder = write_model(tmp_path / family, family)
    rng = np.random.default_rng(0)
    length = rng.integers(5, 32, 11)
    tokens = rng.integers(1, 257, (11, 32))
    contexts = Contexts(tokens, length, np.arange(11))
    used = np.arange(1, 11)
    at = np.ones_like(used)
    positions = positions_at(contexts, used, at, at)
    found = gate_rate(load_model(str(folder)), contexts, positions)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    seen: list[torch.Tensor] = []
    gate = model.get_decoder().layers[-1].mlp.gate_proj
    gate.register_forward_hook(lambda module, args, out: seen.append(out[0]))
    opened, count = 0, 0
    with torch.no_grad():
        for context in used:
            model(torch.from_numpy(tokens[context : context + 1, : length[context]]))
            opened = opened + (seen[-1][1:] > 0).sum(dim=0).numpy()
            count += length[context] - 1
    np.testing.assert_allclose(found, opened / count)
    assert 0.2 < found.mean() < 0.8
    assert found.std() > 0.05
