"""On a CUDA GPU: steps that wait for nothing, late refusals, resumption bit for bit."""

from __future__ import annotations

import made_up
import pytest
import torch
from toy_runs import everything, no_waiting

from selfflow_wm.pretraining.build import build, compose_config
from selfflow_wm.training import checkpoint
from selfflow_wm.training.config import CONFIG_DIR
from selfflow_wm.training.readings import NonFiniteLoss

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
ARMS = {
    path.stem: ["objective/encoder=random_projection"] if path.stem == "repa" else []
    for path in sorted((CONFIG_DIR / "objective").glob("*.yaml"))
}
QUIET = (
    "trainer.validate_every=0",
    "trainer.preview_every=0",
    "trainer.export_every=0",
    "trainer.diagnose_every=0",
    "trainer.log_every=100",
    "trainer.save_every=0",
)


@pytest.fixture
def deterministic(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def make(out, *words):
    return build(
        compose_config([*made_up.TINY, *QUIET, f"out={out}", *words, "device=cuda"])
    ).trainer


def unequal(a, b) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["trainer.accumulate=2"],
        ["trainer.precision=bfloat16"],
        ["trainer.activation_checkpointing=true"],
    ],
    ids=["plain", "accumulate", "bfloat16", "checkpointing"],
)
@pytest.mark.parametrize("arm", ARMS)
def test_a_step_waits_for_nothing(tmp_path, monkeypatch, arm, words):
    trainer = make(tmp_path, f"objective={arm}", *ARMS[arm], *words, "workers=0")
    schedule = trainer.batches.schedule
    drawn = torch.cuda.get_rng_state()
    for around in (None, no_waiting):  # first the tables, moments and kernels are made
        for name in made_up.KINDS:
            monkeypatch.setattr(schedule, "draw", lambda step, name=name: schedule.table[name])
            if around is None:
                trainer.train_step()
            else:
                with around():
                    trainer.train_step()
    assert torch.equal(torch.cuda.get_rng_state(), drawn)  # so it need not be kept
    assert trainer.optimizer.defaults["fused"]
    trainer.save()  # reads what was left on the device


def test_no_weight_moves_after_a_non_finite_loss_and_nothing_is_saved(tmp_path, monkeypatch):
    trainer = make(tmp_path)
    trainer.train_step()
    good, objective = everything(trainer), trainer.objective.objective
    plain = objective.loss

    def broken(*args):
        output = plain(*args)
        output.total = output.total * float("nan")
        return output

    monkeypatch.setattr(objective, "loss", broken)
    trainer.train_step()
    monkeypatch.undo()
    trainer.train_step()
    now = everything(trainer)
    # The average moves on towards weights that stay finite; nothing of it is saved.
    assert not [n for n in unequal(now, good) if not n.startswith(("rng/", "ema/"))]
    assert all(value.isfinite().all() for name, value in now.items() if name.startswith("ema/"))
    with pytest.raises(NonFiniteLoss, match="step 2: the loss is nan"):
        trainer.save()
    assert checkpoint.latest_step(tmp_path / "state") is None


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_is_straight_bit_for_bit(tmp_path, deterministic, accumulate):
    words = [f"trainer.accumulate={accumulate}"]
    straight = make(tmp_path / "straight", *words)
    assert straight.train() == "finished"
    first = make(tmp_path / "cut", *words)
    assert first.train(until=3) == "paused"
    torch.rand(5, device="cuda")  # whatever happened in between
    second = make(tmp_path / "cut", *words)
    assert second.step == 3
    assert second.train() == "finished"
    assert not unequal(everything(second), everything(straight))


def test_a_state_of_the_cpu_goes_on_with_its_moments(tmp_path):
    """Optimiser state from the CPU, whose counters lie on the host, loads into the fused kernel."""
    words = [*made_up.TINY, *QUIET, f"out={tmp_path}"]
    cpu = build(compose_config(words)).trainer
    cpu.train(until=2)
    gpu = make(tmp_path / "other")
    tensors = checkpoint.load_tensors(
        checkpoint.latest_step(tmp_path / "state") / "optimizer.safetensors"
    )
    checkpoint.load_optimizer(gpu.optimizer, tensors)
    state = gpu.optimizer.state.values()
    assert {value.device.type for slots in state for value in slots.values()} == {"cuda"}
    gpu.train_step()
    assert max(float(slots["step"]) for slots in gpu.optimizer.state.values()) == 3


def test_a_state_of_another_device_is_refused(tmp_path):
    build(compose_config([*made_up.TINY, *QUIET, f"out={tmp_path}"])).trainer.train(until=2)
    with pytest.raises(ValueError, match="device="):
        make(tmp_path)
