"""Stage why: the profile of ten training steps: tables of kernels and gaps, and a trace."""

from __future__ import annotations

import gzip
import json
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.cases import Measured, Setup, paper
from benchmarks.gpu.record import Bench

STEPS = 10
TOP, GAPS = 25, 10
TRACE_LIMIT = 15 << 20
GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")


def run(bench: Bench) -> None:
    """See the module."""
    bench.plan(["compiled", "eager"] if not bench.tiny else ["eager"])
    if not bench.tiny:
        most = 0.75 * bench.left()  # the rest is enough for the eager one
        bench.cell("compiled", lambda: _profile(bench, compiled=True), 25, most)
    bench.cell("eager", lambda: _profile(bench, compiled=False), 0 if bench.tiny else 10)


def _profile(bench: Bench, compiled: bool) -> None:
    measured = Measured(
        paper("625m", "image", bench.tiny),
        Setup(
            bench.device, _batch(bench), compile=compiled, tiny=bench.tiny, out=bench.path.parent
        ),
    )
    for _ in range(1 if bench.tiny else 4):
        measured.step()
    way = "compiled" if compiled else "eager"
    if bench.device == "cuda":
        bench.figure(f"host synchronisations a step, {way}", synchronisations(measured), "")
    steps = 2 if bench.tiny else STEPS
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if bench.device == "cuda" else []
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            measured.step()
        if bench.device == "cuda":
            torch.cuda.synchronize()
    path = bench.path.parent / f"trace-{way}.json"
    profiler.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    path.unlink()
    work = spans(events, GPU_WORK if bench.device == "cuda" else ("cpu_op",))
    _tables(bench, way, work, steps)
    if compiled or bench.tiny:
        write_trace(bench.out / "trace.json.gz", events)
        bench.note("trace.json.gz opens in chrome://tracing and in Perfetto")


def _batch(bench: Bench) -> int:
    """The batch that filled the card in the stage fast, else one that fits 80 GB."""
    if bench.tiny:
        return 2
    for row in bench.before.get("fast", {}).get("tables", {}).get("steps", []):
        if (row["model"], row["batch_of"], row["step"]) == ("625m", "image", "self_flow"):
            return int(row["batch"])
    return 32


def synchronisations(measured: Measured) -> int:
    """Calls in one step that make the host wait for the GPU, as torch's debug mode warns of."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            measured.step()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    return sum("synchronizing" in str(warning.message) for warning in caught)


def spans(events: Iterable[dict[str, Any]], kinds: Sequence[str]) -> list[tuple[float, float, str]]:
    """(begin, end, name) in microseconds of the complete events of some kinds, in order."""
    found = [
        (float(e["ts"]), float(e["ts"]) + float(e["dur"]), str(e["name"]))
        for e in events
        if e.get("ph") == "X" and e.get("cat") in kinds
    ]
    return sorted(found)


def gaps(work: Sequence[tuple[float, float, str]]) -> list[tuple[float, str, str]]:
    """(microseconds, name before, name after) of every pause in which nothing of `work` ran."""
    found, reach, last = [], work[0][1], work[0][2]
    for begin, end, name in work[1:]:
        if begin > reach:
            found.append((begin - reach, last, name))
        if end > reach:
            reach, last = end, name
    return found


def _tables(bench: Bench, way: str, work: Sequence[tuple[float, float, str]], steps: int) -> None:
    if not work:
        raise ValueError("expected events of the device in the profile, got none")
    span = max(end for _, end, _ in work) - work[0][0]
    pauses = gaps(work)
    idle = sum(pause for pause, _, _ in pauses)
    by_name: dict[str, list[float]] = defaultdict(list)
    for begin, end, name in work:
        by_name[name].append(end - begin)
    busy = sum(map(sum, by_name.values()))
    bench.figure(f"idle share of the timeline, {way}", round(100 * idle / span, 1), "%")
    bench.figure(f"profiled step, {way}", span / steps / 1e3, "ms")
    for name, times in sorted(by_name.items(), key=lambda item: -sum(item[1]))[:TOP]:
        bench.row(
            f"top {TOP} kernels, {way}", share_of_work=f"{sum(times) / busy:.1%}",
            ms_a_step=sum(times) / steps / 1e3, calls_a_step=len(times) / steps, name=_short(name),
        )  # fmt: skip
    for low, high in ((0, 5), (5, 20), (20, 100), (100, 1000), (1000, float("inf"))):
        inside = [pause for pause, _, _ in pauses if low <= pause < high]
        bench.row(
            f"gaps, {way}", us=f"{low} to {high:g}", a_step=len(inside) / steps,
            share_of_timeline=f"{sum(inside) / span:.1%}",
        )  # fmt: skip
    for pause, before, after in sorted(pauses, reverse=True)[:GAPS]:
        bench.row(
            f"longest gaps, {way}", us=round(pause, 1), after=_short(before, 48),
            before=_short(after, 48),
        )  # fmt: skip


def _short(name: str, limit: int = 70) -> str:
    return name if len(name) <= limit else name[: limit - 3] + "..."


def write_trace(path: Path, events: Sequence[dict[str, Any]], limit: int = TRACE_LIMIT) -> None:
    """The events as a gzipped chrome trace of at most `limit` bytes; of too many, the earliest
    are kept."""
    events = [
        # The names of processes and threads are arguments; those of others are most of the bytes.
        event if event.get("ph") == "M" else {k: v for k, v in event.items() if k != "args"}
        for event in sorted(events, key=lambda event: float(event.get("ts", 0)))
    ]
    share = 1.0
    while True:
        kept = events[: int(len(events) * share)]
        text = json.dumps({"traceEvents": kept}, separators=(",", ":"))
        data = gzip.compress(text.encode(), 6)
        if len(data) <= limit or not kept:
            path.write_bytes(data)
            return
        share *= 0.9 * limit / len(data)
