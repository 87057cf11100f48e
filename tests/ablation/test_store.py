"""A run on disk: equal to `ablate`, whole after a kill, and never read when damaged."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from raretok.ablation import audit, batches, gather, method, plan, stream
from raretok.ablation.checkpoints import Checkpoints
from raretok.ablation.method import apply_method
from raretok.ablation.plan import MOST_PARTS, Options, cut_to_fit, memory_of
from raretok.ablation.store import open_run, read_record
from raretok.ablation.stream import ablate_to_disk
from raretok.errors import UserError
from raretok.models.adapter import LanguageModel
from raretok.models.loading import load_model
from raretok.paths import locked
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions
from tests.ablation.reference import ablate
from tests.kill import files_of, flip, killed_at
from tests.tiny import positions_at, write_model

N, BLOCK = 30, 8
N_BLOCKS = 4  # the last one is short
N_CONTEXTS = N // 3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> LanguageModel:
    folder = tmp_path_factory.mktemp("store") / "gpt2"
    return load_model(str(write_model(folder, "gpt2", n_layers=1)))


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    rng = np.random.default_rng(0)
    length = rng.integers(16, 33, size=N_CONTEXTS)
    tokens = rng.integers(1, 257, size=(N_CONTEXTS, 32))
    tokens[:, 0] = 0
    tokens[np.arange(32) >= length[:, None]] = 0
    return Contexts(tokens, length, document=np.arange(N_CONTEXTS) // 2)


@pytest.fixture(scope="module")
def positions(contexts) -> Positions:
    context = np.repeat(np.arange(N_CONTEXTS), 3)
    pos = np.tile([3, 8, 14], N_CONTEXTS)
    return positions_at(contexts, context, pos, np.arange(N) % 3)


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "BLOCK", BLOCK)
        patch.setattr(batches, "BATCH", 4)
        patch.setattr(audit, "CONTEXTS", 3)  # whole runs of the model: most of the time
        yield


@pytest.fixture(scope="module")
def work(tiny, contexts, positions):
    """Run into a folder."""

    def work(folder: Path, **options) -> xr.Dataset:
        given = {"source": {"seed": 0}} | options
        return ablate_to_disk(tiny, contexts, positions, folder, **given)[1]

    return work


@pytest.fixture(scope="module")
def broken(work, tmp_path_factory) -> Path:
    """A run killed in the third of its blocks."""
    folder = tmp_path_factory.mktemp("broken") / "run"
    killed_at(1, work, folder, "/.2.part")
    return folder


@pytest.fixture
def killed(broken, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(broken, tmp_path / "killed"))


@pytest.fixture(scope="module")
def other(work, tmp_path_factory) -> Path:
    """A run with other numbers."""
    folder = tmp_path_factory.mktemp("other") / "run"
    work(folder, options=Options(mode="zero"))
    return folder


def test_it_equals_ablate_to_the_bit_with_its_blocks(work, tiny, contexts, positions, tmp_path):
    expected = ablate(tiny, contexts, positions)
    found = work(tmp_path / "run")
    assert found.load().identical(expected)
    assert found.attrs == expected.attrs


def test_other_blocks_change_rounding_only(work, tmp_path, monkeypatch):
    in_eights = work(tmp_path / "8").load()
    monkeypatch.setattr(plan, "BLOCK", 64)
    at_once = work(tmp_path / "64").load()
    np.testing.assert_array_equal(in_eights.post, at_once.post)
    assert float(abs(at_once.delta_loss).max()) > 0.1
    np.testing.assert_allclose(in_eights.delta_loss, at_once.delta_loss, rtol=0, atol=1e-7)
    assert read_record(tmp_path / "8")["key"] == read_record(tmp_path / "64")["key"]


def test_the_store_opens_with_xarray_alone(finished):
    with xr.open_zarr(finished / "data.zarr", chunks=None) as plain:
        assert plain.delta_loss.dims == ("position", "neuron")
        assert set(plain.coords) >= {"context", "pos", "input", "target", "document"}
        assert plain.delta_loss.encoding["chunks"] == (BLOCK, 48)
        np.testing.assert_array_equal(plain.delta_loss, open_run(finished).delta_loss)


def test_a_finished_run_is_opened_not_repeated(finished, work, monkeypatch):
    before = files_of(finished)
    monkeypatch.setattr(stream, "apply_method", None)
    monkeypatch.setattr(gather, "run_batch", None)
    work(finished)
    assert files_of(finished) == before
    assert not (finished / "scratch").exists()


def test_fresh_starts_again_and_spares_other_files(finished, work):
    before = files_of(finished)
    (finished / "notes.txt").write_text("mine")
    next((finished / "data.zarr/delta_loss/c/2").iterdir()).write_bytes(b"")
    work(finished, resume=False)
    assert files_of(finished) == before | {"notes.txt": b"mine"}


def resumed_equal(work, folder: Path, reference: Path, monkeypatch) -> int:
    """Resume; count the finished blocks, none of which may be computed again."""
    done, computed = list(folder.glob("scratch/blocks-*/*.part")), []
    monkeypatch.setattr(
        stream, "apply_method", lambda *args: computed.append(len(args[1])) or apply_method(*args)
    )
    work(folder)
    assert len(computed) == N_BLOCKS - len(done)
    assert files_of(folder) == files_of(reference)
    return len(done)


# The n-th time that a file of this name is opened, renamed or deleted, and the blocks kept by then.
KILLED = {
    "at once": (1, "", 0),
    "while the model runs": (3, "scratch", 0),
    "before a block counts": (1, "/.2.part", 2),
    "while the arrays are made": (2, "data.zarr/loss", N_BLOCKS),
    "between the files of a block": (1, "/loss/c/2", N_BLOCKS),
    "before the seal": (1, "timings.json", N_BLOCKS),
}


@pytest.mark.parametrize("when", KILLED)
def test_killed_and_resumed_it_ends_with_the_same_bytes(when, work, whole, tmp_path, monkeypatch):
    moment, name, kept = KILLED[when]
    killed_at(moment, work, tmp_path / "killed", name)
    assert resumed_equal(work, tmp_path / "killed", whole, monkeypatch) == kept


def test_a_torn_chunk_is_done_again(work, whole, killed, monkeypatch):
    """What a kill in the middle of a write leaves."""
    chunk = killed / "data.zarr/delta_loss/c/3/0"
    chunk.parent.mkdir(parents=True, exist_ok=True)
    chunk.write_bytes(b"half")
    assert resumed_equal(work, killed, whole, monkeypatch) == 2


def edit(file: Path) -> None:
    record = json.loads(file.read_text())
    record["audit"]["audit_max_error"] = 0.0
    file.write_text(json.dumps(record))


DAMAGE = {
    "truncated": ("data.zarr/delta_loss/c/3/0", lambda f: os.truncate(f, 100), "has changed"),
    "flipped": ("data.zarr/post/c/3/0", flip, "data.zarr/post/c/3/0 has changed"),
    "missing": ("data.zarr/loss/c/3", os.remove, "data.zarr/loss/c/3 is missing"),
    "metadata": ("data.zarr/zarr.json", flip, "data.zarr/zarr.json has changed"),
    "label": ("data.zarr/target/c/0", flip, "data.zarr/target/c/0 has changed"),
    "edited": ("run.json", edit, "run.json was changed after it was written"),
    "no json": ("run.json", lambda f: f.write_text("{"), "run.json cannot be read"),
    "stray": ("data.zarr", lambda f: (f / "x").write_text("?"), "data.zarr/x is not of this run"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(kind, finished):
    name, damage, message = DAMAGE[kind]
    damage(finished / name)
    with pytest.raises(UserError, match=message) as caught:
        open_run(finished)
    assert "is damaged" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_not_resumed_over(kind, finished, work):
    name, damage, message = DAMAGE[kind]
    damage(finished / name)
    with pytest.raises(UserError, match=message):
        work(finished)


def test_run_json_of_another_run_is_named(other, finished):
    shutil.copy(other / "run.json", finished)
    with pytest.raises(UserError, match="is damaged: "):
        open_run(finished)


@pytest.mark.parametrize("damaged", ["blocks-*/0.part", "post.f32", "batch-0.part"])
def test_what_is_damaged_of_an_unfinished_run_is_done_again(damaged, work, whole, killed):
    (file,) = killed.glob(f"scratch/{damaged}")
    flip(file)
    work(killed)
    assert files_of(killed) == files_of(whole)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("x" * 300, "cannot write to .*: file name too long"),
        ("link", "cannot write to .*: file exists"),
    ],
)
def test_a_place_that_cannot_hold_a_run_is_named(place, message, work, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=message):
        work(tmp_path / place)


def test_a_finished_run_opens_whatever_the_memory(work, finished):
    assert work(finished, max_memory=1e-6).identical(open_run(finished))


def test_an_unfinished_run_is_not_opened(killed):
    with pytest.raises(UserError, match=r"is not finished: 2 of 4 blocks"):
        open_run(killed)


def test_a_directory_that_is_no_run_is_left_alone(work, tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    for resume in (True, False):
        with pytest.raises(UserError, match=r"is not a run: it holds letters.txt but no run.json"):
            work(tmp_path, resume=resume)
    assert files_of(tmp_path) == {"letters.txt": b"dear"}


def test_other_settings_are_named(work, finished):
    with pytest.raises(UserError, match=r"other settings \(seed\): seed is 0, not 1; give"):
        work(finished, source={"seed": 1})


def test_a_second_writer_is_refused(work, finished):
    with locked(finished), pytest.raises(UserError, match="another process is writing"):
        work(finished)


def test_a_budget_too_small_for_one_block_is_refused(work, tmp_path):
    with pytest.raises(UserError, match=r"0.0001 GB is too small for one block of 8 positions"):
        work(tmp_path / "run", max_memory=1e-4)
    assert not (tmp_path / "run").exists()


def test_the_budget_decides_the_block(tiny, contexts, monkeypatch):
    monkeypatch.setattr(plan, "BLOCK", 1024)
    for block in (1024, 256, 16):
        enough = memory_of(tiny, 32, block, MOST_PARTS) / 1e9
        assert cut_to_fit(tiny, contexts, enough)[0] >= block
    plenty = memory_of(tiny, 32, 1024, 1) / 1e9
    assert cut_to_fit(tiny, contexts, plenty) == (1024, 1)
    assert cut_to_fit(tiny, contexts, 0.999 * plenty)[1] > 1


@pytest.mark.parametrize(("at", "kept"), [("batch-0", 0), ("2", 2)])
def test_a_full_disk_keeps_finished_blocks(at, kept, work, whole, tmp_path, monkeypatch):
    keep = Checkpoints.keep

    def full(self, name, part):
        if name == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return keep(self, name, part)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "keep", full)
        with pytest.raises(UserError, match="is full: finished blocks are kept"):
            work(tmp_path / "full")
    assert resumed_equal(work, tmp_path / "full", whole, monkeypatch) == kept


def test_nothing_of_the_size_of_the_result_is_held(work, tmp_path, monkeypatch):
    """Every block reads its own rows only, and a batch of contexts those it wrote."""
    seen = []
    at = stream.Scratch.at

    def watched(self, name, chosen):
        seen.append(chosen.size)
        return at(self, name, chosen)

    monkeypatch.setattr(stream.Scratch, "at", watched)
    monkeypatch.setattr(audit, "PAIRS", BLOCK)
    monkeypatch.setattr(method, "PILOT", BLOCK)
    work(tmp_path / "run")
    assert max(seen) == 3 * batches.BATCH


@pytest.mark.parametrize("mode", ["zero", "resample"])
@pytest.mark.parametrize("effect", ["total", "direct"])
def test_every_intervention_equals_ablate(mode, effect, work, tiny, contexts, positions, tmp_path):
    options = Options(mode=mode, effect=effect, resample_seed=3)
    found = work(tmp_path / "run", options=options).load()
    rng = np.random.default_rng(3)
    expected = ablate(tiny, contexts, positions, mode=mode, effect=effect, rng=rng)
    assert found.identical(expected)


def test_the_exact_path_and_a_layer_in_parts_agree(work, tmp_path, monkeypatch):
    exact = work(tmp_path / "exact", options=Options(tolerance=0.0)).load()
    assert exact.attrs["summed_in_full"] == 1
    assert float(exact.sampling_error.max()) == 0
    monkeypatch.setattr(stream, "cut_to_fit", lambda *args: (BLOCK, 3))
    parts = work(tmp_path / "parts").load()
    means = parts.delta_loss.mean("position") - exact.delta_loss.mean("position")
    assert float(abs(means).max()) < 5e-7


def test_a_run_without_a_full_sum_is_kept_like_any_other(work, tmp_path):
    found = work(tmp_path / "run", options=Options(tolerance=0.9))
    assert found.attrs["summed_in_full"] == 0
    assert open_run(tmp_path / "run").load().identical(found.load())


def test_a_failed_audit_marks_the_run_and_says_so(work, tmp_path, monkeypatch):
    def wrong(method, resid, post, target, new, offset):
        found = apply_method(method, resid, post, target, new, offset)
        return replace(found, delta_loss=1.2 * found.delta_loss)

    monkeypatch.setattr(stream, "apply_method", wrong)
    with pytest.warns(UserWarning, match=r"THE AUDIT FAILED: .* up to 0\.\d+ nats off"):
        found = work(tmp_path / "run")
    assert found.attrs["audit_passed"] == 0
    assert open_run(tmp_path / "run").attrs["audit_passed"] == 0
