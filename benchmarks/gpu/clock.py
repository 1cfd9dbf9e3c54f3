"""Time, memory and random numbers on a GPU, and the same calls on a CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def synchronise(device: str) -> None:
    """Wait until the device is idle."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], Any], device: str, repeat: int = 1) -> float:
    """Seconds of one `call` out of `repeat` in a row: by events on the GPU, else by the clock."""
    synchronise(device)
    if device == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeat):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / repeat
    started = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - started) / repeat


def wall(call: Callable[[], Any], device: str, repeat: int = 1) -> float:
    """Seconds of one `call` by the clock, the device's work and waiting for the host included."""
    synchronise(device)
    started = time.perf_counter()
    for _ in range(repeat):
        call()
    synchronise(device)
    return (time.perf_counter() - started) / repeat


def median_ms(call: Callable[[], Any], device: str, warmup: int, rounds: int) -> float:
    """Median wall-clock milliseconds of `call`, until its result is there."""
    for _ in range(warmup):
        call()
    return 1e3 * statistics.median(wall(call, device) for _ in range(rounds))


def reset_peak(device: str) -> None:
    """Reset the peak of allocated memory."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: str) -> int | None:
    """Peak of bytes allocated since `reset_peak`; None on a CPU, where torch counts none."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


def total_bytes(device: str) -> int | None:
    """Bytes of GPU memory available to this process; None on a CPU."""
    return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() if device == "cuda" else None
