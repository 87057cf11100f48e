"""Every kind of model is right or refused: its effects against `transformers` alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from raretok.ablation.audit import own_loss
from raretok.ablation.batches import scored_batches
from raretok.ablation.head import final_head
from raretok.ablation.layers import LayerOptions
from raretok.ablation.split import group_delta_loss
from raretok.errors import NotTestableError, UserError
from raretok.models.adapter import LanguageModel
from raretok.models.loading import load_model
from raretok.models.rerun import capture
from raretok.text.corpus import Contexts
from tests.ablation.reference import ablate, layer_alone
from tests.kinds import KINDS, REFUSED, write_kind
from tests.tiny import positions_at

# Libraries warn of slow kernels and settings that these kinds do without; what an audit says is
# asserted below.
pytestmark = pytest.mark.filterwarnings("ignore")
PAIRS = 8


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 257, size=(4, 20))
    tokens[:, 0] = 0
    return Contexts(tokens, np.full(4, 20), np.arange(4))


def ablated(model: LanguageModel, contexts: Contexts, **options: str) -> xr.Dataset:
    context, pos = np.repeat(np.arange(4), 6), np.tile(np.arange(3, 19, 3), 4)
    scored = positions_at(contexts, context, pos, np.arange(24) % 2)
    return ablate(model, contexts, scored, **options)


def down_projection(model: nn.Module, W_out: Tensor) -> nn.Module:
    """The module of `transformers`' own that multiplies by W_out, found by its weight."""
    found = [
        module
        for module in model.modules()
        if isinstance(weight := getattr(module, "weight", None), Tensor)
        and any(
            one.shape == W_out.shape and torch.equal(one.to(W_out), W_out)
            for one in ((weight, weight.T) if weight.ndim == 2 else ())
        )
    ]
    assert found
    return found[-1]


@contextmanager
def with_input(module: nn.Module, neuron: int, value: float) -> Iterator[None]:
    """One neuron's activation at the last position put to a value."""

    def change(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        post = args[0].clone()
        post.view(-1, post.shape[-1])[-1, neuron] = value
        return (post, *args[1:])

    handle = module.register_forward_pre_hook(change)
    try:
        yield
    finally:
        handle.remove()


def alone(
    folder: Path, W_out: Tensor, contexts: Contexts, data: xr.Dataset, dtype: torch.dtype
) -> tuple[float, float]:
    """Largest difference of loss and of effect to the model run by `transformers` alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    down, rng, apart = down_projection(model.eval(), W_out), np.random.default_rng(1), []

    def loss(tokens: Tensor, target: int) -> float:
        logits = model(tokens, use_cache=False).logits[0, -1].double()
        return -float(logits.log_softmax(-1)[target])

    for row in rng.choice(data.sizes["position"], PAIRS, replace=False):
        neuron, one = int(rng.integers(data.sizes["neuron"])), data.isel(position=row)
        tokens = torch.from_numpy(contexts.tokens[None, int(one.context), : int(one.pos) + 1])
        clean = loss(tokens, int(one.target))
        with with_input(down, neuron, float(data.mean_post[neuron])):
            effect = loss(tokens, int(one.target)) - clean
        apart.append((abs(clean - float(one.loss)), abs(effect - float(one.delta_loss[neuron]))))
    return tuple(np.max(apart, axis=0))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in REFUSED])
def test_a_kind_is_right(kind, contexts, tmp_path):
    folder = write_kind(tmp_path / "tiny", kind)
    model = load_model(str(folder))
    data = ablated(model, contexts)
    assert data.audit_passed
    try:
        apart = alone(folder, model.W_out, contexts, data, torch.float64)
    except RuntimeError:  # products of experts have no float64
        apart = alone(folder, model.W_out, contexts, data, torch.float32)
    assert max(apart) < 1e-5
    assert float(np.abs(data.delta_loss).mean()) > 1e-3


@pytest.mark.parametrize(("kind", "line"), REFUSED.items())
def test_a_kind_that_cannot_be_served_is_refused_in_one_line(kind, line, contexts, tmp_path):
    with pytest.raises(UserError, match=line) as refused:
        ablated(load_model(str(write_kind(tmp_path / "tiny", kind))), contexts)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def an_earlier_layer(folder: Path, contexts: Contexts) -> xr.Dataset:
    context, pos = np.repeat(np.arange(4), 6), np.tile(np.arange(3, 19, 3), 4)
    scored = positions_at(contexts, context, pos, 1 + np.arange(24) % 2)
    options = LayerOptions(0, 5, 5)
    return layer_alone(load_model(str(folder)), contexts, scored, options)


@pytest.mark.parametrize(
    "kind", ["gemma3", "olmo2", "granite", "opt", "mpt", "xglm", "bamba", "gptj", "falcon 7b"]
)
def test_an_earlier_layer_of_a_kind_is_right(kind, contexts, tmp_path):
    data = an_earlier_layer(write_kind(tmp_path / "tiny", kind), contexts)
    assert data.audit_passed
    assert data.audit_max_error < 1e-5
    assert float(np.abs(data.delta_loss).mean()) > 1e-3


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("bloom", r"cannot run tiny \(bloom\) from its middle"),
        ("gemma2", "its logits are soft-capped at 30"),
        ("jamba, last layer dense", "layer 0 of tiny has no dense MLP"),
    ],
)
def test_an_earlier_layer_out_of_reach_is_a_gap_with_its_reason(kind, line, contexts, tmp_path):
    with pytest.raises(NotTestableError, match=line):
        an_earlier_layer(write_kind(tmp_path / "tiny", kind), contexts)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3", "olmo2", "granite"])
def test_a_group_is_what_the_model_itself_says(kind, contexts, tmp_path):
    model, members = load_model(str(write_kind(tmp_path / "tiny", kind))), torch.arange(0, 40, 3)
    tokens, pos = torch.from_numpy(contexts.tokens[:1]), torch.arange(3, 19, 3)
    seen = capture(model, tokens)
    resid, post, head = seen.resid[0, pos], seen.post[0, pos], final_head(model)
    inputs = head, resid, post, tokens[0, pos + 1], torch.zeros_like(post[0]), [members]

    def silence(post: Tensor) -> None:
        post[0, pos[:, None], members] = 0

    nowhere = np.zeros(len(pos), dtype=np.int64)
    (at,) = scored_batches(model, contexts, positions_at(contexts, nowhere, pos.numpy(), nowhere))
    own = own_loss(model, at, silence) - own_loss(model, at)
    assert float(own.abs().max()) > 0.05
    torch.testing.assert_close(group_delta_loss(*inputs)[:, 0].double(), own, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["olmo", "nanochat", "gemma2", "gemma3", "cohere", "granite"])
def test_the_direct_effect_of_a_kind_passes_its_audit(kind, contexts, tmp_path):
    data = ablated(load_model(str(write_kind(tmp_path / "tiny", kind))), contexts, effect="direct")
    assert data.audit_passed
    assert data.audit_max_error < 1e-5


@pytest.mark.parametrize("kind", ["lfm2", "qwen3_5", "bamba"])
def test_a_layer_without_attention_is_a_gap_with_its_reason(kind, tmp_path):
    model = load_model(str(write_kind(tmp_path / "tiny", kind)))
    model.check_heads(range(1, 2))
    with pytest.raises(NotTestableError, match="has no attention heads in layer 0"):
        model.check_heads(range(2))
