"""Training: learns, resumes to the same weights, writes a directory that others can read."""

import copy
import json
import shutil
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from raretok.errors import UserError
from raretok.models import files as model_files
from raretok.models import training
from raretok.models.architecture import Family
from raretok.models.loading import untrained_twin
from raretok.models.training import TrainingConfig, train
from raretok.text import streams
from raretok.text.corpus import Corpus, Document

TINY = {
    "n_tokens": 31 * 4 * 12,  # 12 steps
    "n_layers": 1,
    "d_model": 16,
    "n_heads": 2,
    "d_mlp": 32,
    "d_vocab": 300,
    "n_ctx": 32,
    "batch": 4,
    "warmup_steps": 2,
    "learning_rate": 1e-2,
}


@pytest.fixture(autouse=True)
def corpus(monkeypatch):
    texts = [f"f{i} returns the sum of x and {i}, as the array says. " * 5 for i in range(12)]
    small = Corpus("docs", tuple(Document(t, f"f{i}", "d") for i, t in enumerate(texts)), "0" * 64)
    monkeypatch.setattr(streams, "load_corpus", lambda *_, **__: small)
    monkeypatch.setattr(training, "load_corpus", lambda *_, **__: small)


def run(folder, config=None, **options):
    return train(
        config or TrainingConfig(**TINY),
        folder / "model",
        work=folder / "work",
        compile_model=False,
        **options,
    )


def test_it_learns_and_writes_a_hugging_face_directory(tmp_path):
    record = run(tmp_path)
    untrained = np.log(300)
    assert record["held_out_loss"] < untrained - 0.5
    assert record["tokens_seen"] == 31 * 4 * 12
    assert json.loads((tmp_path / "model" / "training.json").read_text()) == record
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.float16
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.decode(tokenizer("the array").input_ids) == "the array"
    assert np.load(tmp_path / "model" / "unigram_counts.npy").size == 300
    assert not list(tmp_path.rglob("*.partial"))


def test_training_again_replaces_the_model_and_leaves_nothing_beside_it(tmp_path):
    run(tmp_path)
    (tmp_path / "model" / "stale").touch()
    run(tmp_path)
    assert not (tmp_path / "model" / "stale").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "work"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("family", get_args(Family))
def test_a_killed_run_resumes_to_the_same_files(tmp_path, monkeypatch, family):
    config = TrainingConfig(**TINY, family=family, checkpoints=(0, 7, 10))
    run(tmp_path / "whole", config)
    real, calls = training.training_step, []

    def fails_at_step_eight(*args):
        calls.append(args)
        if len(calls) == 9:
            raise Killed
        return real(*args)

    monkeypatch.setattr(training, "training_step", fails_at_step_eight)
    with pytest.raises(Killed):
        run(tmp_path / "parts", config, checkpoint_every=3)
    assert not (tmp_path / "parts" / "model").exists()
    monkeypatch.setattr(training, "training_step", real)
    run(tmp_path / "parts", config, checkpoint_every=3)
    written = {path.parent.name for path in (tmp_path / "parts" / "model").rglob("*.safetensors")}
    assert written == {"model", "step0", "step7", "step10"}
    for path in (tmp_path / "whole" / "model").rglob("*.safetensors"):
        again = tmp_path / "parts" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("family", get_args(Family))
def test_a_family_learns_with_its_embedding_tied_and_its_checkpoints_load(tmp_path, family):
    config = TrainingConfig(**TINY, family=family, checkpoints=(0, 6, 12))
    record = run(tmp_path, config)
    assert record["held_out_loss"] < np.log(300) - 0.5
    assert json.loads((tmp_path / "model" / "training.json").read_text()) == record
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert sum(p.numel() for p in model.parameters()) == record["parameters"]
    weights = [load_file(path) for path in checkpoint_files(tmp_path / "model", (0, 6, 12))]
    final = load_file(tmp_path / "model" / "model.safetensors")
    assert all(loaded.keys() == final.keys() for loaded in weights)
    assert all(torch.equal(weights[2][name], final[name]) for name in final)
    shutil.copy(*checkpoint_files(tmp_path / "model", (0,)), tmp_path / "model/model.safetensors")
    began = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    twin = untrained_twin(config.architecture(), config.seed).half().state_dict()
    assert all(torch.equal(began[name], twin[name]) for name in twin)
    step = model_files.model_folder(str(tmp_path / "model"), "step6")
    assert AutoTokenizer.from_pretrained(step).get_vocab()
    assert load_file(step / "model.safetensors").keys() == final.keys()
    with pytest.raises(UserError, match="model has no revision 'step7': revisions are of Hub"):
        model_files.model_folder(str(tmp_path / "model"), "step7")


def checkpoint_files(model, steps):
    return [model / "checkpoints" / f"step{step}" / "model.safetensors" for step in steps]


