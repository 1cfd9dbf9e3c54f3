"""Training steps to measure: the paper's models on batches of one modality, as the Trainer runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from selfflow_wm.data import MODES, Mode, ModeSchedule
from selfflow_wm.flow.noising import NoiseLevels
from selfflow_wm.flow.time_laws import UniformTime
from selfflow_wm.layout import Batch, Layout
from selfflow_wm.model import Backbone
from selfflow_wm.model.sit import imagenet_layout, sit_xl
from selfflow_wm.objective import FlowMatching, SelfFlow
from selfflow_wm.pretraining.build import compose_config
from selfflow_wm.pretraining.codecs import planned_layout
from selfflow_wm.pretraining.plan import Shape, make_plan, step_flops
from selfflow_wm.training.optim import AdamWCosine
from selfflow_wm.training.run import make_objective
from selfflow_wm.training.trainer import Trainer

VARIANTS = ("vanilla", "self_flow", "naive")
TINY = (
    "model=tiny", "model.width=48", "model.heads=2", "model.single=2", "layout.text_length=16",
    "layout.rows.image.grid=[1,4,4]", "layout.rows.video.grid=[2,3,4]",
    "layout.rows.audio.grid=[12,1,1]",
)  # fmt: skip
"""Overrides that shrink experiment=paper_625m for a CPU."""


class PerToken(nn.Module):
    """`model` called as a naive implementation would: a noise level for every token, and no early
    stop."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.layout, self.depth = model, model.layout, model.depth

    def forward(
        self, noisy: dict[str, Tensor], levels: NoiseLevels, *args: Any, **options: Any
    ) -> Any:
        index = torch.arange(levels.index.shape[1], device=levels.index.device)
        spread = NoiseLevels(levels.per_token(), index.expand_as(levels.index))
        return self.model(noisy, spread, *args, **(options | {"stop_at_feature": False}))


class Naive:
    """A naive Self-Flow: modulation for every token, and a teacher that runs all its blocks."""

    def __init__(self, objective: SelfFlow) -> None:
        self.objective = objective

    def loss(self, student: Any, teacher: Any, batch: Batch, generator: Any = None) -> Any:
        return self.objective.loss(PerToken(student), PerToken(teacher), batch, generator)


class Repeated:
    """A stream of the same batch, which is already on the device."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __next__(self) -> Batch:
        return self.batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@dataclass
class Case:
    """A network with objectives and one kind of batch."""

    name: str
    layout: Layout
    mode: Mode
    network: Callable[[], nn.Module]
    objectives: Callable[[], dict[str, Any]]
    plain: dict[str, Any] | None = None
    """The resolved configuration, of which a plan can be made."""

    @property
    def tokens(self) -> int:
        """Tokens of a sample without its caption."""
        return self.layout.num_tokens(self.mode.present)

    def batch(self, size: int, device: str, masked: bool = True) -> Batch:
        """Random latents and captions of full length, with masks, as training has them, or without,
        which means the same."""
        generator = torch.Generator().manual_seed(0)
        batch = self.layout.fake_batch(size, self.mode.present, generator, self.mode.given)
        # As in training, where captions are padded to the longest there may be.
        length = self.layout.text_length
        ids = torch.randint(0, self.layout.null_id, (size, length), generator=generator)
        mask = torch.ones(size, length, dtype=torch.bool)
        batch = replace(batch, text_ids=ids, text_mask=mask)
        return (batch if masked else replace(batch, text_mask=None, valid={})).to(device)

    def flops(self, size: int) -> dict[str, float]:
        """FLOPs of a step by variant, naive left out: from the shapes, or counted by torch."""
        with torch.device("meta"):
            objectives = self.objectives()
        if self.plain is None:
            return {name: size * self.counted(name) for name in VARIANTS[:2]}
        shape = Shape.of(self.plain["model"])
        return {
            name: step_flops(self.layout, shape, self.mode, size, objectives[name])
            for name in VARIANTS[:2]
        }

    def counted(self, variant: str) -> float:
        """FLOPs of a sample's step, on the CPU's meta device: shapes alone."""
        with torch.device("meta"):
            network = self.network()
            objective = self.objectives()[variant]
        with FlopCounterMode(display=False) as counter:
            objective.loss(network, network, self.batch(2, "meta")).total.backward()
        return counter.get_total_flops() / 2

    def planned_bytes(self, size: int, precision: str, checkpointing: bool) -> int | None:
        """What `--plan` says a GPU holds at its fullest; None where no plan is made."""
        if self.plain is None:
            return None
        with torch.device("meta"):
            objective = make_objective(self.plain)
        mixture = ModeSchedule({self.mode.name: {"probability": 1.0, "batch_size": size}})
        settings = self.plain["trainer"] | {"precision": precision}
        memory = make_plan(self.layout, self.plain["model"], objective, mixture, settings).memory
        kept = memory.checkpointed if checkpointing else memory.activations
        return memory.state + kept[self.mode.name]


def paper(preset: str, kind: str, tiny: bool = False) -> Case:
    """experiment=paper_625m with the network `preset` (290m, 625m, 1b) and batches of `kind`."""
    words = TINY if tiny else (f"model={preset}",)
    config = compose_config(["experiment=paper_625m", *words, "data=none", "out=none"])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    layout = planned_layout(plain)
    vanilla = {k: v for k, v in plain["objective"].items() if k in _VANILLA}
    vanilla["_target_"] = "selfflow_wm.objective.FlowMatching"

    def objectives() -> dict[str, Any]:
        ours = make_objective(plain)
        return {
            "vanilla": make_objective({"objective": vanilla}),
            "self_flow": ours,
            "naive": Naive(ours),  # pyright: ignore
        }

    return Case(
        f"{preset} {kind}", layout, MODES[kind], lambda: Backbone(layout, **plain["model"]),
        objectives, plain,
    )  # fmt: skip


_VANILLA = ("_target_", "time_laws", "condition_noise", "caption_dropout")


def sit(tiny: bool = False) -> Case:
    """SiT-XL/2 on ImageNet's latents of 256 x 256 pixels."""
    from selfflow_wm.model.sit import SiT

    layout = imagenet_layout(8 if tiny else 2)
    small = dict(width=48, depth=4, heads=2)

    def network() -> nn.Module:
        return SiT(layout, **small) if tiny else sit_xl(layout)

    def objectives() -> dict[str, Any]:
        ours = SelfFlow(UniformTime(), width=small["width"] if tiny else 1152)
        return {"vanilla": FlowMatching(UniformTime()), "self_flow": ours, "naive": Naive(ours)}

    return Case("SiT-XL/2 image", layout, Mode("image", (), ("image",)), network, objectives)


