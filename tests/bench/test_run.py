"""The benchmark: every way finds the same effects, the sizes are as named, mistakes are refused."""

import json
import sys

import pytest
import torch

from raretok import cli
from raretok.ablation.head import final_head
from raretok.bench import cases as bench_cases
from raretok.bench import contenders, cost
from raretok.bench import run as bench
from raretok.bench.cases import Case, byte_tokenizer, n_contexts, random_tokens
from raretok.errors import UserError
from raretok.models.loading import load_model, random_model
from raretok.text.corpus import Corpus, Document
from tests.ablation.reference import brute_force, largest
from tests.tiny import D_VOCAB, config, write_model

N_CTX = 20


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["gpt2", "neox-parallel", "llama"])
def case(request, tmp_path_factory) -> Case:
    family = request.param
    model = load_model(str(write_model(tmp_path_factory.mktemp(family) / family, family)))
    generator = torch.Generator().manual_seed(0)
    return Case(family, model, torch.randint(1, 257, (3, N_CTX), generator=generator), "random")


@pytest.fixture
def scored(case):
    return contenders.gather(case.model, case.tokens, 2)


@pytest.fixture
def exact(case, scored):
    """Mean effects through float64 copies of the real modules."""
    return brute_force(case.model, scored).mean(dim=0)


def test_what_is_gathered_does_not_depend_on_the_batch(case, scored):
    alone = contenders.gather(case.model, case.tokens, 1)
    assert len(scored.target) == case.positions == 3 * (N_CTX - 1)
    assert torch.equal(scored.target, case.tokens[:, 1:].flatten())
    for name in ("resid", "post", "mean"):
        torch.testing.assert_close(getattr(alone, name), getattr(scored, name))


def test_the_mean_leaves_out_first_tokens(case, scored):
    later = contenders.gather(case.model, case.tokens, 3)
    seen = contenders.capture(case.model, case.tokens).post[:, 1:]
    torch.testing.assert_close(later.mean, seen.mean(dim=(0, 1)))


def test_both_forward_passes_give_the_loss_of_each_position(case, scored):
    bridge = contenders.bridge_forward(case.model, case.tokens, 2)
    torch.testing.assert_close(contenders.plain_forward(case.model, case.tokens, 1), bridge)
    logits = case.model.bridge(case.tokens, return_type="logits")[:, :-1].detach()
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), scored.target, reduction="none"
    )
    torch.testing.assert_close(bridge, expected)


def test_the_exact_ways_agree_with_brute_force(case, scored, exact):
    model, tokens, mean = case.model, case.tokens, scored.mean
    neurons = torch.arange(model.architecture.d_mlp)
    assert largest(exact) > 1e-2
    assert largest(contenders.reference_effects(model, scored, neurons) - exact) < 1e-9
    assert largest(contenders.fast(model, tokens, 2).effects - exact) < 1e-6
    assert largest(contenders.full(model, tokens, neurons, mean, 2) - exact) < 1e-6
    assert largest(contenders.released(model, tokens, neurons, mean) - exact) < 1e-6
    assert largest(contenders.hook_loop(model, tokens, neurons, mean, 2) - exact) < 1e-6


def test_a_slow_way_takes_some_neurons_or_none(case, scored):
    model, tokens, mean = case.model, case.tokens, scored.mean
    some = torch.tensor([40, 3, 17])
    every = contenders.released(model, tokens, torch.arange(48), mean)
    for way in (contenders.full, contenders.released, contenders.hook_loop):
        found = way(model, tokens, some, mean, 2)
        torch.testing.assert_close(found, every[some], atol=1e-6, rtol=0)
        assert way(model, tokens, some[:0], mean, 2).shape == (0,)


def test_attribution_is_the_first_order_of_the_exact_effect(case, scored, exact):
    """Gradient by finite differences in float64: a thousandth of the change, a thousandth."""
    found = contenders.attribution(case.model, case.tokens, 2)
    assert found.shape == (2, 48)
    h = 1e-5
    nudged = scored.post.double() + h * (scored.mean.double() - scored.post.double())
    slope = contenders.delta_loss(
        final_head(case.model, torch.float64),
        scored.resid.double(),
        scored.post.double(),
        scored.target,
        nudged,
        tolerance=0.0,
    )
    slope = slope.mean(dim=0) / h
    torch.testing.assert_close(found[-1], slope, atol=1e-4 * largest(slope), rtol=1e-3)
    assert largest(found[-1] - exact) > 1e-4  # what the first order leaves out


def test_attribution_of_the_last_layer_alone_and_in_other_batches(case):
    every = contenders.attribution(case.model, case.tokens, 3)
    last = contenders.attribution(case.model, case.tokens, 1, all_layers=False)
    torch.testing.assert_close(last[0], every[-1], atol=1e-6, rtol=1e-4)
    assert not case.model.bridge.W_U.requires_grad


def test_reference_neurons_are_all_or_random_and_the_largest(case, monkeypatch):
    effect = torch.arange(48.0)
    assert bench.reference_neurons(case, effect)[1] == "all neurons"
    monkeypatch.setattr(bench, "REFERENCE_WORK", 0)
    monkeypatch.setattr(bench, "REFERENCE", (8, 4))
    chosen, told = bench.reference_neurons(case, effect)
    assert told == "8 random neurons, 4 with the largest effects"
    assert {44, 45, 46, 47} <= set(chosen.tolist())
    assert 8 <= len(chosen) <= 12


