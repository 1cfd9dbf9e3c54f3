"""What a training run costs before it is started: parameters, tokens, memory, FLOPs, days.

FLOPs are those of matrix products and attention, counted from the shapes (two for a multiplication
with its addition); normalisation, activation functions and codecs are left out. A backward pass
counts as two forward ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from selfflow_wm.data import Mode, ModeSchedule
from selfflow_wm.layout import Layout
from selfflow_wm.model import Backbone
from selfflow_wm.model.backbone import VECTOR_OCTAVES
from selfflow_wm.objective.distillation import Alignment, SelfDistillation
from selfflow_wm.objective.features import layer_number
from selfflow_wm.objective.schedules import DualTimesteps, IndependentTimesteps
from selfflow_wm.training.config import make_objective

FREQUENCIES = 256
"""Of the embedding of noise levels, `model.embed.LevelEmbedding`."""


@dataclass(frozen=True)
class Shape:
    """The arguments of a `Backbone` that its cost depends on."""

    width: int
    double: int
    single: int
    hidden: int
    text_patch: int
    stem: bool
    skip: bool
    vector_in: tuple[str, ...]

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> Shape:
        return cls(
            model["width"],
            model["double"],
            model["single"],
            int(model.get("mlp_ratio", 4.0) * model["width"]),
            model.get("text_patch", 1),
            model.get("stem", False),
            model.get("skip", False),
            tuple(model.get("vector_in", ())),
        )

    @property
    def depth(self) -> int:
        return self.double + self.single

    def text_tokens(self, layout: Layout) -> int:
        """Captions are padded to their longest."""
        return -(-layout.text_length // self.text_patch)


def forward_flops(
    layout: Layout, shape: Shape, mode: Mode, batch: int, levels: int, last: int | None = None
) -> int:
    """FLOPs of a forward pass on `batch` samples of a mode, each of `levels` noise levels.

    last: end after this block, without velocities (a teacher); None runs everything.
    """
    width, text = shape.width, shape.text_tokens(layout)
    main, generated = layout.num_tokens(mode.present), layout.num_tokens(mode.generated)
    depth = shape.depth if last is None else last
    total = batch * _embedding(layout, shape, mode, text)
    total += 2 * (batch * levels + 1) * (FREQUENCIES * width + width**2)  # +1: the caption's level
    if shape.double:
        captions = batch if shape.vector_in else 1
        total += 2 * 6 * width**2 * (batch * levels + captions)
        total += min(depth, shape.double) * batch * _block(shape, text + main, text + main)
    if depth > shape.double:
        total += 2 * 3 * width**2 * batch * (levels + 1)
        total += (depth - shape.double - 1) * batch * _block(shape, text + main, text + main)
        # The last block computes only what is asked of it.
        total += batch * _block(shape, generated, text + main)
    if last is None:
        total += 2 * 2 * width**2 * batch * levels
        for name in layout.present(mode.generated):
            row = layout[name]
            total += 2 * batch * row.num_tokens * width * row.channels * (1 + shape.skip)
    return total


def _embedding(layout: Layout, shape: Shape, mode: Mode, text: int) -> int:
    """Of one sample: tokens and caption into the stream, vectors into the modulation."""
    width, total = shape.width, 0
    if shape.text_patch > 1:
        total += 2 * text * shape.text_patch * width**2
    for name in layout.present(mode.present):
        row = layout[name]
        total += 2 * row.num_tokens * row.channels * width
        if shape.stem:
            total += 2 * row.num_tokens * 4 * width * (row.channels + width)
    for name in shape.vector_in:
        if name == "text":
            inputs = width
        elif name in mode.present:
            row = layout[name]
            octaves = VECTOR_OCTAVES if row.num_tokens == 1 else 0
            inputs = row.num_tokens * row.channels * (1 + 2 * octaves)
        else:
            continue
        total += 2 * 2 * width * (inputs + width)
    return total


def _block(shape: Shape, queries: int, tokens: int) -> int:
    """Of one sample in one block of either kind, which computes `queries` of its `tokens`."""
    width = shape.width
    projections = 2 * width**2 * (2 * queries + 2 * tokens)  # q and out, k and v
    perceptron = 2 * 3 * width * shape.hidden * queries
    return projections + perceptron + 4 * queries * tokens * width


def step_flops(
    layout: Layout, shape: Shape, mode: Mode, batch: int, objective: Any, recompute: bool = False
) -> int:
    """FLOPs of one optimiser step on a batch of `mode`.

    recompute: with activation checkpointing, which runs the student's forward pass twice.
    """
    given = len(layout.present(mode.given))
    generated = layout.num_tokens(mode.generated)
    levels = 1
    if isinstance(objective.schedule, DualTimesteps):
        levels = 2 if any(layout[name].mask_ratio for name in mode.generated) else 1
    elif isinstance(objective.schedule, IndependentTimesteps):
        levels = generated
    student = forward_flops(layout, shape, mode, batch, levels + given)
    total = (4 if recompute else 3) * student
    if isinstance(objective, Alignment) and objective.gamma:
        linears = [m for m in objective.modules().modules() if isinstance(m, nn.Linear)]
        total += 3 * batch * generated * sum(2 * m.weight.numel() for m in linears)
    if isinstance(objective, SelfDistillation) and objective.gamma:
        last = layer_number(objective.teacher_layer, shape.depth)
        total += forward_flops(layout, shape, mode, batch, 1 + given, last)
    return total


def activation_bytes(
    layout: Layout, shape: Shape, mode: Mode, batch: int, compute: int, checkpointed: bool = False
) -> int:
    """An estimate of what the student's forward pass keeps for its backward pass.

    compute: bytes of a value in matrix products, 2 for bfloat16. Kept by a token in a block, in
    values: in float32 the block's input and its normalised form (for attention and, in a double
    block, again for the perceptron), q and k before and after their norm; in `compute` the
    inputs of the products, q, k, v, the mixed values, the result that a gate multiplies, and four
    times the hidden width of SwiGLU. Attention is taken to keep no matrix of weights.
    checkpointed: every block keeps its input alone, and one block at a time all of it.
    """
    width, hidden = shape.width, shape.hidden
    main = layout.num_tokens(mode.present)
    tokens = main + shape.text_tokens(layout)
    double = tokens * (4 * 8 * width + compute * (8 * width + 4 * hidden))
    single = tokens * (4 * 6 * width + compute * (6 * width + 4 * hidden))
    if checkpointed:
        largest = double if shape.double else single
        blocks = shape.depth * tokens * 4 * width + largest
    else:
        blocks = shape.double * double + shape.single * single
    modulation = main * 4 * 9 * width  # shift, scale and gate of each token, once for all blocks
    return batch * (blocks + modulation)


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU: of one that holds everything, see `on` for several."""

    weights: int
    gradients: int
    optimizer: int
    ema: int
    cast: int
    """The weights once more in bfloat16, while autocast holds them; sharded ones come in it."""
    activations: dict[str, int]
    """By mode."""
    checkpointed: dict[str, int]
    gathered: int = 0
    """Of sharded weights, an estimate of what is whole at a time, with its gradients: what lies
    outside the blocks, of student and teacher, and two blocks."""
    sharded: bool = False

    @property
    def state(self) -> int:
        kept = self.weights + self.gradients + self.optimizer + self.ema
        return kept + (self.gathered if self.sharded else self.cast)

    def on(self, gpus: int, parallel: str, batches: Mapping[str, int]) -> Memory:
        """On each of several. parallel: none, ddp or fsdp2. batches: samples by mode, which they
        divide."""
        if parallel == "none":
            return self

        def divided(activations: Mapping[str, int]) -> dict[str, int]:
            return {
                name: value // batches[name] * -(-batches[name] // gpus)
                for name, value in activations.items()
            }

        shares = {"activations": divided(self.activations)}
        shares["checkpointed"] = divided(self.checkpointed)
        if parallel == "ddp":
            return replace(self, **shares)
        names = ("weights", "gradients", "optimizer", "ema")
        parts = {name: -(-getattr(self, name) // gpus) for name in names}
        return replace(self, sharded=True, **parts, **shares)


@dataclass(frozen=True)
class CostPlan:
    """What a configuration costs."""

    backbone: int
    projector: int
    layout: Layout
    text_tokens: int
    memory: Memory
    flops: dict[str, int]
    """Of an optimiser step of each mode."""
    probabilities: dict[str, float]
    batch_sizes: dict[str, int]
    steps: int
    parallel: str = "auto"
    """`trainer.parallel`."""
    checkpointing: bool = False
    """`trainer.activation_checkpointing`, which the FLOPs contain."""

    @property
    def mean_flops(self) -> float:
        """Of a step, over the modes."""
        return sum(self.probabilities[name] * value for name, value in self.flops.items())

    def days(self, gpus: int, peak: float, mfu: float) -> float:
        """Of the whole run, its batches divided over `gpus` of `peak` FLOP/s, used to `mfu`."""
        return self.steps * self.mean_flops / (gpus * peak * mfu) / 86400


def make_plan(
    layout: Layout, model: Mapping[str, Any], objective: Any, schedule: ModeSchedule, trainer: Any
) -> CostPlan:
    """Count without allocating: the network is built on the meta device.

    trainer: total_steps, accumulate, precision, parallel and activation_checkpointing of the
    configuration.
    """
    with torch.device("meta"):
        network = Backbone(layout, **model)
    backbone, blocks = _count(network), [_count(block) for block in network.all_blocks()]
    recompute = bool(trainer.get("activation_checkpointing", False))
    projector = _count(objective.modules())
    everything, shape = backbone + projector, Shape.of(model)
    bfloat16 = trainer["precision"] == "bfloat16"
    compute = 2 if bfloat16 else 4
    rows = {name: (schedule.table[name], schedule.batch_size(name)) for name in schedule.names}

    def kept(checkpointed: bool) -> dict[str, int]:
        return {
            name: activation_bytes(layout, shape, mode, size, compute, checkpointed)
            for name, (mode, size) in rows.items()
        }

    return CostPlan(
        backbone,
        projector,
        layout,
        shape.text_tokens(layout),
        Memory(
            weights=4 * everything,
            gradients=4 * everything,
            optimizer=8 * everything,
            ema=4 * backbone,
            cast=2 * everything if bfloat16 else 0,
            activations=kept(False),
            checkpointed=kept(True),
            gathered=(8 + 4) * (backbone - sum(blocks))
            + 8 * projector
            + 2 * (compute + 4) * max(blocks),
        ),
        {
            name: trainer["accumulate"]
            * step_flops(layout, shape, mode, size, objective, recompute)
            for name, (mode, size) in rows.items()
        },
        schedule.probabilities,
        {name: schedule.batch_size(name) for name in schedule.names},
        trainer["total_steps"],
        trainer.get("parallel", "auto"),
        recompute,
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def planned(
    plain: Mapping[str, Any], layout: Layout, schedule: ModeSchedule, given: argparse.Namespace
) -> str:
    """The plan of a resolved configuration as text. given: gpus, peak (TFLOP/s of one) and mfu."""
    if not given.mfu:
        raise ValueError("--mfu: expected a share above 0, got 0")
    with torch.device("meta"):
        objective = make_objective(plain)
    plan = make_plan(layout, plain["model"], objective, schedule, plain["trainer"])
    return report(plan, given.gpus, 1e12 * given.peak, given.mfu)


def report(plan: CostPlan, gpus: int, peak: float, mfu: float) -> str:
    """The plan as text. peak: FLOP/s of one GPU."""
    gib = 1 << 30
    parallel = ("ddp" if gpus > 1 else "none") if plan.parallel == "auto" else plan.parallel
    memory = plan.memory.on(gpus, parallel, plan.batch_sizes)
    kept = memory.checkpointed if plan.checkpointing else memory.activations
    fullest = max(kept, key=lambda name: kept[name])
    lines = [
        f"parameters  {(plan.backbone + plan.projector) / 1e6:.1f}M: backbone "
        f"{plan.backbone / 1e6:.1f}M, projector {plan.projector / 1e6:.1f}M",
        "tokens      "
        + ", ".join(f"{m.name} {m.num_tokens} of {m.channels}" for m in plan.layout.modalities)
        + f"; caption {plan.text_tokens}",
        f"memory      {memory.state / gib:.1f} GiB on each GPU ({parallel}) beside activations: "
        f"weights {memory.weights / gib:.1f}, gradients {memory.gradients / gib:.1f}, AdamW "
        f"{memory.optimizer / gib:.1f}, EMA {memory.ema / gib:.1f}, "
        + (
            f"whole at a time {memory.gathered / gib:.1f}"
            if memory.sharded
            else f"bfloat16 copy {memory.cast / gib:.1f}"
        ),
        f"            {(memory.state + kept[fullest]) / gib:.1f} GiB with the activations of "
        f"{fullest}, {'checkpointed' if plan.checkpointing else 'all kept'}",
        "",
        f"{'mode':<13}{'share':>7}{'batch':>7}{'TFLOP/step':>12}{'s/step':>9}"
        f"{'activations':>13}{'checkpointed':>14}",
    ]
    for name, flops in plan.flops.items():
        lines.append(
            f"{name:<13}{plan.probabilities[name]:>7.0%}{plan.batch_sizes[name]:>7}"
            f"{flops / 1e12:>12.4g}{flops / (peak * mfu):>9.3g}"
            f"{memory.activations[name] / gib:>9.1f} GiB"
            f"{memory.checkpointed[name] / gib:>10.1f} GiB"
        )
    lines += [
        "",
        f"time        {plan.days(gpus, peak, mfu):.3g} days for {plan.steps} steps on {gpus} GPUs "
        f"of {peak / 1e12:g} TFLOP/s at {mfu:.0%}, the batches above divided over them",
        "            (activations are an estimate, of the samples of one GPU; codecs and reading "
        "are not counted)",
    ]
    if parallel != "none" and any(size % gpus for size in plan.batch_sizes.values()):
        lines.append(
            f"            (to run, batch sizes have to be multiples of the {gpus} processes that "
            "share each batch)"
        )
    return "\n".join(lines)
