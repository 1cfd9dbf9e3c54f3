"""Stage machine: the card, its libraries, and the two rates that other stages are relative to."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

import torch

from benchmarks.gpu.clock import seconds
from benchmarks.gpu.record import Bench

SIZES = (4096, 8192, 16384)
TINY_SIZES = (64, 128)


def run(bench: Bench) -> None:
    """See the module."""
    bench.plan(["libraries", "matrix product", "copy"])
    bench.cell("libraries", lambda: _libraries(bench))
    bench.cell("matrix product", lambda: _products(bench))
    bench.cell("copy", lambda: _copies(bench))


def _libraries(bench: Bench) -> None:
    rows = {
        "device": card_name(bench.device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cpu cores": str(len(os.sched_getaffinity(0))),
    }
    if bench.device == "cuda":
        facts = torch.cuda.get_device_properties(0)
        rows |= {
            "driver": _driver(),
            "cudnn": str(torch.backends.cudnn.version()),
            "compute capability": f"{facts.major}.{facts.minor}",
            "multiprocessors": str(facts.multi_processor_count),
            "memory GiB": f"{facts.total_memory / 2**30:.1f}",
        }
    for package in ("triton", "numpy"):
        try:
            rows[package] = __import__(package).__version__
        except ImportError:
            rows[package] = "none"
    for name, value in rows.items():
        bench.row("the machine", what=name, is_=value)
    bench.figure("card", rows["device"])


def card_name(device: str) -> str:
    """The GPU's name, or the processor's."""
    if device == "cuda":
        return torch.cuda.get_device_name(0)
    return f"CPU ({platform.machine()})"


def _driver() -> str:
    if not shutil.which("nvidia-smi"):
        return "nvidia-smi not found"
    words = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]  # fmt: skip  # noqa: E501
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    return done.stdout.strip() or done.stderr.strip()[:200]


def product_rate(device: str, size: int, dtype: torch.dtype, repeat: int) -> float:
    """FLOP/s of the product of two random size x size matrices: the best of three rows of
    `repeat`, because other work and clocks can only slow it down."""
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    out = torch.empty_like(left)
    call = lambda: torch.matmul(left, right, out=out)  # noqa: E731
    for _ in range(3):
        call()
    return 2 * size**3 / min(seconds(call, device, repeat) for _ in range(3))


def _products(bench: Bench) -> None:
    best = 0.0
    for size in TINY_SIZES if bench.tiny else SIZES:
        for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float32, "float32")):
            if dtype == torch.float32 and size == SIZES[-1]:
                continue  # takes a second and adds nothing to the smaller ones
            rate = product_rate(bench.device, size, dtype, 2 if bench.tiny else 10)
            bench.row("matrix products", size=size, dtype=name, tflops=rate / 1e12)
            best = max(best, rate) if dtype == torch.bfloat16 else best
    bench.figure("bf16 matrix product", best / 1e12, "TFLOP/s")


def _copies(bench: Bench) -> None:
    size = 1 << (20 if bench.tiny else 32)
    source = torch.empty(size, dtype=torch.uint8, device=bench.device).fill_(1)
    target = torch.empty_like(source)
    target.copy_(source)
    rate = 2 * size / min(seconds(lambda: target.copy_(source), bench.device, 5) for _ in range(3))
    bench.row("copies", what="on the device, read and written", gb_per_s=rate / 1e9)
    bench.figure("copy on the device", rate / 1e12, "TB/s")
    if bench.device != "cuda":
        return
    for pinned in (False, True):
        host = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=pinned)
        there = torch.empty_like(host, device="cuda")
        there.copy_(host)
        rate = host.numel() / seconds(lambda: there.copy_(host), "cuda", 3)  # noqa: B023
        name = f"host to device, {'pinned' if pinned else 'pageable'}"
        bench.row("copies", what=name, gb_per_s=rate / 1e9)
