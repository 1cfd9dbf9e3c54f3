"""The networks compile without a break, as training and sampling call them."""

from __future__ import annotations

import pytest
import small_networks
import torch
from small_networks import LAYOUT, backbone, seeded

from selfflow_wm.flow.sampler import sample
from selfflow_wm.flow.time_laws import UniformTime
from selfflow_wm.layout import Layout, Modality
from selfflow_wm.model import SiT
from selfflow_wm.objective import DiffusionForcing, FlowMatching, SelfFlow

MODES = {
    "policy": (("image",), ("action",)),
    "joint": (("image",), ("video", "action")),
    "forward": (("image", "action"), ("video",)),
    "image": ((), ("image",)),
    "apart": ((), ("image", "action")),  # parts that do not adjoin, beside the video given
}
ARMS = {
    "diffusion_forcing": lambda: DiffusionForcing(UniformTime()),
    "self_flow": lambda: SelfFlow(UniformTime(), width=24),
    "separated": lambda: SelfFlow(UniformTime(), width=24, separated=True),
}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def mode_batch(mode):
    given, generated = MODES[mode]
    names = LAYOUT.names if mode == "apart" else (*given, *generated)
    given = ("video",) if mode == "apart" else given
    return LAYOUT.fake_batch(3, names, seeded(), given)


class Whole:
    """A network compiled as one graph, not block by block; a break in it raises."""

    def __init__(self, network):
        self.layout, self.depth = network.layout, network.depth
        self.call = torch.compile(network, backend="eager", fullgraph=True, dynamic=False)

    def __call__(self, *args, **options):
        return self.call(*args, **options)


@pytest.mark.parametrize(
    ("mode", "arm"),
    [
        ("image", "self_flow"),
        ("joint", "separated"),
        ("apart", "self_flow"),
        ("forward", "diffusion_forcing"),
    ],
)
def test_student_and_teacher_are_one_graph_each(mode, arm):
    batch, student, teacher = mode_batch(mode), backbone(vector_in=("text",)), backbone(skip=True)
    objective = ARMS[arm]()
    whole = objective.loss(Whole(student), Whole(teacher), batch, seeded(3)).total
    plain = objective.loss(student, teacher, batch, seeded(3)).total
    torch.testing.assert_close(whole, plain)
    whole.backward()
    assert student.single_blocks[-1].out.weight.grad.abs().sum() > 0


def test_compiled_blocks_have_no_break_in_either_direction():
    student, teacher = backbone(), backbone()
    expected, found = [], []
    objective = SelfFlow(UniformTime(), width=24, separated=True)
    for values in (expected, found):
        for mode in ("policy", "apart"):
            student.zero_grad()
            loss = objective.loss(student, teacher, mode_batch(mode), seeded(3)).total
            loss.backward()
            values += [loss.detach(), student.single_blocks[0].out.weight.grad.clone()]
        for network in (student, teacher):
            network.compile(fullgraph=True, backend="eager")
    assert student.single_blocks[0]._compiled_call_impl is not None
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mode", ["policy", "apart"])
def test_the_samplers_call_is_one_graph(mode):
    batch, network = mode_batch(mode), backbone()
    given = {name: batch.latents[name] for name in batch.given}
    call = (LAYOUT, given, batch.generated, batch.text_ids, batch.text_mask)
    options = {"steps": 3, "valid": batch.valid, "guidance": 2.0, "condition_level": 0.1}
    plain = sample(network, *call, generator=seeded(5), **options)
    whole = sample(Whole(network), *call, generator=seeded(5), **options)
    for name, value in plain.items():
        torch.testing.assert_close(whole[name], value, atol=1e-5, rtol=1e-5)


def test_sit_is_one_graph():
    layout = Layout((Modality("image", (1, 2, 2), 4),), text_length=1, vocabulary=11)
    student, teacher = (SiT(layout, width=24, depth=3, heads=2) for _ in range(2))
    objective = SelfFlow(UniformTime(), width=24)
    batch = layout.fake_batch(3, generator=seeded())
    objective.loss(Whole(student), Whole(teacher), batch, seeded(3)).total.backward()
    assert student.final_layer.linear.weight.grad is not None


def test_a_break_is_found():
    class Broken(small_networks.Backbone):
        def forward(self, noisy, *args, **options):
            if float(noisy["image"].sum()) > 0:
                pass
            return super().forward(noisy, *args, **options)

    network = Broken(LAYOUT, width=24, heads=2, double=1, single=2)
    with pytest.raises((torch._dynamo.exc.Unsupported, torch._dynamo.exc.UserError)):
        FlowMatching(UniformTime()).loss(Whole(network), None, mode_batch("image"), seeded())
