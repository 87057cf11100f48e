"""Loading: what is read, what is refused and in which words, and what the adapter hands out."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from raretok.errors import UserError
from raretok.models import files as model_files
from raretok.models.files import resolve_model
from raretok.models.loading import load_model, untrained_twin
from raretok.models.rerun import capture
from tests.tiny import FAMILIES, SANDWICH, fake_hub_cache, write_model, write_tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: write_model(root / family, family) for family in (*FAMILIES, *SANDWICH)}


@pytest.fixture
def gpt2(folders, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(folders["gpt2"], tmp_path / "tiny-gpt2"))


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(1, 257, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", [*FAMILIES, *SANDWICH])
def test_what_the_adapter_hands_out_rebuilds_the_logits(folders, family, tokens):
    """Residual, norm and unembedding by hand against transformers; so do post and W_out."""
    model = load_model(str(folders[family]))
    resid = capture(model, tokens).resid
    centred = resid - resid.mean(-1, keepdim=True) if model.architecture.norm[0] == "L" else resid
    scale = (centred.square().mean(-1, keepdim=True) + model.eps).sqrt()
    logits = (centred / scale * model.gain.float() + model.bias) @ model.W_U + model.b_U
    if model.architecture.softcap:
        logits = model.architecture.softcap * torch.tanh(logits / model.architecture.softcap)
    reference = AutoModelForCausalLM.from_pretrained(folders[family], attn_implementation="eager")
    with torch.no_grad():
        torch.testing.assert_close(logits, reference(tokens).logits, atol=2e-5, rtol=0)
    assert model.dtype == torch.float32
    assert model.W_out.shape == (48, 16)


def test_the_gain_of_gemma_is_not_rounded(folders):
    model = load_model(str(folders["gemma"]), dtype=torch.bfloat16)
    stored = model.bridge.ln_final.weight
    assert torch.equal(model.gain, 1 + stored.double())
    assert not torch.equal(model.gain, (1 + stored).double())


def test_capture_does_not_compute_the_logits(folders, tokens):
    model = load_model(str(folders["gpt2"]))
    seen = []
    handle = model.bridge.unembed.register_forward_hook(
        lambda module, args, out: seen.append(out.shape)
    )
    capture(model, tokens)
    handle.remove()
    assert all(shape[1] == 1 for shape in seen)


def test_padding_on_the_right_changes_nothing(folders, tokens):
    model = load_model(str(folders["neox-parallel"]))
    padded = torch.cat([tokens, torch.zeros(2, 5, dtype=torch.long)], dim=1)
    torch.testing.assert_close(
        capture(model, padded).resid[:, :9], capture(model, tokens).resid, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("gpt2", {"family": "gpt2", "norm": "LayerNorm", "tied": True, "gated": False}),
        ("neox-parallel", {"family": "gpt_neox", "parallel": True, "tied": False}),
        ("neox-sequential", {"family": "gpt_neox", "parallel": False}),
        ("llama", {"family": "llama", "norm": "RMSNorm", "gated": True, "parallel": False}),
        ("qwen2", {"family": "qwen2", "norm": "RMSNorm", "gated": True, "tied": False}),
        ("qwen3", {"family": "qwen3", "norm": "RMSNorm", "gated": True, "tied": False}),
        ("gemma", {"family": "gemma", "tied": True, "sandwich": False, "softcap": None}),
        ("gemma3", {"family": "gemma3_text", "sandwich": True, "softcap": None}),
        ("gemma2", {"family": "gemma2", "sandwich": True, "softcap": 30.0}),
    ],
)
def test_the_architecture_is_reported(folders, family, expected):
    architecture = load_model(str(folders[family])).architecture
    assert {name: getattr(architecture, name) for name in expected} == expected
    assert (architecture.n_layers, architecture.d_model, architecture.d_mlp) == (2, 16, 48)
    assert (architecture.n_heads, architecture.n_ctx) == (2, 32)
    assert (architecture.d_vocab, architecture.padded_rows) == (300, 43)
    reference = AutoModelForCausalLM.from_pretrained(folders[family])
    assert architecture.n_parameters == reference.num_parameters()
    assert bool(architecture.earlier_layers_refusal) == (family == "gemma2")


def test_the_name_never_shows_where_a_directory_is(gpt2, tmp_path):
    assert load_model(str(gpt2)).name == "tiny-gpt2"
    assert str(tmp_path) not in str(load_model(f"{gpt2}@untrained").name)


def test_the_digest_follows_the_files(gpt2):
    before = load_model(str(gpt2)).files_sha256
    assert load_model(str(gpt2)).files_sha256 == before
    (gpt2 / "README.md").write_text("not part of the numbers")
    assert load_model(str(gpt2)).files_sha256 == before
    weights = load_file(gpt2 / "model.safetensors")
    weights["transformer.ln_f.bias"] += 1e-3
    save_file(weights, gpt2 / "model.safetensors", metadata={"format": "pt"})
    assert load_model(str(gpt2)).files_sha256 != before


def test_the_untrained_twin(gpt2):
    trained = load_model(str(gpt2))
    twin, again = load_model(f"{gpt2}@untrained"), load_model(f"{gpt2}@untrained")
    assert twin.name == "tiny-gpt2@untrained"
    assert torch.equal(twin.W_out, again.W_out)
    assert twin.files_sha256 == again.files_sha256 != trained.files_sha256
    assert twin.architecture == trained.architecture
    assert not torch.allclose(twin.W_out, trained.W_out)
    assert torch.equal(twin.gain, torch.ones(16))


def test_the_seed_of_the_twin_is_that_of_the_training_record(gpt2):
    (gpt2 / "training.json").write_text(json.dumps({"seed": 7}))
    config = AutoConfig.from_pretrained(gpt2)
    seven = untrained_twin(config, 7).transformer.h[-1].mlp.c_proj.weight
    assert torch.equal(load_model(f"{gpt2}@untrained").W_out, seven)
    assert not torch.equal(seven, untrained_twin(config, 0).transformer.h[-1].mlp.c_proj.weight)


def test_a_twin_leaves_the_random_state_alone_and_needs_no_weights(gpt2):
    (gpt2 / "model.safetensors").unlink()
    state = torch.get_rng_state()
    load_model(f"{gpt2}@untrained")
    assert torch.equal(torch.get_rng_state(), state)


def test_shipped_models_go_by_name(gpt2, monkeypatch):
    monkeypatch.setattr(model_files, "SHIPPED", gpt2.parent)
    assert resolve_model("tiny-gpt2") == resolve_model("tiny-gpt2@untrained") == gpt2
    assert load_model("tiny-gpt2").name == "tiny-gpt2"


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "../x"])
def test_a_missing_directory_is_named(name):
    with pytest.raises(UserError, match=f"model directory {name} does not exist"):
        resolve_model(name)


@pytest.mark.parametrize("name", ["", "two words", "@untrained"])
def test_a_name_that_can_be_nothing_is_refused(name):
    with pytest.raises(
        UserError, match="is no model: give a shipped name, a directory, a GGUF file or owner"
    ):
        resolve_model(name)


def edit_config(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


def only_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


def more_ids(folder):
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["vocab"] |= {f"extra{i}": 257 + i for i in range(44)}
    file.write_text(json.dumps(tokenizer))


def drop_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


DAMAGE = {
    "no config": (
        lambda folder: (folder / "config.json").unlink(),
        "tiny-gpt2 has no config.json: give a Hugging Face model directory",
    ),
    "config is no JSON": (
        lambda folder: (folder / "config.json").write_text("{"),
        "cannot read config.json of tiny-gpt2: .*JSON",
    ),
    "config of nothing": (
        lambda folder: (folder / "config.json").write_text("{}"),
        "cannot read config.json of tiny-gpt2: Unrecognized model",
    ),
    "pickle": (
        only_pickle,
        r"tiny-gpt2 holds pickle weights only \(pytorch_model.bin\); raretok reads safetensors",
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "tiny-gpt2 has no weights: no .safetensors file",
    ),
    "cut weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[:5000]
        ),
        "cannot load the weights of tiny-gpt2: ",
    ),
    "a weight is missing": (
        drop_a_weight,
        "weights of tiny-gpt2 do not fit its config.json: 1 are missing .* transformer.h.1.mlp",
    ),
    "other shape": (
        lambda folder: edit_config(folder, n_inner=64),
        "the weights of tiny-gpt2 do not fit its config.json: 6 are missing or misshapen",
    ),
    "impossible shape": (
        lambda folder: edit_config(folder, n_head=3),
        "cannot load the weights of tiny-gpt2: ",
    ),
    "no tokenizer": (no_tokenizer, "tiny-gpt2 has no tokenizer: put its tokenizer.json"),
    "damaged tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        "cannot read the tokenizer of tiny-gpt2: ",
    ),
    "other tokenizer": (
        more_ids,
        "tokenizer and model do not fit: the tokenizer of tiny-gpt2 has 301 ids, the model",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_directory_is_refused_in_one_line(gpt2, tmp_path, damage):
    spoil, message = DAMAGE[damage]
    spoil(gpt2)
    with pytest.raises(UserError, match=message) as caught:
        load_model(str(gpt2))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_an_encoder_is_refused(tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=300, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    write_tokenizer(tmp_path / "t5")
    with pytest.raises(UserError, match="cannot load the weights of t5: Unrecognized config"):
        load_model(str(tmp_path / "t5"))


def test_a_hub_id_loads_from_the_cache_without_network(folders, tmp_path):
    """In a process of its own: the Hub's settings are read on import. It prints nothing else."""
    cache = fake_hub_cache(tmp_path / "hub", folders["gpt2"])
    fake_hub_cache(cache, folders["neox-parallel"], revision="step1000")
    source = """
from raretok.errors import UserError
from raretok.models.loading import load_model
model = load_model("openai-community/gpt2")
print(model.name, model.architecture.family, model.files_sha256)
print(load_model("openai-community/gpt2", revision="step1000").architecture.family)
print(load_model("openai-community/gpt2@untrained").name)
for name, revision in [("openai-community/gpt2", "step5"), ("nobody/nothing", None)]:
    try:
        load_model(name, revision=revision)
    except UserError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    loaded = load_model(str(folders["gpt2"]))
    away = "is not in the local cache and the Hub cannot be reached"
    assert done.stdout.splitlines() == [
        f"openai-community/gpt2 gpt2 {loaded.files_sha256}",
        "gpt_neox",
        "openai-community/gpt2@untrained",
        f"openai-community/gpt2 (revision step5) {away}: download it first or give a directory",
        f"nobody/nothing {away}: download it first or give a directory",
    ]


def test_loading_is_silent(gpt2, capfd):
    load_model(str(gpt2))
    assert capfd.readouterr() == ("", "")


def test_a_shipped_measurement_without_weights_says_so(gpt2, monkeypatch):
    monkeypatch.setattr(model_files, "SHIPPED", gpt2.parent)
    record = {"sha256": "abc", "revisions": {"step8": "def"}}
    (gpt2 / model_files.SOURCE).write_text(json.dumps(record))
    (gpt2 / "model.safetensors").unlink()
    assert model_files.identified("tiny-gpt2", None) == ("abc", gpt2 / model_files.COUNTS_FILE)
    assert model_files.identified("tiny-gpt2", "step8")[0] == "def"
    with pytest.raises(UserError, match="tiny-gpt2 ships as a measurement, without its weights"):
        load_model("tiny-gpt2")
    with pytest.raises(UserError, match="tiny-gpt2 at step8 ships as a measurement, without its"):
        load_model("tiny-gpt2", revision="step8")


def test_a_revision_of_a_directory_is_refused(gpt2):
    with pytest.raises(UserError, match="tiny-gpt2 has no revision 'step1000'"):
        load_model(str(gpt2), revision="step1000")