def test_the_shapes_of_the_families():
    neox, llama = (TrainingConfig(family=name).architecture() for name in ("neox", "llama"))
    assert neox.use_parallel_residual
    assert neox.rope_parameters["partial_rotary_factor"] == 0.25
    assert (llama.num_attention_heads, llama.num_key_value_heads) == (4, 2)
    assert neox.intermediate_size == llama.intermediate_size == 1_024


@pytest.mark.parametrize("family", ["neox", "llama"])
def test_the_recorded_loss_is_that_of_the_loaded_model_to_the_last_digit(
    tmp_path, monkeypatch, family
):
    """16-bit rotary frequencies moved the loss of a token by up to 0.01 nats."""
    config, seen, real = TrainingConfig(**TINY, family=family), [], training.held_out_loss
    monkeypatch.setattr(
        training, "held_out_loss", lambda *args: seen.append(real(*args)) or seen[0]
    )
    run(tmp_path, config)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert real(loaded, tmp_path / "model", config, "cpu") == seen[0]


def test_step_zero_is_the_untrained_twin(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        training,
        "training_step",
        lambda forward, *_: seen.update(copy.deepcopy(forward.state_dict())) or 0.0,
    )
    config = TrainingConfig(**{**TINY, "n_tokens": 1})
    run(tmp_path, config)
    twin = untrained_twin(config.architecture(), config.seed).state_dict()
    assert all(torch.equal(seen[name], twin[name]) for name in twin)


def test_a_folder_belongs_to_one_set_of_settings(tmp_path):
    run(tmp_path)
    with pytest.raises(UserError, match=r"another seed \(0, asked for 1\)"):
        run(tmp_path, TrainingConfig(**TINY, seed=1))


def test_a_folder_older_than_a_setting_had_its_default(tmp_path):
    run(tmp_path)
    stored = tmp_path / "work" / "settings.json"
    settings = json.loads(stored.read_text())
    del settings["family"], settings["checkpoints"]
    stored.write_text(json.dumps(settings))
    run(tmp_path)
    with pytest.raises(UserError, match=r"another family \(gpt2, asked for llama\)"):
        run(tmp_path, TrainingConfig(**TINY, family="llama"))
    with pytest.raises(UserError, match=r"another checkpoints \(\[\], asked for \[6\]\)"):
        run(tmp_path, TrainingConfig(**TINY, checkpoints=(6,)))


def test_settings_are_checked():
    with pytest.raises(UserError, match="batch must be positive, got 0"):
        TrainingConfig(batch=0)
    with pytest.raises(UserError, match="no checkpoint at step 13: the training has 12 steps"):
        TrainingConfig(**TINY, checkpoints=(0, 13))


def test_every_epoch_reads_each_piece_once():
    stream = np.arange(1, 1_000, dtype=np.uint16)
    width, pieces = 31, (999 - 31) // 31
    steps = [streams.batch_tokens(stream, s, batch=1, n_ctx=32, seed=0) for s in range(2 * pieces)]
    starts = np.array([int(tokens[0, 1]) for tokens in steps])
    assert (np.concatenate([tokens[:, 0] for tokens in steps]) == 0).all()
    for epoch in (starts[:pieces], starts[pieces:]):
        assert (np.diff(np.sort(epoch)) == width).all()
    assert starts[0] % width != starts[pieces] % width


def test_the_rate_warms_up_and_decays():
    config = TrainingConfig(**TINY)
    rates = [config.rate(step) for step in range(config.steps)]
    assert rates[0] == pytest.approx(0.005)
    assert max(rates) == rates[2] == pytest.approx(0.01)
    assert rates[-1] < 0.1 * rates[2]


def test_a_domain_left_out_is_in_the_tokenizer_and_in_nothing_else(tmp_path, monkeypatch):
    kept = [Document(f"the sum of {i} and x. " * 20, f"k{i}", "arrays") for i in range(4)]
    left = [Document(f"a lemma proves zeta {i}. " * 20, f"m{i}", "mathematics") for i in range(4)]
    both = Corpus("docs", (*kept, *left), "0" * 64)
    monkeypatch.setattr(streams, "load_corpus", lambda *_, **__: both)
    for folder, without in (("all", ""), ("some", "mathematics")):
        (tmp_path / folder).mkdir()
        streams.prepare(tmp_path / folder, 300, without)
    files = [tmp_path / name / "tokenizer" / "tokenizer.json" for name in ("all", "some")]
    assert files[0].read_bytes() == files[1].read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "all" / "tokenizer")
    (word,) = tokenizer(" zeta", add_special_tokens=False).input_ids[-1:]
    counts = [np.load(tmp_path / name / "unigram_counts.npy") for name in ("all", "some")]
    assert counts[0][word] > 0 == counts[1][word]
    assert counts[0].sum() > counts[1].sum() > 0
    streamed = [np.load(tmp_path / name / "tokens.npy").size for name in ("all", "some")]
    assert streamed == [one.sum() + n for one, n in zip(counts, (8, 4), strict=True)]
