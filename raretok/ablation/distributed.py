"""Work on a Dask cluster, and one run computed by several of its workers.

A run is cut into shares, each every n-th batch of contexts or block of positions. What a worker has
computed lies in a folder that all of them see, whole or not at all. One process puts the run
together (raretok/ablation/stream.py): it alone writes the store, and takes each block that is there
instead of computing it. So the bytes are those of a run by one process as far as its arithmetic
repeats itself: on the same processor, with the same number of threads. A worker that is lost costs
the batch or block it was at.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import torch
import xarray as xr
from distributed import Client, Future, as_completed

from raretok import __version__
from raretok.ablation import plan
from raretok.ablation.plan import MAX_MEMORY, cut_to_fit, layout_of, numerics, settings_of
from raretok.ablation.store import Run, is_run, read_record
from raretok.ablation.stream import Work, ablate_to_disk, block_of, run_batch
from raretok.errors import UserError
from raretok.paths import RUNS, key_of, locked

TIMEOUT = 5  # seconds that a scheduler has to answer
_works: dict[str, Work] = {}  # the last one of this process


@contextmanager
def connected(scheduler: str = "", workers: int = 0) -> Iterator[Client]:
    """A client of the scheduler at an address, else of so many processes here, or of this one.

    Raises `UserError` for a scheduler that does not answer and for workers that differ.
    """
    for name in logging.root.manager.loggerDict:
        if name.startswith("distributed"):  # errors are told once, by the caller
            logging.getLogger(name).setLevel(logging.CRITICAL)
    if scheduler:
        try:
            client = Client(scheduler, timeout=TIMEOUT)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"no Dask scheduler answers at {scheduler} ({type(error).__name__}): give the "
                "address that dask scheduler prints, such as tcp://10.0.0.1:8786"
            ) from None
        with client:
            check_workers(client)
            yield client
        return
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // max(1, workers))
    link = {"distributed.dashboard.link": "http://127.0.0.1:{port}/status"}
    own = {"env": {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}} if workers else {}
    with (
        dask.config.set(link),
        Client(
            n_workers=max(1, workers),
            threads_per_worker=1,
            processes=workers > 0,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            memory_limit=0,
            **own,
        ) as client,
    ):
        yield client


def versions() -> dict[str, str]:
    """What must be the same wherever a number of one run is computed, and where runs are kept."""
    libraries = {name: version(name) for name in ("torch", "numpy", "zarr", "distributed")}
    return {"raretok": __version__, "code": numerics(), **libraries, "RARETOK_RUNS": str(RUNS)}


def check_workers(client: Client) -> None:
    """Raise `UserError` naming the first worker that differs from here, and in what."""
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        if worker["nthreads"] > 1:
            raise UserError(
                f"the worker {address} takes {worker['nthreads']} tasks at a time: start workers "
                "with --nthreads 1, and set OMP_NUM_THREADS to the cores that each may use"
            )
    for address, theirs in client.run(versions, on_error="return").items():
        check_versions(theirs, f"the worker {address}")


def check_versions(theirs: dict[str, str] | Exception, where: str) -> None:
    """Raise `UserError` where another process would not compute the same."""
    if not isinstance(theirs, dict):
        raise UserError(f"{where} has no raretok like this one: install the same there")
    for name, mine in versions().items():
        if theirs.get(name) != mine:
            raise UserError(
                f"{where} has {name} {theirs.get(name)}, here it is {mine}: make them the same"
            )


@dataclass
class Tasks:
    """What a client is given to do, each task once."""

    client: Client
    futures: dict[str, Future] = field(default_factory=dict)
    expected: dict[str, str] = field(default_factory=versions)

    def submit(self, key: str, do: Callable[..., Any], *args: Any, after: Iterable = ()) -> Future:
        """Have a function called when other tasks are done; what it returns is not kept."""
        if key not in self.futures:
            given = (self.expected, do, args, list(after))
            self.futures[key] = self.client.submit(task, *given, key=key, pure=False)
        return self.futures[key]

    def finished(self) -> Iterator[tuple[str, float, str, Exception | None]]:
        """Key, seconds, worker and error of each task, as they end."""
        waiting = as_completed(self.futures.values())
        self.futures = {}  # results nobody holds are not made again when their worker is lost
        for future in waiting:
            if future.status == "finished":
                yield future.key, *future.result(), None
            else:
                yield future.key, 0.0, "", failure(future)


def task(expected: dict[str, str], do: Callable[..., Any], args: tuple, after: list) -> tuple:
    """Call a function on a worker; its seconds, and the worker's process."""
    check_versions(expected, "the process that gave this task")
    started = time.monotonic()
    with torch.no_grad():
        do(*args)
    return round(time.monotonic() - started, 2), f"{os.uname().nodename} {os.getpid()}"


