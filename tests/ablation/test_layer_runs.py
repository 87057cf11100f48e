"""A run of an earlier layer on disk: equal to `ablate_layer`, whole after a kill, within memory."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raretok.ablation import batches, layers, plan, stacked
from raretok.ablation.checkpoints import Checkpoints
from raretok.ablation.layers import LayerOptions, ablate_layer_to_disk
from raretok.ablation.plan import STACK, layer_memory, parts_to_fit
from raretok.ablation.screen import screened
from raretok.ablation.store import Run, open_run, read_record
from raretok.errors import UserError
from raretok.models.loading import load_model
from raretok.stats.documents import DocumentSums
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions
from tests.ablation.reference import layer_alone
from tests.kill import files_of, flip, killed_at
from tests.tiny import positions_at, write_model

OPTIONS = LayerOptions(-2, n_top=4, n_random=4)
N_BATCHES = 3
N_CONTEXTS = 2 * N_BATCHES


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    return load_model(str(write_model(tmp_path_factory.mktemp("deep") / "gpt2", n_layers=3)))


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    tokens = np.random.default_rng(0).integers(1, 257, size=(N_CONTEXTS, 24))
    tokens[:, 0] = 0
    return Contexts(tokens, np.full(N_CONTEXTS, 24), document=np.arange(N_CONTEXTS) // 2)


@pytest.fixture(scope="module")
def positions(contexts) -> Positions:
    context, pos = np.repeat(np.arange(N_CONTEXTS), 3), np.tile([3, 8, 14], N_CONTEXTS)
    return positions_at(contexts, context, pos, np.arange(3 * N_CONTEXTS) % 3)


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH", 2)
        patch.setattr(layers, "BATCH", 2)
        patch.setattr(stacked, "AUDIT_PAIRS", 2)
        patch.setattr(layers, "RESAMPLES", 50)
        yield


@pytest.fixture(scope="module")
def work(deep, contexts, positions):
    def work(folder: Path, **options):
        given = {"options": OPTIONS, "source": {"seed": 0}} | options
        return ablate_layer_to_disk(deep, contexts, positions, folder, **given)[1]

    return work


def test_it_is_what_is_made_in_memory(finished, deep, contexts, positions):
    expected = layer_alone(deep, contexts, positions, OPTIONS)
    assert open_run(finished).load().identical(expected)
    assert not (finished / "scratch").exists()


# The n-th time that a file of this name is opened, renamed or deleted.
KILLED = {
    "at once": (1, ""),
    "while the mean is taken": (2, "mean-"),
    "while a checkpoint gets its name": (3, "screen-"),
    "while neurons are replaced": (2, "exact-"),
    "while the result is written": (1, "delta_loss/c"),
    "before the seal": (1, "timings.json"),
}


@pytest.mark.parametrize("when", KILLED)
def test_killed_and_resumed_it_ends_with_the_same_bytes(when, work, whole, tmp_path, monkeypatch):
    moment, name = KILLED[when]
    folder = tmp_path / "killed"
    killed_at(moment, work, folder, name)
    done = {file.stem for file in folder.glob("scratch/*-*.part")}
    made, keep = set(), Checkpoints.keep
    monkeypatch.setattr(
        Checkpoints, "keep", lambda self, name, part: made.add(name) or keep(self, name, part)
    )
    work(folder)
    assert files_of(folder) == files_of(whole)
    assert made.isdisjoint(done)
    assert len(made | done) == 3 * N_BATCHES  # mean, screen and exact


@pytest.fixture(scope="module")
def broken(work, tmp_path_factory) -> Path:
    """A run killed while it replaces neurons."""
    folder = tmp_path_factory.mktemp("broken") / "run"
    killed_at(3, work, folder, "exact-")
    return folder


@pytest.fixture
def killed(broken, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(broken, tmp_path / "killed"))


def test_a_damaged_checkpoint_is_computed_again(work, whole, killed):
    kept = sorted(killed.glob("scratch/*-*.part"))
    assert kept
    for file in kept:
        flip(file)
    work(killed)
    assert files_of(killed) == files_of(whole)


def test_damage_and_foreign_settings_are_named(work, finished):
    with pytest.raises(UserError, match=r"other settings \(n_top\): n_top is 4, not 5"):
        work(finished, options=replace(OPTIONS, n_top=5))
    flip(finished / "data.zarr" / "screen" / "c" / "0" / "0")
    with pytest.raises(UserError, match=r"is damaged: data.zarr/screen/c/.* has changed"):
        open_run(finished)
    with pytest.raises(UserError, match="is damaged"):
        work(finished)


def test_a_full_disk_keeps_what_is_finished(work, whole, tmp_path, monkeypatch):
    def full(self, name, part):
        if name.startswith("exact-") and name.endswith("-2"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return keep(self, name, part)

    keep = Checkpoints.keep
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "keep", full)
        with pytest.raises(UserError, match="is full: finished blocks are kept"):
            work(tmp_path / "full")
    assert len(list((tmp_path / "full" / "scratch").glob("exact-*.part"))) == 2
    work(tmp_path / "full")
    assert files_of(tmp_path / "full") == files_of(whole)


def test_the_budget_decides_how_many_contexts_run_together(
    deep, contexts, positions, work, finished, killed, tmp_path, monkeypatch
):
    monkeypatch.setattr(plan, "SCORED", 1)  # else the logits of a tiny model are most of it
    inputs = (deep, contexts, positions, 1)
    plenty, least = (layer_memory(*inputs, parts) / 1e9 for parts in (1, STACK))
    assert parts_to_fit(*inputs, plenty) == 1
    assert parts_to_fit(*inputs, 0.99 * plenty) > 1
    with pytest.raises(UserError, match=r"GB is too small for one context of 24 tokens"):
        work(tmp_path / "small", max_memory=0.99 * least)
    assert not (tmp_path / "small").exists()
    found = work(tmp_path / "tight", max_memory=0.99 * plenty).load()
    assert read_record(tmp_path / "tight")["parts"] > 1
    at_once = open_run(finished).load()
    np.testing.assert_allclose(found.delta_loss, at_once.delta_loss, rtol=0, atol=1e-5)
    before = files_of(finished)
    assert work(finished, max_memory=1e-6).load().identical(at_once)  # no memory to open it
    assert files_of(finished) == before
    with pytest.raises(UserError, match="this memory budget asks for"):
        work(killed, max_memory=0.99 * plenty)


@pytest.mark.parametrize(
    "changed",
    [
        {"layer": 0},
        {"n_top": 5},
        {"n_random": 5},
        {"mode": "zero"},
        {"tolerance": 1e-3},
        {"seed": 1},
    ],
)
def test_whatever_decides_the_numbers_is_in_the_settings(changed, work, finished):
    with pytest.raises(UserError, match=f"other settings \\({next(iter(changed))}\\)"):
        work(finished, options=replace(OPTIONS, **changed))


def test_a_kill_between_the_result_and_its_seal_changes_nothing(work, whole, tmp_path, monkeypatch):
    def killed(self, audit, seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            work(tmp_path / "killed")
    work(tmp_path / "killed")
    assert files_of(tmp_path / "killed") == files_of(whole)


def test_other_neurons_do_not_take_over_kept_effects(work, whole, killed, tmp_path, monkeypatch):
    """A screen that is computed again may rank others at the top."""
    for file in killed.glob("scratch/screen-*.part"):
        file.unlink()

    def others(*args) -> list[DocumentSums]:
        return [DocumentSums(-one.value[:, ::-1], one.weight) for one in screened(*args)]

    monkeypatch.setattr(layers, "screened", others)
    found = work(killed).load()
    expected = work(tmp_path / "alone").load()
    assert not np.array_equal(found.neuron, open_run(whole).neuron)
    np.testing.assert_array_equal(found.delta_loss, expected.delta_loss)
