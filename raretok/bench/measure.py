"""Measuring one call: its seconds, and the memory that it takes."""

import gc
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from raretok.ablation.plan import give_back
from raretok.errors import UserError


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """Most memory that `run` holds above what is held before it. Raises `UserError`."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    give_back()  # freed memory that the allocator keeps would be used again unseen
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far is what is held now
        before = resident("VmRSS")
    except OSError:
        raise UserError("no /proc on this system: raretok bench measures memory on Linux") from None
    run()
    return max(0, resident("VmHWM") - before)


def resident(name: str) -> int:
    """Resident memory of this process in bytes: VmRSS now, VmHWM at most."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", status)[1])
