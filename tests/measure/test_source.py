"""What a measurement is made from: token counts, and a device that is there."""

from pathlib import Path

import numpy as np
import pytest

from raretok.errors import NotTestableError, UserError
from raretok.measure.find import Measurements
from raretok.measure.parameters import PageParameters, check_sources, read_counts
from raretok.measure.source import Source
from raretok.text.protocol import PROTOCOLS
from tests.tiny import write_model


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array([1.5]), "float64 values of shape"),
        (np.array([[1]]), r"shape \(1, 1\)"),
        (np.array([-1]), "non-negative"),
        (np.array([2**63 + 5], np.uint64), "non-negative"),
        (np.zeros(0, int), "no counts: all 0"),
        (np.zeros(5, int), "no counts: all 5"),
        (np.array([{}]), "cannot read token counts"),
    ],
)
def test_bad_counts_are_refused(tmp_path, content, message):
    np.save(tmp_path / "c.npy", content, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        read_counts(tmp_path / "c.npy")


def test_counts_that_do_not_fit_into_memory_are_refused(tmp_path):
    with (tmp_path / "c.npy").open("wb") as file:
        header = {"descr": "<i8", "fortran_order": False, "shape": (10**15,)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(UserError, match=r"cannot read token counts from c\.npy"):
        read_counts(tmp_path / "c.npy")


def test_a_missing_gpu_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="no GPU is visible"):
        _ = Source(PageParameters(device="cuda")).model


@pytest.fixture
def counted_model(tmp_path):
    """A tiny model with token counts of its own, and a text of few letters."""
    model = write_model(tmp_path / "tiny")
    np.save(model / "unigram_counts.npy", np.arange(257))
    rng = np.random.default_rng(0)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join("".join(rng.choice(list("abcdefgh "), 2_100)) for _ in range(3)))
    return PageParameters(model=str(model), corpus=str(text), n_ctx=32)


def test_counts_that_come_with_a_model_are_checked_before_it_is_loaded(counted_model):
    (Path(counted_model.model) / "unigram_counts.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"token counts from unigram_counts\.npy"):
        check_sources(counted_model)


def test_what_stands_between_packed_documents_is_not_scored(counted_model):
    source = Source(counted_model.model_copy(update={"packed": True}))
    first, tokens = source.model.bos, source.contexts.tokens
    assert (tokens[:, 1:] == first).any()
    found = source.everything("corrected")
    assert first not in found.input
    assert first not in found.target
    assert len(found) > 0.9 * tokens.size * (tokens.shape[1] - 4) / tokens.shape[1]


def test_types_of_a_counted_training_text_all_have_a_frequency(counted_model):
    (Path(counted_model.model) / "training.json").write_text('{"seed": 0}')
    counted = Source(counted_model).counted
    assert counted[:257].all()
    assert not counted[257:].any()


def test_without_the_training_text_only_types_of_the_scored_text_have_one(counted_model):
    """With counts of another text as without any: a byte of the scored text, or no class."""
    source = Source(counted_model)
    letters = {source.model.tokenizer.convert_tokens_to_ids(c) for c in [*"abcdefgh", "Ġ"]}
    assert set(np.flatnonzero(source.counted)) == letters
    (Path(counted_model.model) / "unigram_counts.npy").unlink()
    assert set(np.flatnonzero(Source(counted_model).counted)) == letters


def test_what_one_forward_pass_saw_serves_every_intervention(counted_model, monkeypatch, tmp_path):
    """Runs that share activations equal runs that do not, and the contexts are run once."""
    from raretok.ablation import gather
    from raretok.measure import source as module

    monkeypatch.setattr("raretok.ablation.store.RUNS", tmp_path / "runs")
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    passes = []
    run_batch = gather.run_batch
    monkeypatch.setattr(gather, "run_batch", lambda *args: passes.append(1) or run_batch(*args))
    given = counted_model.model_copy(update={"n_positions": 50})
    shared = Source(given)
    mean = shared.run("stratified")
    once = len(passes)
    zero = shared.run("stratified", mode="zero")
    assert len(passes) == once > 0
    alone = Source(given.model_copy())
    monkeypatch.setattr(Source, "forward", lambda self, draw: None)
    monkeypatch.setattr("raretok.ablation.store.RUNS", tmp_path / "others")
    for one, options in ((mean, {}), (zero, {"mode": "zero"})):
        np.testing.assert_array_equal(one.delta_loss, alone.run("stratified", **options).delta_loss)


def test_rows_of_a_reading_without_classes_are_missing_with_its_reason(counted_model, monkeypatch):
    """Few types above the elbow may leave none in the rarest part; the other readings go on."""
    from raretok.measure import parts
    from raretok.measure import source as module

    def classes_of(counts, counted, rule, percentile):
        if rule == PROTOCOLS["text"].rule:
            raise NotTestableError("no type is rare")
        return made(counts, counted, rule, percentile)

    made = module.rarity.classes_of
    monkeypatch.setattr(module.rarity, "classes_of", classes_of)
    asked = Measurements(counted_model)
    given = Source(counted_model.model_copy(update={"n_positions": 50}))
    assert set(given.strata(given.positions("stratified"), "stratified")) == {"corrected"}
    with pytest.raises(NotTestableError, match="no type is rare"):
        parts.attention_part(given, asked, "text")
    assert parts.attention_part(given, asked, "corrected").sizes["query"] > 0
