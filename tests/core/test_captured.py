"""The captured sampler: same samples, one recording a shape. The recording itself needs a GPU."""

from __future__ import annotations

import pytest
import torch
from small_networks import LAYOUT, backbone, seeded

from selfflow_wm.flow.sampler import sample
from selfflow_wm.sampling.captured import CapturedSampler


class Replayed:
    """A recording as a CUDA graph has it: fixed inputs that are filled, and no other."""

    made = 0

    def __init__(self, work, inputs):
        type(self).made += 1
        self.work, self.inputs = work, {name: x.clone() for name, x in inputs.items()}
        before = torch.get_rng_state()
        work(self.inputs)
        assert torch.equal(torch.get_rng_state(), before)  # a graph may draw nothing

    def __call__(self, inputs):
        for name, fixed in self.inputs.items():
            fixed.copy_(inputs[name])
        return self.work(self.inputs)


@pytest.fixture
def captured():
    Replayed.made = 0
    return CapturedSampler(record=Replayed)


def call(sampler, model, seed, size=2, **options):
    batch = LAYOUT.fake_batch(size, ("image", "video", "action"), seeded(seed))
    ids = torch.randint(0, 256, (size, 6), generator=seeded(seed))
    mask = torch.arange(6) < torch.tensor([[6], [2 + seed]])[:size]
    return sampler(
        model,
        LAYOUT,
        {"image": batch.latents["image"]},
        ("video", "action"),
        ids,
        mask,
        generator=[seeded(10 * seed + n) for n in range(size)],
        valid={"image": batch.valid["image"]},
        **{"steps": 3, "condition_level": {"image": 0.1}, **options},
    )


@pytest.mark.parametrize(
    "options", [{}, {"solver": "heun", "shift": 3.0}, {"guidance": 2.0, "condition_level": 0.0}]
)
def test_a_replay_is_the_sample_of_its_own_inputs(captured, options):
    model = backbone()
    for seed in (1, 2, 3):
        expected, found = (call(one, model, seed, **options) for one in (sample, captured))
        assert found.keys() == expected.keys()
        for name in expected:
            assert torch.equal(found[name], expected[name])
    assert Replayed.made == 1


def test_what_changes_the_work_is_recorded_anew(captured):
    model, other = backbone(), backbone()
    for options in ({}, {"steps": 2}, {"size": 1}, {"condition_level": 0.2}, {"guidance": 1.5}):
        call(captured, model, 1, **options)
    call(captured, other, 1)
    assert Replayed.made == 6
    call(captured, model, 2)
    assert Replayed.made == 6
    with torch.no_grad():  # weights that change in place
        model.head["action"].bias.add_(1.0)
    assert torch.equal(call(captured, model, 2)["action"], call(sample, model, 2)["action"])
    assert Replayed.made == 6


def test_the_recording_used_last_stays(captured):
    captured.keep = 2
    model = backbone()
    for steps in (1, 2, 1, 3, 1):  # 3 takes the place of 2
        call(captured, model, 1, steps=steps)
    assert Replayed.made == 3
    call(captured, model, 1, steps=2)
    assert Replayed.made == 4


def test_networks_are_compiled_once(monkeypatch):
    compiled, model = [], backbone()
    monkeypatch.setattr(type(model), "compile", lambda self: compiled.append(self))
    captured = CapturedSampler(compile=True, record=Replayed)
    call(captured, model, 1)
    call(captured, model, 1, steps=2)
    assert compiled == [model]


def test_what_cannot_be_captured_is_refused(captured):
    model = backbone()
    with pytest.raises(ValueError, match="CUDA GPU"):
        call(CapturedSampler(), model, 1)
    with pytest.raises(ValueError, match="euler_maruyama"):
        call(captured, model, 1, solver="euler_maruyama")
    with pytest.raises(ValueError, match="keep"):
        CapturedSampler(keep=0)
