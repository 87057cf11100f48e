"""One run computed by worker processes of which two are killed; workers that must not take part."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from raretok.ablation import distributed, plan, stream
from raretok.ablation.distributed import ablate_on, check_workers, connected, task, versions
from raretok.ablation.plan import Options
from raretok.ablation.store import read_record
from raretok.ablation.stream import ablate_to_disk
from raretok.errors import UserError
from raretok.models.loading import load_model
from raretok.text.corpus import Contexts
from tests.kill import files_of
from tests.tiny import positions_at, write_model

N_CONTEXTS, PER_CONTEXT = 24, 10
BLOCK = 32
KILLS = 2
COMPUTE = stream.compute_block


def asked(folder: Path, name: str) -> dict:
    """What the run is asked for, here and in a worker."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 257, size=(N_CONTEXTS, 32))
    tokens[:, 0] = 0
    length = np.full(N_CONTEXTS, 32)
    contexts = Contexts(tokens, length, document=np.arange(N_CONTEXTS) // 2)
    context = np.repeat(np.arange(N_CONTEXTS), PER_CONTEXT)
    pos = np.tile(np.arange(2, 2 + PER_CONTEXT), N_CONTEXTS)
    return {
        "model": load_model(str(folder / "model")),
        "contexts": contexts,
        "positions": positions_at(contexts, context, pos, np.arange(len(context)) % 3),
        "out": folder / name,
        "options": Options(),
        "forward": folder / f"forward-{name}",
    }


def asked_in_danger(folder: Path, name: str) -> dict:
    """The same; the first workers to finish a block die before they can keep it."""
    driver = int((folder / "driver").read_text())

    def dying(work, k):
        block = COMPUTE(work, k)
        with (folder / "computed").open("a") as log:
            log.write(f"{k}\n")
        for n in range(KILLS):
            try:
                (folder / f"killed-{n}").touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        return block

    if os.getpid() != driver:
        stream.compute_block, plan.BLOCK = dying, BLOCK
    return asked(folder, name)


def refuse(work, k):
    raise AssertionError(f"block {k} was computed here")


def test_a_run_by_workers_of_which_two_are_killed_has_the_bytes_of_a_run_by_one(
    tmp_path, monkeypatch
):
    write_model(tmp_path / "model", n_layers=1)
    (tmp_path / "driver").write_text(str(os.getpid()))
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    monkeypatch.setattr(plan, "BLOCK", BLOCK)
    alone = asked(tmp_path, "alone")
    ablate_to_disk(**alone)
    with connected(workers=2) as client:
        monkeypatch.setattr(stream, "compute_block", refuse)  # all are computed by workers
        folder, data = ablate_on(client, asked_in_danger, tmp_path, "shared", n=4)
    assert data.audit_passed
    record = read_record(folder)
    n_blocks = -(-record["positions"] // record["block"])
    assert n_blocks == N_CONTEXTS * PER_CONTEXT // BLOCK + 1
    assert files_of(folder) == files_of(alone["out"])
    computed = (tmp_path / "computed").read_text().split()
    assert len(computed) == n_blocks + KILLS
    assert set(computed) == {str(k) for k in range(n_blocks)}
    assert not list((tmp_path / "forward-shared").glob("blocks-*"))


@pytest.fixture(scope="module")
def client():
    with connected() as client:
        yield client


@pytest.mark.parametrize("name", ["raretok", "code", "torch", "numpy", "RARETOK_RUNS"])
def test_a_worker_that_differs_is_refused(name, client, monkeypatch):
    check_workers(client)
    theirs = versions() | {name: "another"}
    monkeypatch.setattr(client, "run", lambda function, on_error: {"tcp://a:1": theirs})
    with pytest.raises(UserError, match=f"the worker tcp://a:1 has {name} another, here it is"):
        check_workers(client)
    with pytest.raises(UserError, match=f"has {name} another, here it is"):
        task(theirs, print, (), [])


def test_workers_without_raretok_or_with_several_tasks_at_a_time_are_refused(client, monkeypatch):
    broken = {"tcp://a:1": ModuleNotFoundError("raretok")}
    monkeypatch.setattr(client, "run", lambda function, on_error: broken)
    with pytest.raises(UserError, match="the worker tcp://a:1 has no raretok like this one"):
        check_workers(client)
    workers = {"workers": {"tcp://a:1": {"nthreads": 4}}}
    monkeypatch.setattr(client, "scheduler_info", lambda n_workers: workers)
    with pytest.raises(UserError, match="the worker tcp://a:1 takes 4 tasks at a time"):
        check_workers(client)


def test_a_scheduler_that_does_not_answer_is_one_line(monkeypatch):
    monkeypatch.setattr(distributed, "TIMEOUT", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with (
            pytest.raises(UserError, match=f"no Dask scheduler answers at {address}"),
            connected(scheduler=address),
        ):
            pass
