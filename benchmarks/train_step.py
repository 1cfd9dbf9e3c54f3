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
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from selfflow_wm.flow.noising import NoiseLevels
from selfflow_wm.flow.time_laws import UniformTime
from selfflow_wm.layout import Batch, Layout, Modality
from selfflow_wm.model import Backbone
from selfflow_wm.model.sit import SiT
from selfflow_wm.objective import FlowMatching, SelfFlow
from selfflow_wm.sizes import PRESETS
from selfflow_wm.training.ema import EMA
from selfflow_wm.training.optim import AdamWCosine

VARIANTS = ("vanilla", "self_flow", "naive")
GRIDS = {"image": ((1, 16, 16), 0.25), "video": ((13, 12, 20), 0.1)}
"""256 tokens of a 256-pixel image; 3,120 of a 49-frame clip of 192 x 320 behind Wan2.2's AE."""


class PerToken(nn.Module):
    """`model` called as a naive implementation would: a noise level for every token of its own,
    and no stopping early."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.layout, self.depth = model, model.layout, model.depth

    def forward(
        self, noisy: dict[str, Tensor], levels: NoiseLevels, *args: Any, **options: Any
    ) -> Any:
        index = torch.arange(levels.index.shape[1], device=levels.index.device)
        spread = NoiseLevels(levels.per_token(), index.expand_as(levels.index))
        return self.model(noisy, spread, *args, **(options | {"stop_at_feature": False}))


@dataclass
class Step:
    """One variant's model, objective and optimiser."""

    name: str
    arguments: argparse.Namespace

    def __post_init__(self) -> None:
        a = self.arguments
        torch.manual_seed(0)
        self.model = build_model(a).to(a.device)
        with torch.no_grad():  # zero gates would let a wrong path through unseen
            for parameter in self.model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        self.ema = EMA(self.model, 0.9999)
        if a.compile:
            self.model.compile()
            self.ema.model.compile()
        self.objective = (
            FlowMatching(UniformTime())
            if self.name == "vanilla"
            else SelfFlow(UniformTime(), width=self.model.width)
        )
        extra = self.objective.modules().to(a.device)
        optim = AdamWCosine()
        self.optimizer = optim.build([self.model, extra])
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.clip_norm = optim.clip_norm
        wrap = PerToken if self.name == "naive" else lambda model: model
        self.student, self.teacher = wrap(self.model), wrap(self.ema.model)
        self.batch = fake_batch(self.model.layout, a)

    def loss(self) -> Tensor:
        """The first step's loss, from a fixed seed."""
        a = self.arguments
        generator = torch.Generator(a.device).manual_seed(0)
        with torch.autocast(a.device, torch.bfloat16, enabled=a.precision == "bfloat16"):
            return self.objective.loss(self.student, self.teacher, self.batch, generator).total

    def __call__(self) -> None:
        """One optimiser step."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        self.ema.update(self.model)

    def flops(self) -> float:
        """Floating-point operations of loss and backward, counted by torch."""
        with FlopCounterMode(display=False) as counter:
            self.loss().backward()
        self.optimizer.zero_grad(set_to_none=True)
        return counter.get_total_flops()


def build_model(arguments: argparse.Namespace) -> Any:
    """A SiT or Backbone of --width and --depth, or a preset of configs/model."""
    a = arguments
    grid, ratio = GRIDS[a.tokens]
    text = {"text_length": 1, "vocabulary": 1001} if a.model == "sit" else {"text_length": 32}
    layout = Layout((Modality(a.tokens, grid, 16, ratio),), **text)
    heads = max(1, a.width // 64)
    if a.model == "sit":
        return SiT(layout, width=a.width, depth=a.depth, heads=heads)
    if a.model == "backbone":
        double = a.depth // 3
        return Backbone(layout, width=a.width, heads=heads, double=double, single=a.depth - double)
    preset: Any = OmegaConf.load(PRESETS / f"{a.model}.yaml")
    return Backbone(layout, **preset)


def fake_batch(layout: Layout, arguments: argparse.Namespace) -> Batch:
    """Random latents and captions of full length."""
    generator = torch.Generator().manual_seed(0)
    batch = layout.fake_batch(arguments.batch, generator=generator)
    batch.text_mask = torch.ones_like(batch.text_ids, dtype=torch.bool)
    return batch.to(arguments.device)


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], Any], device: str) -> float:
    """Wall time of `call`, finished on the device."""
    synchronise(device)
    started = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - started


def matmul_peak(arguments: argparse.Namespace) -> float:
    """FLOP/s of the best of several large square products at the step's precision."""
    a = arguments
    size = 8192 if a.device == "cuda" else 1536
    dtype = torch.bfloat16 if a.precision == "bfloat16" else torch.float32
    left, right = torch.randn(2, size, size, device=a.device).to(dtype)
    product = lambda: left @ right  # noqa: E731
    product()
    return 2 * size**3 / min(seconds(product, a.device) for _ in range(10))


def peak_memory(name: str, arguments: argparse.Namespace) -> float:
    """Bytes that two steps need at most: on the GPU, or (in a fresh process) resident."""
    if arguments.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = 0
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    step = Step(name, arguments)
    for _ in range(2):
        step()
    if arguments.device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def in_fresh_process(name: str, arguments: argparse.Namespace) -> float:
    """`peak_memory` where nothing else has been allocated."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak_memory, name, arguments).result()


def report(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    a = arguments
    memory = {name: in_fresh_process(name, a) for name in a.variants}
    steps = {name: Step(name, a) for name in a.variants}
    flops = {name: step.flops() for name, step in steps.items()}
    losses = {name: float(step.loss().detach()) for name, step in steps.items()}
    compile_seconds = {name: seconds(step, a.device) for name, step in steps.items()}
    for step in steps.values():  # the second call is the first that runs at full speed
        step()
    peaks, rounds = [], []
    for _ in range(a.rounds):
        peaks.append(matmul_peak(a))
        rounds.append({name: seconds(step, a.device) for name, step in steps.items()})
    peak = statistics.median(peaks)

    model = next(iter(steps.values())).model
    tokens = a.batch * model.layout.num_tokens()
    print(
        f"{a.model}: {model.num_parameters() / 1e6:.1f}M parameters, width {model.width}, depth "
        f"{model.depth}; batch {a.batch} x {model.layout.num_tokens()} tokens; {a.device} "
        f"{a.precision}{', compiled' if a.compile else ''}, {torch.get_num_threads()} threads; "
        f"matmul peak {peak / 1e9:.0f} GFLOP/s; {a.rounds} rounds"
    )
    print(
        f"{'variant':<11}{'s/step':>9}{'x vanilla':>11}{'tokens/s':>10}{'GFLOP':>9}"
        f"{'of peak':>9}{'memory':>9}{'first step':>12}"
    )
    for name in a.variants:
        median = statistics.median(row[name] for row in rounds)
        ratio = statistics.median(row[name] / row[a.variants[0]] for row in rounds)
        print(
            f"{name:<11}{median:>9.3f}{ratio:>11.2f}{tokens / median:>10.0f}"
            f"{flops[name] / 1e9:>9.0f}{flops[name] / median / peak:>9.0%}"
            f"{memory[name] / 2**30:>7.2f} G{compile_seconds[name]:>10.1f} s"
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
