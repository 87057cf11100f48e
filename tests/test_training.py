"""Training: learns, resumes to the same weights, writes a directory that others can read."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from raretok import streams, training
from raretok.corpus import Corpus, Document
from raretok.errors import UserError
from raretok.models import untrained_twin
from raretok.training import TrainingConfig, train

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


def test_a_killed_run_resumes_to_the_same_weights(tmp_path, monkeypatch):
    run(tmp_path / "whole")
    real, calls = training.training_step, []

    def fails_at_step_eight(*args):
        calls.append(args)
        if len(calls) == 9:
            raise Killed
        return real(*args)

    monkeypatch.setattr(training, "training_step", fails_at_step_eight)
    with pytest.raises(Killed):
        run(tmp_path / "parts", checkpoint_every=3)
    assert not (tmp_path / "parts" / "model").exists()
    monkeypatch.setattr(training, "training_step", real)
    run(tmp_path / "parts", checkpoint_every=3)
    whole, parts = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


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


def test_settings_are_checked():
    with pytest.raises(UserError, match="batch must be positive, got 0"):
        TrainingConfig(batch=0)


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
