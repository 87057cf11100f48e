"""Layers before the last: one pass for all of them, sums that brute force gives too."""

import numpy as np
import pytest
import torch

from raretok.errors import NotTestableError
from raretok.measure import layers
from raretok.measure.influence import blocks_of
from raretok.measure.parameters import PageParameters
from raretok.measure.source import Source
from raretok.models.rerun import capture, capture_layers
from raretok.text.rarity import COMMON, RARE


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(PageParameters(model="docs-gpt2", n_positions=50))


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(layers, "SCREENED", 12)
    monkeypatch.setattr(layers, "MEANS", 4)
    monkeypatch.setattr("raretok.measure.source.RUNS", tmp_path)


def screened(source, layer, tmp_path):
    positions = layers.scored(source, layers.SCREENED)
    block = blocks_of(positions, source.parameters.rng("blocks of layers"))
    return positions, layers.screened_blocks(source, positions, block, layer, tmp_path / "kept")


def test_layers_captured_together_are_those_captured_alone(source):
    tokens = torch.from_numpy(source.contexts.tokens[:2, :40])
    for layer, together in zip((1, 3), capture_layers(source.model, tokens, [1, 3]), strict=True):
        alone = capture(source.model, tokens, layer)
        assert torch.equal(together.post, alone.post)
        assert torch.equal(together.resid, alone.resid)


def test_in_the_last_layer_nothing_mediates(source, small, tmp_path):
    _, found = screened(source, -1, tmp_path)
    np.testing.assert_allclose(found["total"], found["unmediated"], rtol=1e-5, atol=1e-6)


def test_the_sums_are_first_order_effects_of_small_changes(source, small, tmp_path):
    """By finite differences: a fiftieth of each change, through the model itself."""
    positions, found = screened(source, -2, tmp_path)
    model, share, layer = source.model, 0.02, model_layer(source, -2)
    neuron = int(np.abs(found["total"][0].sum(axis=0)).argmax())
    kept = layers.Checkpoints(tmp_path / "kept")
    parts = [kept.read(file.stem) for file in kept.folder.glob("mean-*.part")]
    total, count = (sum(part[name] for part in parts) for name in ("total", "count"))
    mean = float(total[-2 % 4][neuron] / count)

    def ablate(post, hook):
        post = post.clone()
        post[:, 1:, neuron] += share * (mean - post[:, 1:, neuron])
        return post

    sums = np.zeros(2)
    for context in np.unique(positions.context):
        mine = positions.context == context
        tokens = torch.from_numpy(source.contexts.tokens[[context]])
        hooks = [(f"blocks.{layer}.mlp.hook_post", ablate)]
        losses = []
        for some in (hooks, []):
            logits = model.bridge.run_with_hooks(tokens, fwd_hooks=some, return_type="logits")
            log_p = logits[0, positions.pos[mine]].double().log_softmax(dim=-1)
            target = torch.from_numpy(positions.target[mine])
            losses.append(-log_p.gather(1, target[:, None]).squeeze(1).detach().numpy())
        change = (losses[0] - losses[1]) / share
        for row, stratum in enumerate((RARE, COMMON)):
            rows = positions.stratum[mine] == stratum
            sums[row] += positions.weight[mine][rows] @ change[rows]
    np.testing.assert_allclose(found["total"][:, :, neuron].sum(axis=1), sums, rtol=0.08)


def model_layer(source, layer: int) -> int:
    return layer % source.model.architecture.n_layers


def test_a_pass_that_was_kept_serves_the_next_layer(source, small, tmp_path):
    first = screened(source, -1, tmp_path)[1]
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "kept").iterdir()}
    assert not np.array_equal(screened(source, -3, tmp_path)[1]["total"], first["total"])
    assert files == {file: file.stat().st_mtime_ns for file in (tmp_path / "kept").iterdir()}


def test_a_layer_deeper_than_the_model_is_named(source):
    with pytest.raises(NotTestableError, match="layer -5 is deeper than the model: it has 4"):
        layers.layer_part(source, None, "-5")
