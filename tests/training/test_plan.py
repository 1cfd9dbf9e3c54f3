"""The costs of a run: against a count by hand, against torch's counter, the paper's models."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from selfflow_wm.data import MODES, ModeSchedule
from selfflow_wm.flow.time_laws import UniformTime
from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model import Backbone
from selfflow_wm.objective import FlowMatching, SelfFlow
from selfflow_wm.pretraining.build import compose_config
from selfflow_wm.pretraining.cli import main
from selfflow_wm.pretraining.plan import (
    Shape,
    activation_bytes,
    forward_flops,
    make_plan,
    step_flops,
)
from selfflow_wm.training.config import make_objective
from selfflow_wm.training.run import of_run

LAYOUT = Layout(
    (
        Modality("image", (1, 2, 2), 5),
        Modality("video", (2, 1, 2), 6, mask_ratio=0.1),
        Modality("audio", (3, 1, 1), 7, mask_ratio=0.5),
    ),
    text_length=8,
)
MODEL = dict(width=24, heads=2, double=1, single=2, mlp_ratio=4.0)
TRAINER = dict(total_steps=1000, accumulate=1, precision="float32")


def test_a_forward_pass_counted_by_hand():
    # D = 24, hidden 96, 4 picture tokens of 5 values, 8 of text: 12 in all. Two FLOPs each.
    d, h, batch = 24, 96, 3
    inputs = 2 * 4 * 5 * d
    levels = 2 * (batch + 1) * (256 * d + d * d)
    modulation = 2 * batch * 6 * d * d + 2 * 6 * d * d + 2 * batch * 2 * 3 * d * d
    linear = 3 * d * d + d * d + 3 * d * h  # qkv, out, SwiGLU of one token
    double = 2 * 12 * linear + 4 * 12 * 12 * d
    single = 2 * 12 * linear + 4 * 12 * 12 * d
    last = 2 * (4 * 2 * d * d + 12 * 2 * d * d + 4 * 3 * d * h) + 4 * 4 * 12 * d
    final = 2 * batch * 2 * d * d + batch * 2 * 4 * d * 5
    by_hand = batch * (inputs + double + single + last) + levels + modulation + final
    assert forward_flops(LAYOUT, Shape.of(MODEL), MODES["image"], batch, 1) == by_hand


@pytest.mark.parametrize("name", ["image", "video_audio"])
@pytest.mark.parametrize("extra", [{}, {"stem": True, "skip": True, "text_patch": 4}])
def test_the_formula_is_what_torch_counts(name, extra):
    model = MODEL | extra
    network, mode = Backbone(LAYOUT, **model), MODES[name]
    objective = FlowMatching(UniformTime())
    batch = LAYOUT.fake_batch(3, mode.present, torch.Generator().manual_seed(0), mode.given)
    batch.text_ids = torch.zeros(3, LAYOUT.text_length, dtype=torch.long)  # padded, as in training
    batch.text_mask = torch.ones(3, LAYOUT.text_length, dtype=torch.bool)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        objective.loss(network, None, batch, torch.Generator().manual_seed(0))
    levels = 1 + len(mode.given)
    assert counter.get_total_flops() == forward_flops(LAYOUT, Shape.of(model), mode, 3, levels)


def test_self_flow_adds_its_projector_and_a_teacher_that_stops_early():
    shape, mode = Shape.of(MODEL), MODES["image"]
    vanilla = FlowMatching(UniformTime())
    ours = SelfFlow(UniformTime(), width=24)
    student = forward_flops(LAYOUT, shape, mode, 2, 1)
    assert step_flops(LAYOUT, shape, mode, 2, vanilla) == 3 * student
    assert step_flops(LAYOUT, shape, mode, 2, vanilla, recompute=True) == 4 * student
    projector = 3 * 2 * 4 * 2 * (8 * 24 * 24)  # 2 samples of 4 tokens, 24 to 96 to 24
    teacher = forward_flops(LAYOUT, shape, mode, 2, 1, last=2)  # 0.7 of 3 blocks
    two_levels = forward_flops(LAYOUT, shape, mode, 2, 2)
    assert step_flops(LAYOUT, shape, mode, 2, ours) == 3 * two_levels + projector + teacher
    assert teacher < student < two_levels


def test_memory_and_days_counted_by_hand():
    mixture = ModeSchedule(
        {
            "image": {"probability": 3, "batch_size": 4},
            "audio": {"probability": 1, "batch_size": 2},
        }
    )
    objective = SelfFlow(UniformTime(), width=24)
    plan = make_plan(LAYOUT, MODEL, objective, mixture, TRAINER)
    parameters = sum(p.numel() for p in Backbone(LAYOUT, **MODEL).parameters())
    projector = 2 * 24 * 96 + 96 + 24
    assert (plan.backbone, plan.projector) == (parameters, projector)
    assert plan.memory.state == 16 * (parameters + projector) + 4 * parameters
    # 11 tokens of audio and text; float32. Values a token: a double block 16 D + 4 hidden, a
    # single one 12 D + 4 hidden, and 9 D for the modulation of each of the 3 of audio.
    values = 11 * (16 * 24 + 4 * 96) + 2 * 11 * (12 * 24 + 4 * 96) + 3 * 9 * 24
    assert plan.memory.activations["audio"] == 2 * 4 * values
    assert plan.memory.checkpointed["audio"] < plan.memory.activations["audio"]
    half = activation_bytes(LAYOUT, Shape.of(MODEL), MODES["audio"], 2, compute=2)
    assert half < plan.memory.activations["audio"]
    mean = 0.75 * plan.flops["image"] + 0.25 * plan.flops["audio"]
    assert plan.days(gpus=2, peak=1e9, mfu=0.5) == pytest.approx(1000 * mean / 1e9 / 86400)


def test_what_each_of_several_gpus_holds():
    mixture = ModeSchedule({"image": {"probability": 1, "batch_size": 8}})
    objective = SelfFlow(UniformTime(), width=24)
    plan = make_plan(LAYOUT, MODEL, objective, mixture, TRAINER)
    one, sizes = plan.memory, plan.batch_sizes
    replicated, sharded = (one.on(4, word, sizes) for word in ("ddp", "fsdp2"))
    assert one.on(4, "none", sizes) == one and replicated.state == one.state
    assert sharded.state < one.state / 4 + sharded.gathered + 4
    for name in ("weights", "gradients", "optimizer", "ema"):
        assert getattr(sharded, name) == -(-getattr(one, name) // 4)
    # Whole at a time: what is outside the blocks, of both networks and with gradients of one, the
    # projector, and two blocks, all in float32.
    network = Backbone(LAYOUT, **MODEL)
    blocks = [sum(p.numel() for p in block.parameters()) for block in network.all_blocks()]
    outside = plan.backbone - sum(blocks)
    assert sharded.gathered == 12 * outside + 8 * plan.projector + 16 * max(blocks)
    for found in (replicated, sharded):  # two samples of eight
        assert found.activations["image"] == one.activations["image"] // 4
        assert found.checkpointed["image"] == one.checkpointed["image"] // 4
    # Three GPUs cannot share eight samples: one of them would hold three.
    assert one.on(3, "ddp", sizes).activations["image"] == one.activations["image"] // 8 * 3


def test_the_plan_follows_the_configuration(capsys):
    words = ["--plan", "experiment=paper_625m", "--gpus", "2"]
    states = {}
    for word in ("ddp", "fsdp2"):
        assert main([*words, f"trainer.parallel={word}"]) == 0
        said = capsys.readouterr().out
        assert f"on each GPU ({word})" in said and "all kept" in said
        states[word] = float(said.split("memory")[1].split()[0])
    assert states["fsdp2"] < 0.7 * states["ddp"]
    assert main([*words, "trainer.activation_checkpointing=true"]) == 0
    assert "checkpointed\n" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "count"), [("paper_625m", 625e6), ("paper_4b", 4e9)])
def test_the_papers_models_can_be_planned_without_weights(capsys, name, count):
    assert main(["--plan", f"experiment={name}", "--gpus", "64", "--peak", "989"]) == 0
    said = capsys.readouterr().out
    total = float(said.split("parameters  ")[1].split("M")[0]) * 1e6
    assert total == pytest.approx(count, rel=0.03)
    assert "audio 250 of 64" in said and "days for" in said and "64 GPUs" in said


def test_batches_of_each_process_grow_with_their_number(capsys):
    steps = {}
    for gpus in ("8", "64"):
        assert main(["--plan", "experiment=paper_625m", "--gpus", gpus]) == 0
        said = capsys.readouterr().out
        assert f"{38 * int(gpus)}" in said and "multiples" not in said
        steps[gpus] = said.split("time        ")[1].split(" days")[0]
    assert steps["8"] == steps["64"]
    assert main(["--plan", "experiment=paper_625m", "--gpus", "64", "batch_of=run"]) == 0
    assert "multiples" in capsys.readouterr().out
    stated = ModeSchedule({"image": {"probability": 1.0, "batch_size": 3}})
    assert of_run(stated, "process", 5).divided(5).shares == stated.shares
    assert main(["--plan", "experiment=paper_625m", "batch_of=gpu"]) == 2
    assert "batch_of" in capsys.readouterr().err


def test_the_papers_vanilla_arm_differs_in_the_objective_alone():
    ours, vanilla = (
        compose_config(["experiment=paper_625m", f"objective={name}"])
        for name in ("self_flow", "flow_matching")
    )
    with torch.device("meta"):
        assert type(make_objective(vanilla)) is FlowMatching
    published = ours.objective
    for name in set(ours) - {"objective", "data", "out"}:
        assert ours[name] == vanilla[name], name
    layers = (published.student_layer, published.teacher_layer)
    assert (published.gamma, *layers) == (0.8, 0.3, 0.7)


def test_a_plan_of_unknown_tokens_says_what_is_missing(capsys):
    words = ["--plan", "experiment=paper_625m", "layout.rows.image.grid=null"]
    assert main(words) == 2
    assert "codec.image" in capsys.readouterr().err
