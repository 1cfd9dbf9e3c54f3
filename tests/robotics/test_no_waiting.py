"""Steps in the robot's modes wait for no GPU, and a captured model does what the plain one does."""

from __future__ import annotations

import pytest
import stand_in
import torch

from robotics.model.modes import MODES, kind_of
from robotics.training.build import build, compose_config
from selfflow_wm.sampling.captured import CapturedSampler


@pytest.mark.parametrize("arm", ["flow_matching", "self_flow"])
def test_a_step_of_any_mode_waits_for_nothing(
    tiny_overrides, rt1_directory, tmp_path, monkeypatch, arm
):
    stand_in.use(monkeypatch)
    words = [f"modes.{name}={{probability: 1, batch_size: 2}}" for name in MODES]
    trainer = build(
        compose_config(
            [
                *tiny_overrides,
                f"objective={arm}",
                "modes=mixed",
                *words,
                'dataset.train_split="train[:4]"',
                'dataset.validation_split="train[4:]"',
                "trainer.validate_every=0",
                "trainer.preview_every=0",
                f"data={rt1_directory}",
                f"out={tmp_path}",
                "device=meta",
                "workers=0",
            ]
        )
    ).trainer
    for name in MODES:
        monkeypatch.setattr(trainer.batches.schedule, "draw", lambda step, name=name: MODES[name])
        with stand_in.no_waiting():
            trainer.train_step()
        assert {kind_of(row) for row in trainer._batch.generated} <= set(MODES[name].generated)
    assert trainer.step == len(MODES)


def test_generate_samples_through_the_models_sampler(world, windows):
    samples = windows.batch([0, 1])
    made = []

    def record(work, inputs):
        made.append(inputs)
        return work

    def generate():
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        return world.generate(samples, "joint", steps=2, generator=generators)

    plain = generate()
    world.sampler = CapturedSampler(record=record)
    found = generate()
    assert len(made) == 1
    assert all((found[name] == plain[name]).all() for name in plain)


def test_a_model_on_the_cpu_is_not_captured(world):
    with pytest.raises(ValueError, match="CUDA GPU"):
        world.capture()
