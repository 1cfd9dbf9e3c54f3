"""Stage fast: step time, FLOP use and memory of the paper's models, batches filling the card."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu.cases import VARIANTS, Case, Measured, Setup, paper, sit
from benchmarks.gpu.clock import peak_bytes, reset_peak, total_bytes, wall
from benchmarks.gpu.machine import product_rate
from benchmarks.gpu.record import Bench, free

FILL = 0.92
"""Share of the card's memory that a batch may take; the rest is lost to fragmentation."""
GIB = 1 << 30
MFU_BAR, RATIO_BAR, MEMORY_BAR = 0.5, 0.05, 0.15
BOTH = VARIANTS[:2]


@dataclass(frozen=True)
class Cell:
    """One measurement: a network on one kind of batch, run in one way."""

    preset: str
    kind: str
    compile: bool = True
    checkpointing: bool = False
    variants: Sequence[str] = BOTH
    share: float = 1.0
    """Fraction of the batch that fills the card; the naive step needs more memory."""
    masked: bool = True
    """Whether attention gets a padding mask, as captions of different lengths need."""

    @property
    def name(self) -> str:
        words = [f"{self.preset} {self.kind} {'compiled' if self.compile else 'eager'}"]
        words += ["checkpointed"] if self.checkpointing else []
        words += [] if self.masked else ["unmasked"]
        words += ["naive too"] if "naive" in self.variants else []
        return ", ".join(words)


HALF: dict[str, Any] = dict(variants=VARIANTS, share=0.5)
CELLS = (
    Cell("625m", "image"),
    Cell("625m", "video"),
    Cell("625m", "audio"),
    Cell("625m", "image", compile=False, **HALF),
    Cell("625m", "image", masked=False),
    Cell("sit", "image"),
    Cell("1b", "image"),
    Cell("290m", "image"),
    Cell("625m", "video", checkpointing=True),
    Cell("625m", "video", compile=False),
    Cell("625m", "image", **HALF),
    Cell("sit", "image", compile=False, **HALF),
    Cell("1b", "video"),
    Cell("290m", "video"),
    Cell("1b", "video", checkpointing=True),
    Cell("1b", "audio"),
    Cell("290m", "audio"),
)
"""Most important first."""
TINY_CELLS = (
    Cell("625m", "image", compile=False),
    Cell("625m", "video", compile=False, checkpointing=True, **HALF),
    Cell("sit", "image", compile=False, **HALF),
)
"""Compiling is rehearsed in the stage right."""
NEEDS = {True: 35.0, False: 12.0}
"""s that a compiled or eager cell needs, until one has been timed; with less left it is skipped."""
COMPILING = 0.75
"""Share of the time left that a compiled cell may take, so that eager ones are measured anyway."""


def run(bench: Bench) -> None:
    """See the module."""
    torch.set_float32_matmul_precision("high")
    peak = _peak(bench)
    cells = TINY_CELLS if bench.tiny else CELLS
    bench.plan([cell.name for cell in cells])
    batches: dict[tuple[str, str, bool], int] = {}
    needs = dict.fromkeys(NEEDS, 0.0) if bench.tiny else dict(NEEDS)
    for cell in cells:
        began, left = time.time(), bench.left()
        share = COMPILING if cell.compile else 1.0
        need, most = needs[cell.compile] / share, share * left if cell.compile else None
        work = lambda cell=cell: _measure(bench, cell, batches, peak)  # noqa: E731
        bench.cell(cell.name, work, need, most)
        if not bench.tiny and left >= need:
            # The next one compiles about as much: a cell that cannot end costs those after it.
            needs[cell.compile] = max(needs[cell.compile], time.time() - began)


def _peak(bench: Bench) -> float:
    """FLOP/s of a bfloat16 product, of the stage machine or measured now."""
    figures = bench.before.get("machine", {}).get("figures", {})
    if "bf16 matrix product" in figures:
        return 1e12 * float(figures["bf16 matrix product"]["value"])
    return product_rate(bench.device, 64 if bench.tiny else 8192, torch.bfloat16, 5)


