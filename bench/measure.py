"""Clocks, memory and yardsticks: what a second and a byte mean here, and how fast this machine is today.

- Time is wall-clock; on CUDA the device is drained before the clock is read.
- Memory is the most that an arm had beyond what was there before it: on CUDA what PyTorch's allocator counts; on a CPU
  the growth of the resident set, read from /proc/self/statm every 10 ms (0 where there is no /proc). Freed memory is
  handed back to the system between arms, as the next arm would otherwise find it for nothing.
- Two yardsticks: the rate of a big matrix product, which is what 100 % means in "MFU" on a CPU, and the tokens/s of one
  fixed training step of a 2 M-parameter model, by which times of two machines can be compared.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch

H200_FLOPS = 780e12  # dense bf16, as reached by a large product
STATM = Path("/proc/self/statm")


def clock(device: torch.device) -> float:
    """Read the time in seconds, once all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Time one call."""
    start = clock(device)
    run()
    return clock(device) - start


@dataclass(slots=True)
class Peak:
    """The most memory beyond that at the start, in bytes; set when the `with` block ends."""

    bytes: int = 0


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the growth of memory inside the block."""
    release_memory(device)
    peak = Peak()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    before, most, is_over = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_over.wait(0.01):
            most = max(most, resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        is_over.set()
        watcher.join()
        peak.bytes = max(0, max(most, resident()) - before)


def release_memory(device: torch.device) -> None:
    """Give freed memory back to the system or the driver."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif platform.system() == "Linux":
        ctypes.CDLL(None).malloc_trim(0)


def resident() -> int:
    """Return the memory of this process that is in use, in bytes; 0 where there is no /proc."""
    """Return the bytes of this process that are in memory now."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if STATM.exists() else 0


def peak_flops(device: torch.device, width: int) -> float:
    """Return FLOP/s of the best of ten square products: bf16 on CUDA, fp32 on a CPU."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    x = torch.randn(width, width, device=device, dtype=dtype)
    x @ x
    return 2 * width**3 / min(seconds_of(lambda: x @ x, device) for _ in range(10))


def calibrate(network: Any, rows: int, width: int, device: torch.device) -> float:
    """Return tokens/s of training all weights of `network` on batches of `rows` x `width`, the median of five steps."""
    network.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    tokens_BT = torch.randint(2, network.config.vocab_size, (rows, width), device=device)

    def step() -> None:
        network(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    return rows * width / median(seconds_of(step, device) for _ in range(5))


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """Describe what this runs on; without a device, a CPU."""
    named = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "device": torch.cuda.get_device_name(device) if device and device.type == "cuda" else "cpu",
        "processor": named[0] if named else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory[0] if memory else None,
        "load_at_start": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Name the versions of Python and of the libraries that are timed."""
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "peft", "accelerate", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []
