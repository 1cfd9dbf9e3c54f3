"""Stage robot: milliseconds from an observation to a chunk of actions."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from benchmarks.gpu.clock import median_ms
from benchmarks.gpu.record import Bench
from robotics.model.modes import MODES, rows_of
from robotics.model.world_model import WorldModel
from robotics.training.build import compose_config, robots_of, with_tables
from robotics.training.fit import backbone_arguments
from robotics.training.plan import planned_layout
from selfflow_wm.flow.sampler import sample
from selfflow_wm.layout import Layout
from selfflow_wm.model import Backbone
from selfflow_wm.sampling.captured import CapturedSampler

ROOT = Path(__file__).resolve().parents[2]
STEPS = (1, 2, 8)
BATCHES = (1, 16)
SHIPPED = ("self_flow", "flow_matching", "simpler_self_flow", "simpler_flow_matching")
EMBEDDED = ("experiment=embedded",)
PAPER = ("experiment=rt1_paper", "modes=policy_only")
WAYS = ("eager", "CUDA graph", "compiled", "compiled CUDA graph")


def run(bench: Bench) -> None:
    """See the module."""
    torch.set_float32_matmul_precision("high")
    networks = [
        *_shipped(bench),
        ("625M policy", lambda: Untrained(PAPER, bench.device, "bfloat16")),
    ]
    if bench.tiny:
        networks = networks[:1]
    ways = ("eager",) if bench.tiny else WAYS
    cells = [(name, way, make) for way in ways for name, make in networks]
    bench.plan([f"{name}, {way}" for name, way, _ in cells])
    for name, way, make in cells:
        bench.cell(f"{name}, {way}", lambda n=name, w=way, m=make: _time(bench, n, w, m), 5)


def _time(bench: Bench, name: str, way: str, make: Callable[[], Shipped | Untrained]) -> None:
    """One row for each number of steps and batch size."""
    policy = make()
    if way == "compiled":
        policy.network.compile()
    if way.endswith("CUDA graph"):
        policy.sampling.sampler = CapturedSampler(compile=way.startswith("compiled"))
    rounds = 2 if bench.tiny else 20
    for batch in BATCHES[:1] if bench.tiny else BATCHES:
        for steps in STEPS[:2] if bench.tiny else STEPS:
            call = policy.call(batch, steps)
            ms = median_ms(call, bench.device, 1 if bench.tiny else 4, rounds)
            bench.row(
                "chunks of actions", policy=name, network=policy.describe, way=way, batch=batch,
                euler_steps=steps, ms=ms, ms_per_sample=ms / batch,
            )  # fmt: skip
            if (batch, steps) == (1, 2):
                bench.figure(f"chunk, {name}, {way}, 2 steps, batch 1", ms, "ms")


class Shipped:
    """A checkpoint, from the camera's picture to actions in physical units."""

    def __init__(self, path: Path, device: str) -> None:
        self.world = WorldModel.load(path, device=device)
        self.sampling = self.world  # the object whose `sampler` is called
        self.network = self.world.backbone
        self.describe = f"{self.network.num_parameters() / 1e6:.1f}M, float32, whole policy"

    def call(self, batch: int, steps: int) -> Callable[[], Any]:
        """A function that predicts one chunk for each of `batch` observations."""
        generator, robot = np.random.default_rng(0), self.world.robot()
        samples: dict[str, Any] = {
            f"image/{name}": generator.integers(0, 256, (batch, *size, 3)).astype(np.uint8)
            for name, size in robot.image_sizes.items()
        }
        samples["state"] = np.zeros((batch, robot.coder.state_width), np.float32)
        samples["instruction"] = ["open the top drawer and put the apple in"] * batch
        noise = [torch.Generator().manual_seed(number) for number in range(batch)]
        return lambda: self.world.generate(samples, "policy", steps=steps, generator=noise)


class Untrained:
    """A network with random weights on latents, without codec: otherwise the same work."""

    def __init__(self, words: tuple[str, ...], device: str, precision: str) -> None:
        config = with_tables(compose_config([*words, "data=none", "out=none"]))
        plain: Any = OmegaConf.to_container(config, resolve=True)
        self.layout: Layout = planned_layout(plain, tuple(plain["modes"]), robots_of(plain))
        self.device, self.precision = device, precision
        self.sampler: Callable[..., Any] = sample
        self.sampling = self
        with torch.device(device):
            arguments = backbone_arguments(plain["model"], self.layout)
            self.network = Backbone(self.layout, **arguments).eval()
        millions = self.network.num_parameters() / 1e6
        self.describe = f"{millions:.1f}M, {precision}, random weights, without codec"

    def call(self, batch: int, steps: int) -> Callable[[], Any]:
        """A function that predicts one chunk for each of `batch` observations."""
        mode = MODES["policy"]
        given = rows_of(mode.given, self.layout.names)
        generated = rows_of(mode.generated, self.layout.names)
        found = self.layout.fake_batch(batch, given).to(self.device)
        half = self.precision == "bfloat16"

        def chunk() -> Any:
            with torch.autocast(self.device, torch.bfloat16) if half else nullcontext():
                drawn = self.sampler(
                    self.network, self.layout, found.latents, generated, found.text_ids,
                    found.text_mask, steps=steps,
                )  # fmt: skip
            return drawn["action"].float().cpu()

        return chunk


def _shipped(bench: Bench) -> list[tuple[str, Callable[[], Shipped | Untrained]]]:
    """The shipped policies, one for each network; without any, a network with random weights."""
    found: dict[str, tuple[str, Path]] = {}
    for name in SHIPPED:
        path = ROOT / "checkpoints" / name
        if not (path / "model.safetensors").is_file():
            bench.note(f"checkpoints/{name} is not here")
            continue
        config = json.loads((path / "config.json").read_text())
        key = json.dumps([config["layout"], config["backbone"]], sort_keys=True)
        if key in found:
            bench.note(f"{name} has the network of {found[key][0]}: not timed twice")
        else:
            found[key] = name, path
    if not found:
        bench.note("no checkpoint is here: the embedded policy is timed with random weights")
        make = lambda: Untrained(EMBEDDED, bench.device, "float32")  # noqa: E731
        return [("embedded policy", make)]
    return [(name, lambda path=path: Shipped(path, bench.device)) for name, path in found.values()]
