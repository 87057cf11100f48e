"""The audit is the model's own forward pass: what the closed form does not know of is refused."""

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertGenerationConfig,
    BertGenerationDecoder,
    BertLMHeadModel,
    FalconH1Config,
    FalconH1ForCausalLM,
    ModernBertDecoderConfig,
    ModernBertDecoderForCausalLM,
)

from raretok.ablation import audit
from raretok.ablation.audit import check_model
from raretok.errors import UserError
from raretok.models import loading
from raretok.models.loading import load_model
from tests.ablation.reference import ablate
from tests.tiny import D_MLP, D_MODEL, D_VOCAB, N_CTX, write_model, write_tokenizer
from tests.written import some_text

SHAPE = {
    "vocab_size": D_VOCAB,
    "hidden_size": D_MODEL,
    "intermediate_size": D_MLP,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": N_CTX,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
MAMBA = {"mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8, "mamba_d_state": 8}


def bert():
    """A transform stands between its last block and the unembedding."""
    return BertLMHeadModel(BertConfig(is_decoder=True, **SHAPE))


def modern_bert():
    """Its prediction head does the same: dense, activation, norm."""
    ids = {"pad_token_id": 0, "cls_token_id": 0, "sep_token_id": 0}
    return ModernBertDecoderForCausalLM(ModernBertDecoderConfig(local_attention=8, **ids, **SHAPE))


def bert_generation():
    return BertGenerationDecoder(BertGenerationConfig(is_decoder=True, **SHAPE))


def falcon(multipliers=(0.7, 0.5)):
    """What its MLP reads and writes is multiplied."""
    shape = SHAPE | MAMBA | {"num_key_value_heads": 1, "mamba_n_groups": 1, "mamba_chunk_size": 8}
    return FalconH1ForCausalLM(FalconH1Config(mlp_multipliers=list(multipliers), **shape))


def save(model, folder, noise: float = 0.3) -> None:
    """With weights large enough for neurons to matter."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(noise * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    write_tokenizer(folder)


@pytest.mark.parametrize(
    ("make", "noise"),
    [(bert, 0.3), (modern_bert, 0.3), (falcon, 0.3), (bert, 0), (modern_bert, 0), (falcon, 0)],
)
def test_a_model_with_more_after_its_last_mlp_is_refused_in_one_line(
    make, noise, tmp_path, monkeypatch
):
    """A transform after the last block or a multiplier not known, with fresh weights too."""
    unknown = {"out_scale": 1.0, "logit_scale": 1.0}
    monkeypatch.setattr(loading, "multipliers", lambda config: unknown)
    save(make(), tmp_path / "odd", noise)
    contexts, positions = some_text(n=3)
    with pytest.raises(UserError, match="the closed form does not hold for odd") as caught:
        check_model(load_model(str(tmp_path / "odd")), contexts, positions)
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_be_wrapped_is_refused_in_one_line(tmp_path):
    save(bert_generation(), tmp_path / "odd")
    message = r"odd \(bert-generation\) is not a decoder .* can wrap: Could not .* from config\.$"
    with pytest.raises(UserError, match=message) as caught:
        load_model(str(tmp_path / "odd"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["gpt2", "neox-parallel", "neox-sequential", "llama", "gemma"])
def test_families_pass_and_agree_with_their_own_forward_pass(family, tmp_path):
    model = load_model(str(write_model(tmp_path / family, family)))
    contexts, positions = some_text(n=4)
    before = {
        name: value.clone() for name, value in model.bridge.original_model.state_dict().items()
    }
    for effect in ("total", "direct"):
        found = ablate(model, contexts, positions, effect=effect)
        assert found.attrs["audit_passed"] == 1
        assert found.attrs["audit_pairs"] == min(audit.PAIRS, len(positions))
        assert 0 < found.attrs["audit_max_error"] < 1e-5
    for name, value in model.bridge.original_model.state_dict().items():
        assert value.dtype == before[name].dtype
        np.testing.assert_array_equal(value, before[name])


def test_pairs_are_of_a_few_contexts_and_no_position_twice():
    _, positions = some_text(n=40)
    rows, neuron = audit.pairs_to_check(positions, D_MLP, n_pairs=audit.PAIRS, n_contexts=16)
    assert rows.size == np.unique(rows).size == neuron.size == audit.PAIRS
    assert np.unique(positions.context[rows]).size <= 16
    assert neuron.min() >= 0
    assert neuron.max() < D_MLP