def test_a_slow_way_is_extrapolated_by_hand():
    """2 s that no neuron changes and 3 s for 2 of 10 neurons, on 1 of 4 contexts."""
    assert bench.whole_time(2.0, 5.0, 10 / 2, 4 / 1) == 4 * (2 + 10 * 3 / 2)


def test_peak_memory_sees_what_is_held_and_let_go():
    def hold():
        torch.ones(2**24)  # 64 MiB

    found = bench_cases.peak_bytes(hold, torch.device("cpu"))
    assert 0.95 * 2**26 < found < 1.5 * 2**26


def test_the_random_shapes_have_the_sizes_of_their_names():
    gpt2, pythia = (kind(**given) for kind, given, _ in bench_cases.RANDOM.values())
    assert (gpt2.n_embd, gpt2.n_layer, gpt2.n_head, gpt2.vocab_size) == (768, 12, 12, 50_257)
    assert (pythia.hidden_size, pythia.num_hidden_layers) == (2_048, 16)
    assert (pythia.intermediate_size, pythia.vocab_size) == (8_192, 50_304)
    assert pythia.use_parallel_residual


def test_a_random_model_is_built_without_files_and_the_same_twice():
    first, again, other = (
        random_model(config("gpt2"), byte_tokenizer(), "shape", seed=seed) for seed in (0, 0, 1)
    )
    assert (first.architecture.d_mlp, first.architecture.d_vocab) == (48, D_VOCAB)
    assert torch.equal(first.W_U, again.W_U)
    assert first.files_sha256 == again.files_sha256 != other.files_sha256
    assert not torch.equal(first.W_U, other.W_U)
    tokens = random_tokens(first, 62)  # contexts of 32 score 31 positions
    assert tokens.shape == (2, 32)
    assert int(tokens.max()) < D_VOCAB


@pytest.mark.parametrize(("positions", "contexts"), [(1, 1), (255, 1), (256, 2), (4096, 17)])
def test_positions_are_rounded_up_to_whole_contexts(positions, contexts):
    assert n_contexts(positions, 256) == contexts


def test_trained_weights_read_whole_contexts_of_the_held_out_text(case, monkeypatch):
    """Documents of 100 bytes give three contexts of 32 tokens each, and an unused piece."""
    texts = [Document(letter * 100, letter, "letters") for letter in "abcd"]
    corpus = Corpus("letters", tuple(texts), "")
    monkeypatch.setattr(bench_cases, "load_corpus", lambda: corpus)
    tokens = bench_cases.held_out_tokens(case.model, 62)
    assert tokens.shape == (2, 32)
    assert set(tokens[:, 0].tolist()) == {case.model.bos}
    assert all(len(set(context.tolist())) == 1 for context in tokens[:, 1:])
    message = "373 positions were asked for; the held-out text has 12 whole contexts, 372 positions"
    with pytest.raises(UserError, match=message):
        bench_cases.held_out_tokens(case.model, 373)


def test_scaling_varies_one_size_at_a_time(monkeypatch, tmp_path):
    base = {"positions": 4, "neurons": 8, "vocabulary": 16}
    grid = {axis: (value, 2 * value) for axis, value in base.items()}
    monkeypatch.setattr(bench, "BASE", base)
    monkeypatch.setattr(bench, "GRID", grid)
    records = bench.scaling(out=tmp_path / "scaling.json")
    assert json.loads((tmp_path / "scaling.json").read_text()) == records
    assert [(r["axis"], r[r["axis"]]) for r in records] == [
        (axis, value) for axis, values in grid.items() for value in values
    ]
    assert all(r[axis] == base[axis] for r in records for axis in base if axis != r["axis"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shape", "gpt5"], "unknown shape 'gpt5': choose from docs-gpt2, gpt2-small, pythia-1b"),
        (["--positions", "0"], "positions must be 1 or more, got 0"),
        (["--json", "nowhere/bench.json"], "cannot write nowhere/bench.json: give a file in"),
        (["--json", "."], "cannot write .: give a file in"),
        (["--device", "tpu"], "no device 'tpu'"),
        (["--scaling", "--shape", "gpt2-small"], "leave --shape out"),
        (["--scaling", "--json", "nowhere/bench.json"], "cannot write nowhere/bench.json"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(words, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["raretok", "bench", *words])
    monkeypatch.setattr(bench, "load_case", None)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert message in lines[0]


@pytest.mark.parametrize("case", ["gpt2"], indirect=True)
def test_the_command_prints_a_table_and_writes_what_was_promised(
    case, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(bench, "load_case", lambda name, positions, device: case)
    monkeypatch.setattr(bench, "SUBSET_SECONDS", 1e-9)  # one context
    monkeypatch.setattr(bench, "REPEATS", 1)
    out = tmp_path / "bench.json"
    words = ["bench", "--shape", "docs-gpt2", "--positions", "57", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["raretok", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "released way / fast path" in shown
    assert "whole model again, by hooks, s" in shown
    (row,) = json.loads(out.read_text())
    assert row.keys() == cost.read()[0].keys()
    assert (row["neurons"], row["vocabulary"], row["positions"]) == (48, D_VOCAB, 57)
    assert (row["weights"], row["reference"]) == ("random", "all neurons")
    assert 0 < row["max_error_nats"] < 1e-6 < row["atp_max_error_nats"]
    assert row["peak_bytes"] >= 0
    assert row["ratio_to_forward"] == row["seconds_fast"] / row["seconds_forward"]
    assert row["speedup_vs_hooks"] == row["seconds_hooks"] / row["seconds_fast"]
    assert row["extrapolated"]["hooks"] == {"neurons": bench.SUBSET, "positions": N_CTX - 1}
    assert bench.SUBSET >= 32