def failure(future: Future) -> Exception:
    """Why a task did not end well."""
    if future.status == "cancelled":
        return UserError("the Dask scheduler was lost: run the same command again to go on")
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        return UserError("every worker that tried it died (out of memory?)")
    return error


def submit_shares(
    tasks: Tasks,
    key: str,
    make: Callable[..., dict[str, Any]],
    runs: list[tuple],
    n: int,
    after: Iterable[Future] = (),
) -> list[Future]:
    """Submit the ablations that `make(*args)` asks for, all of one forward pass, in `n` shares.

    `make` gives what `ablate_to_disk` is asked for, and `forward` with it.
    """
    batches = [
        tasks.submit(f"{key}, contexts {i} of {n}", batches_share, make, runs[0], i, n, after=after)
        for i in range(n)
    ]
    return [
        tasks.submit(
            f"{key}, run {r}, positions {i} of {n}", blocks_share, make, args, i, n, after=batches
        )
        for r, args in enumerate(runs)
        for i in range(n)
    ]


def batches_share(make: Callable[..., dict], args: tuple, index: int, n: int) -> None:
    """Run every n-th batch of contexts that was not run."""
    work = work_of(**make(*args))
    for k in range(len(work.batches))[index::n]:
        with locked(work.scratch.folder / "locks" / f"batch-{k}", wait=True):
            run_batch(work, k)


def blocks_share(make: Callable[..., dict], args: tuple, index: int, n: int) -> None:
    """Compute every n-th block of positions that is not there, unless the run is finished."""
    work = work_of(**make(*args))
    if is_run(work.run.folder) and read_record(work.run.folder)["state"] == "complete":
        return
    for k in range(work.run.n_blocks)[index::n]:
        with locked(work.blocks.folder / "locks" / str(k), wait=True):
            block_of(work, k)


def work_of(**asked: Any) -> Work:
    """The work that a share is of; the last one is kept, with its mean and its method."""
    given = ("model", "contexts", "positions", "options")
    model, contexts, positions, options = (asked[name] for name in given)
    settings = settings_of(model, contexts, positions, asked.get("source"), options.asked)
    key = key_of(settings)
    if key not in _works:
        cut = cut_to_fit(model, contexts, asked.get("max_memory", MAX_MEMORY))
        record = {"key": key, **layout_of(model, positions, *cut)}
        run = Run(asked.get("out") or RUNS / key, record)
        _works.clear()
        _works[key] = Work(run, model, contexts, positions, options, asked["forward"])
    return _works[key]


def ablate_on(
    client: Client, make: Callable[..., dict], *args: Any, n: int | None = None
) -> tuple[Path, xr.Dataset]:
    """`ablate_to_disk(**make(*args))` with its shares computed by a client's workers; its result.

    `make` is called here and in every worker. Its `forward` is a folder that all of them see; the
    caller removes it. Raises `UserError`.
    """
    tasks, asked = Tasks(client), make(*args)
    n = n or -(-len(asked["positions"]) // plan.BLOCK)
    submit_shares(tasks, str(asked["forward"]), make, [args], n)
    for *_, error in tasks.finished():
        if error:
            raise error
    return ablate_to_disk(**asked)