def _measure(bench: Bench, cell: Cell, batches: dict, peak: float) -> None:
    """Measure the cell with the batch that fills the card, or a smaller one if that runs out of
    memory."""
    tiny = bench.tiny
    case = sit(tiny) if cell.preset == "sit" else paper(cell.preset, cell.kind, tiny)
    key = (cell.preset, cell.kind, cell.checkpointing)
    if key not in batches:
        batches[key] = scan(bench, case, cell.checkpointing)
        free()
    for share in (1.0, 0.75, 0.5):
        batch = max(1, int(batches[key] * cell.share * share))
        found = None
        with suppress(torch.OutOfMemoryError):
            found = _timed(bench, cell, case, batch, peak)
        if found is not None:
            _write(bench, cell, case, batch, *found, peak)
            return
        bench.note(f"{cell.name}: no room for a batch of {batch}")
        free()
    raise RuntimeError(f"{cell.name}: no room for half the batch that a scan found to fit")


def _timed(
    bench: Bench, cell: Cell, case: Case, batch: int, peak: float
) -> tuple[dict[str, list[float]], dict[str, int | None], dict[str, float]]:
    """Seconds a step and peak memory by variant, and the seconds of each one's first step."""
    setup = Setup(
        bench.device, batch, compile=cell.compile, checkpointing=cell.checkpointing,
        masked=cell.masked, tiny=bench.tiny, out=bench.path.parent,
    )  # fmt: skip
    measured = Measured(case, setup)
    first = {}
    # Self-Flow first: its FLOP use stands even if the time ends while another step is compiled.
    for variant in sorted(cell.variants, key=lambda name: name != "self_flow"):
        measured.choose(variant)
        first[variant] = wall(measured.step, bench.device)
        measured.step()
        if variant == "self_flow" and "naive" not in cell.variants:
            rate = case.flops(batch)["self_flow"] / wall(measured.step, bench.device, 3)
            _mfu(bench, cell, rate / peak)
    return *_rounds(bench, measured, cell.variants), first


def _rounds(
    bench: Bench, measured: Measured, variants: Sequence[str]
) -> tuple[dict[str, list[float]], dict[str, int | None]]:
    """Seconds a step of every variant, in rounds that alternate them, and peak memory."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    memory: dict[str, int | None] = {}
    rounds, steps = (2, 1) if bench.tiny else (5, 3)
    for number in range(rounds):
        for name in variants:
            measured.choose(name)
            reset_peak(bench.device)
            times[name].append(wall(measured.step, bench.device, steps))
            memory[name] = peak_bytes(bench.device)
        if number >= 2 and bench.left() < 10:
            break
    return times, memory


def _write(
    bench: Bench, cell: Cell, case: Case, batch: int, times: dict, memory: dict, first: dict,
    peak: float,
) -> None:  # fmt: skip
    flops = case.flops(batch)
    planned = case.planned_bytes(batch, "bfloat16", cell.checkpointing)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name in cell.variants:
        over = [a / b for a, b in zip(times[name], times["vanilla"], strict=True)]
        peaked = memory[name]
        bench.row(
            "steps", model=cell.preset, batch_of=cell.kind,
            way=("compiled" if cell.compile else "eager")
            + " ckpt" * cell.checkpointing
            + " unmasked" * (not cell.masked),
            step=name, batch=batch, tokens=case.tokens, ms=1e3 * medians[name],
            samples_per_s=batch / medians[name],
            mfu=flops[name] / medians[name] / peak if name in flops else None,
            x_vanilla=statistics.median(over),
            gib=peaked / GIB if peaked else None,
            plan_gib=planned / GIB if planned and name == "self_flow" else None,
            first_s=first[name],
        )  # fmt: skip
    _figures(bench, cell, times, flops, medians, memory, planned, peak)


def _figures(
    bench: Bench, cell: Cell, times: dict, flops: dict, medians: dict, memory: dict,
    planned: int | None, peak: float,
) -> None:  # fmt: skip
    label = cell.name
    if "naive" not in cell.variants:
        _mfu(bench, cell, flops["self_flow"] / medians["self_flow"] / peak)
    pairs = zip(times["self_flow"], times["vanilla"], strict=True)
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    expected = flops["self_flow"] / flops["vanilla"]
    bench.figure(
        f"Self-Flow / vanilla, {label}", ratio, f"x (FLOPs {expected:.3f})",
        bar=f"within {RATIO_BAR:.0%} of the FLOPs",
        ok=bool(abs(ratio / expected - 1) <= RATIO_BAR) if bench.device == "cuda" else None,
    )  # fmt: skip
    if "naive" in times:
        pairs = zip(times["naive"], times["self_flow"], strict=True)
        faster = statistics.median(naive / ours for naive, ours in pairs)
        bench.figure(f"naive / Self-Flow, {label}", faster, "x")
    if planned and memory["self_flow"]:
        off = memory["self_flow"] / planned - 1
        bench.figure(
            f"memory against the plan, {label}", round(100 * off, 1), "%",
            bar=f"within {MEMORY_BAR:.0%}", ok=abs(off) <= MEMORY_BAR,
        )  # fmt: skip


def _mfu(bench: Bench, cell: Cell, mfu: float) -> None:
    """FLOP use of Self-Flow's step, with the bar where there is one."""
    wanted = cell.preset == "625m" and cell.compile and not cell.checkpointing
    bench.figure(
        f"MFU, {cell.name}", round(100 * mfu, 1), "%",
        bar=f">= {MFU_BAR:.0%} at 625M, compiled" if wanted else "",
        ok=bool(mfu >= MFU_BAR) if wanted and bench.device == "cuda" else None,
    )  # fmt: skip


