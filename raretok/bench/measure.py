"""Measuring: seconds, best of interleaved repeats, and the memory a call takes."""

import gc
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from raretok.ablation.plan import give_back
from raretok.errors import UserError
from raretok.text.streams import say

REPEATS = 3
REPEAT_SECONDS = 120.0  # a task that has taken as long is not repeated


def timed(run: Callable[[], Any], device: str) -> float:
    """Seconds of one call."""
    synchronize(device)
    started = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def best_of(tasks: dict[str, Callable[[], Any]], device: str, label: str) -> dict[str, float]:
    """Shortest time of each task. Rounds over all tasks, so that a busy moment hits all alike."""
    best, spent = dict.fromkeys(tasks, math.inf), dict.fromkeys(tasks, 0.0)
    for repeat in range(REPEATS):
        for name, run in tasks.items():
            if repeat and spent[name] >= REPEAT_SECONDS:
                continue
            seconds = timed(run, device)
            best[name], spent[name] = min(best[name], seconds), spent[name] + seconds
            say(f"{label}: {name} {seconds:.2f} s ({repeat + 1} of {REPEATS})")
    return best


@dataclass(frozen=True)
class PartialWay:
    """A way too slow to be run whole: some neurons on some contexts, and none on the same.

    What it does once a context, whatever the neurons, is counted once; the rest grows with them.
    """

    name: str
    run: Callable[[Int[Tensor, "context pos"], Int[Tensor, " neuron"]], Any]
    tokens: Int[Tensor, "context pos"]
    neurons: Int[Tensor, " neuron"]
    n_contexts: int  # of the whole
    n_neurons: int

    @property
    def tasks(self) -> dict[str, Callable[[], Any]]:
        return {
            f"{self.name}, no neuron": lambda: self.run(self.tokens, self.neurons[:0]),
            f"{self.name}, some": lambda: self.run(self.tokens, self.neurons),
        }

    def extrapolated(self, seconds: dict[str, float]) -> float:
        """Seconds for all contexts and neurons."""
        none, some = (seconds[name] for name in self.tasks)
        each = max(some - none, 0.0) / len(self.neurons)
        return (none + each * self.n_neurons) * self.n_contexts / len(self.tokens)

    @property
    def told(self) -> dict[str, int]:
        return {"neurons": len(self.neurons), "positions": self.tokens[:, 1:].numel()}


def peak_bytes(run: Callable[[], Any], device: str) -> int:
    """Most memory that `run` holds above what is held before it."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    give_back()  # freed memory that the allocator keeps would be used again unseen
    with Watch() as watch:
        run()
    return watch.most - watch.before


class Watch:
    """Highest resident memory of this process, in bytes, looked at every millisecond."""

    def __enter__(self) -> "Watch":
        self.before = self.most = resident_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.001):
            self.most = max(self.most, resident_bytes())

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._thread.join()
        self.most = max(self.most, resident_bytes())


def resident_bytes() -> int:
    """Resident memory of this process. Raises `UserError` where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        raise UserError("no /proc on this system: raretok bench measures memory on Linux") from None
    return pages * os.sysconf("SC_PAGE_SIZE")