@dataclass
class Setup:
    """How a case is trained."""

    device: str
    batch: int
    precision: str = "bfloat16"
    compile: bool = False
    checkpointing: bool = False
    masked: bool = True
    tiny: bool = False
    seed: int = 0
    out: Path | str = "unused"
    variant: str = "self_flow"


class Measured:
    """A Trainer on one batch, whose objective can be changed between steps."""

    def __init__(self, case: Case, setup: Setup, parallel: Any = None, start: Any = None) -> None:
        """start: a state_dict for the network instead of fresh weights."""
        self.case, self.setup = case, setup
        torch.manual_seed(setup.seed)
        with torch.device(setup.device):
            network = case.network()
            self.objectives = case.objectives()
        with torch.no_grad():  # zero gates would let a wrong path through unseen
            for parameter in network.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        if start is not None:
            network.load_state_dict(start)
        self.trainer = Trainer(
            network,
            self.objectives["self_flow"],
            Repeated(case.batch(setup.batch, setup.device, setup.masked)),
            out_dir=setup.out,
            total_steps=1_000_000,
            optim=AdamWCosine(lr=1e-4, warmup=1),
            precision=setup.precision,
            activation_checkpointing=setup.checkpointing,
            parallel=parallel,
            seed=setup.seed,
            device=setup.device,
            diagnose_every=0,
        )
        if setup.compile:
            self.compile()
        self.choose(setup.variant)

    def compile(self) -> None:
        """As trainer.compile=true; the rehearsal traces the graphs and runs them uncompiled."""
        options = {"backend": "eager"} if self.setup.tiny else {}
        for network in (self.trainer.model, self.trainer.ema.model):
            network.compile(**options)  # pyright: ignore

    def choose(self, variant: str) -> None:
        """Train on this objective from now on."""
        self.trainer.objective = self.objectives[variant]

    def resize(self, batch: int) -> None:
        """Train on batches of this size from now on."""
        self.trainer.batches = Repeated(
            self.case.batch(batch, self.setup.device, self.setup.masked)
        )

    def step(self) -> None:
        """One optimiser step."""
        self.trainer.train_step()

    def loss(self) -> float:
        """Of the current weights, always on the same noise."""
        trainer, generator = self.trainer, torch.Generator().manual_seed(1)
        before, trainer.generator = trainer.generator, generator
        try:
            with torch.no_grad():
                return float(trainer._loss(trainer.model, next(trainer.batches)).total)
        finally:
            trainer.generator = before