# ---------------------------------------------------------------- the batch that fills the card


def scan(bench: Bench, case: Case, checkpointing: bool) -> int:
    """The largest batch of Self-Flow steps that fits, by eager steps of growing batches.

    The third batch is extrapolated from the peaks of two; compiled steps need no more memory than
    eager ones. On a CPU, whose memory torch does not count, it is the second batch.
    """
    setup = Setup(
        bench.device, 2 if bench.tiny else 4, checkpointing=checkpointing, tiny=bench.tiny,
        out=bench.path.parent,
    )  # fmt: skip
    measured, room = Measured(case, setup), total_bytes(bench.device)
    batch, fits, peaks, failed = setup.batch, 0, [], False
    for _ in range(2 if room is None else 6):
        peak = _try_batch(bench, case, measured, batch, checkpointing)
        if peak is None:
            failed, batch = True, _rounded(0.85 * batch)
        else:
            fits = batch
            peaks.append((batch, peak))
            if failed or len(peaks) == 4:
                break
            early = room is None or len(peaks) < 2
            batch = 2 * batch if early else foreseen(peaks, FILL * (room or 0))
        if batch <= fits:
            break
    if not fits:
        raise RuntimeError(f"{case.name}: no batch fits the card")
    return fits


def foreseen(peaks: Sequence[tuple[int, int]], room: float) -> int:
    """The batch whose peak is `room` bytes on the line through the last two (batch, bytes)."""
    (first, low), (second, high) = peaks[-2:]
    slope = max(1.0, (high - low) / (second - first))
    return _rounded(second + (room - high) / slope)


def _rounded(batch: float) -> int:
    """Down to a multiple of 4, from 8 on."""
    return int(batch) // 4 * 4 if batch >= 8 else max(1, int(batch))


def _try_batch(
    bench: Bench, case: Case, measured: Measured, batch: int, checkpointing: bool
) -> int | None:
    """Peak bytes of a step with `batch` samples (0 on a CPU); None when they do not fit."""
    seconds: float | None = None
    with suppress(torch.OutOfMemoryError):
        measured.resize(batch)
        reset_peak(bench.device)
        measured.step()
        seconds = wall(measured.step, bench.device)
    if seconds is None:  # out here, where the error holds no frames with tensors any more
        measured.trainer.optimizer.zero_grad(set_to_none=True)
        free()
        bench.row("batches tried", case=case.name, ckpt=checkpointing, batch=batch, gib="no room")
        return None
    peak = peak_bytes(bench.device)
    bench.row(
        "batches tried", case=case.name, ckpt=checkpointing, batch=batch,
        gib=peak / GIB if peak else None, samples_per_s=batch / seconds,
    )  # fmt: skip
    return peak or 0
