"""Training steps side by side: vanilla flow matching, Self-Flow, and Self-Flow built naively.

    python -m benchmarks.train_step
    python -m benchmarks.train_step --model 625m --tokens video --batch 4 --device cuda \\
        --precision bfloat16 --compile

A step is loss, backward, clipping, AdamW and EMA, as in the Trainer; the batch is random and
already on the device. The naive step is the same Self-Flow step, to rounding, with what the
library avoids: modulation computed for every token instead of every noise level, and a teacher
that runs all its blocks and its head. Rounds of all variants alternate, medians are printed;
ratios are medians of the ratios within a round, so that other load on the machine hits both.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from benchmarks.gpu.cases import VARIANTS, Case, Measured, Naive, Setup
from benchmarks.gpu.clock import peak_bytes, reset_peak, wall
from benchmarks.gpu.machine import product_rate
from selfflow_wm.data import Mode
from selfflow_wm.flow.time_laws import UniformTime
from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model import Backbone
from selfflow_wm.model.sit import SiT
from selfflow_wm.objective import FlowMatching, SelfFlow
from selfflow_wm.sizes import PRESETS
from selfflow_wm.tables import print_table

GRIDS = {"image": ((1, 16, 16), 0.25), "video": ((13, 12, 20), 0.1)}
"""256 tokens of a 256-pixel image; 3,120 of a 49-frame clip of 192 x 320 behind Wan2.2's AE."""


def make_case(arguments: argparse.Namespace) -> Case:
    """A SiT or Backbone of --width and --depth, or a preset of configs/model, and its variants."""
    a = arguments
    grid, ratio = GRIDS[a.tokens]
    text = {"text_length": 1, "vocabulary": 1001} if a.model == "sit" else {"text_length": 32}
    layout = Layout((Modality(a.tokens, grid, 16, ratio),), **text)
    shape: dict[str, Any] = dict(width=a.width, heads=max(1, a.width // 64))
    network: Callable[[], nn.Module]
    if a.model == "sit":
        network = lambda: SiT(layout, depth=a.depth, **shape)  # noqa: E731
    else:
        shape |= dict(double=a.depth // 3, single=a.depth - a.depth // 3)
        if a.model != "backbone":
            preset: Any = OmegaConf.load(PRESETS / f"{a.model}.yaml")
            shape = dict(preset)
        network = lambda: Backbone(layout, **shape)  # noqa: E731

    def objectives() -> dict[str, Any]:
        ours = SelfFlow(UniformTime(), width=shape["width"])
        return {"vanilla": FlowMatching(UniformTime()), "self_flow": ours, "naive": Naive(ours)}

    return Case(a.model, layout, Mode(a.tokens, (), (a.tokens,)), network, objectives)


def prepare(case: Case, arguments: argparse.Namespace) -> Measured:
    """The Trainer whose steps are measured."""
    a = arguments
    return Measured(case, Setup(a.device, a.batch, a.precision, a.compile))


def peak_memory(name: str, arguments: argparse.Namespace) -> float:
    """Bytes that two steps need at most: on the GPU, or (in a fresh process) resident."""
    reset_peak(arguments.device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    measured = prepare(make_case(arguments), arguments)
    measured.choose(name)
    for _ in range(2):
        measured.step()
    peak = peak_bytes(arguments.device)
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before if peak is None else peak
    )


def in_fresh_process(name: str, arguments: argparse.Namespace) -> float:
    """`peak_memory` where nothing else has been allocated."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak_memory, name, arguments).result()


def report(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    a = arguments
    memory = {name: in_fresh_process(name, a) for name in a.variants}
    case = make_case(a)
    measured, flops = prepare(case, a), {name: a.batch * case.counted(name) for name in a.variants}
    size = 8192 if a.device == "cuda" else 1536
    dtype = torch.bfloat16 if a.precision == "bfloat16" else torch.float32

    def timed(name: str) -> float:
        measured.choose(name)
        return wall(measured.step, a.device)

    losses = {}
    for name in a.variants:
        measured.choose(name)
        losses[name] = measured.loss()
    first = {name: timed(name) for name in a.variants}
    for name in a.variants:  # the second call is the first that runs at full speed
        timed(name)
    peaks, rounds = [], []
    for _ in range(a.rounds):
        peaks.append(product_rate(a.device, size, dtype, 3))
        rounds.append({name: timed(name) for name in a.variants})
    peak = statistics.median(peaks)

    model: Any = measured.trainer.model
    tokens = a.batch * model.layout.num_tokens()
    print(
        f"{a.model}: {model.num_parameters() / 1e6:.1f}M parameters, width {model.width}, depth "
        f"{model.depth}; batch {a.batch} x {model.layout.num_tokens()} tokens; {a.device} "
        f"{a.precision}{', compiled' if a.compile else ''}, {torch.get_num_threads()} threads; "
        f"matmul peak {peak / 1e9:.0f} GFLOP/s; {a.rounds} rounds"
    )
    rows = []
    for name in a.variants:
        median = statistics.median(row[name] for row in rounds)
        ratio = statistics.median(row[name] / row[a.variants[0]] for row in rounds)
        rows.append(
            (
                name, f"{median:.3f}", f"{ratio:.2f}", f"{tokens / median:.0f}",
                f"{flops[name] / 1e9:.0f}", f"{flops[name] / median / peak:.0%}",
                f"{memory[name] / 2**30:.2f} G", f"{first[name]:.1f} s",
            )
        )  # fmt: skip
    print_table(
        ("variant", "s/step", "x vanilla", "tokens/s", "GFLOP", "of peak", "memory", "first step"),
        rows,
    )
    if {"self_flow", "naive"} <= set(a.variants):
        faster = statistics.median(row["naive"] / row["self_flow"] for row in rounds)
        difference = abs(losses["naive"] - losses["self_flow"])
        print(f"self_flow against naive: {faster:.2f} x as fast, losses differ by {difference:.1e}")


def main() -> None:
    """Entry."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    add("--model", default="sit", choices=["sit", "backbone", *names])
    add("--width", type=int, default=384, help="of sit and backbone")
    add("--depth", type=int, default=12, help="of sit and backbone")
    add("--tokens", default="image", choices=GRIDS)
    add("--batch", type=int, default=8)
    add("--rounds", type=int, default=7)
    add("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--precision", default="float32", choices=["float32", "bfloat16"])
    add("--compile", action="store_true", help="torch.compile the blocks")
    report(parser.parse_args())


if __name__ == "__main__":
    main()
