"""A training step waits for no GPU, checked operator by operator on a stand-in for one; and what
takes the place of looking at every loss."""

from __future__ import annotations

import made_up
import pytest
import stand_in
import torch
from toy_runs import everything

from selfflow_wm.layout import Batch
from selfflow_wm.objective import FlowMatching
from selfflow_wm.pretraining.build import build, compose_config
from selfflow_wm.training import checkpoint
from selfflow_wm.training.config import CONFIG_DIR
from selfflow_wm.training.readings import NonFiniteLoss, Readings

# All arms of configs/objective, but REPA with another encoder: DINOv2's weights are not here.
ARMS = {
    path.stem: ["objective/encoder=random_projection"] if path.stem == "repa" else []
    for path in sorted((CONFIG_DIR / "objective").glob("*.yaml"))
}


@pytest.fixture
def make(tmp_path):
    def make(*words):
        return build(
            compose_config(
                [
                    *made_up.TINY,
                    "trainer.validate_every=0",
                    "trainer.preview_every=0",
                    "trainer.log_every=100",
                    "trainer.save_every=0",
                    "workers=0",  # whose modes these tests choose as they are drawn
                    f"out={tmp_path}",
                    *words,
                ]
            )
        ).trainer

    return make


# Accumulation is the trainer's, whatever the arm.
@pytest.mark.parametrize(
    ("arm", "words"), [*((arm, []) for arm in ARMS), ("self_flow", ["trainer.accumulate=2"])]
)
def test_a_step_of_any_arm_and_mode_waits_for_nothing(make, monkeypatch, arm, words):
    stand_in.use(monkeypatch)
    trainer = make(f"objective={arm}", *ARMS[arm], *words, "device=meta")
    schedule, seen = trainer.batches.schedule, set()
    for name in made_up.KINDS:
        monkeypatch.setattr(schedule, "draw", lambda step, name=name: schedule.table[name])
        with stand_in.no_waiting():
            trainer.train_step()
        seen.add(tuple(trainer._batch.latents))
    assert len(seen) == len(made_up.KINDS)
    assert all(p.grad is not None for p in trainer.extra.parameters())
    assert trainer.readings.late and trainer.optimizer.found_inf is trainer.readings.broken


def read_a_number(batch: Batch) -> None:
    float(batch.latents["image"].sum())


def branch_on_a_number(batch: Batch) -> None:
    if (batch.latents["image"] > 0).any():
        return


def copy_to_the_host(batch: Batch) -> None:
    batch.latents["image"].cpu()


def index_by_a_mask(batch: Batch) -> None:
    batch.latents["image"][batch.valid["image"]]


def find_places(batch: Batch) -> None:
    batch.valid["image"].nonzero()


def make_from_numbers(batch: Batch) -> None:
    torch.tensor([1.0, 2.0], device=batch.text_ids.device)


def copy_from_the_host_and_wait(batch: Batch) -> None:
    torch.zeros(3).to(batch.text_ids.device)


def index_from_the_host(batch: Batch) -> None:
    batch.latents["image"][:, torch.tensor([0, 1])]


def index_by_a_list(batch: Batch) -> None:
    batch.latents["image"][:, [0, 1]]


@pytest.mark.parametrize(
    "wait",
    [
        read_a_number,
        branch_on_a_number,
        copy_to_the_host,
        index_by_a_mask,
        find_places,
        make_from_numbers,
        copy_from_the_host_and_wait,
        index_from_the_host,
        index_by_a_list,
    ],
)
def test_the_check_finds_every_way_to_wait(make, monkeypatch, wait):
    stand_in.use(monkeypatch)
    trainer = make("device=meta", "objective=flow_matching")
    schedule = trainer.batches.schedule
    schedule.draw = lambda step: schedule.table["image"]
    plain = FlowMatching.loss

    def waiting(self, student, teacher, batch, generator=None):
        wait(batch)
        return plain(self, student, teacher, batch, generator)

    with stand_in.no_waiting():
        trainer.train_step()
    monkeypatch.setattr(FlowMatching, "loss", waiting)
    with stand_in.no_waiting(), pytest.raises(stand_in.Waited):
        trainer.train_step()


@pytest.mark.parametrize("arm", ARMS)
def test_a_step_draws_from_its_own_generator_alone(make, arm):
    """So the state of torch's own generators, on whatever device, need not be kept."""
    trainer = make(f"objective={arm}", *ARMS[arm])
    before, own = torch.get_rng_state(), trainer.generator.get_state()
    trainer.train_step()
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(trainer.generator.get_state(), own)


def late(trainer):
    trainer.readings = Readings(trainer.device, trainer.out_dir / "state", late=True)
    return trainer


def test_reading_late_changes_no_number(make, tmp_path):
    now, later = make(f"out={tmp_path / 'now'}"), late(make(f"out={tmp_path / 'late'}"))
    for trainer in (now, later):
        trainer.train(until=5)
    for trainer in (now, later):
        assert trainer.readings._unread == []
    got, expected = everything(later), everything(now)
    assert not [name for name in expected if not torch.equal(got[name], expected[name])]


@pytest.mark.parametrize("what", ["loss", "gradient norm"])
def test_no_weight_moves_after_a_late_non_finite_loss_and_nothing_is_saved(make, monkeypatch, what):
    trainer = late(make("objective=self_flow"))
    trainer.train_step()
    trainer.train_step()
    good, step = everything(trainer), trainer.objective.objective.loss
    if what == "loss":
        monkeypatch.setattr(
            trainer.objective.objective, "loss", lambda *args: broken(step(*args), float("nan"))
        )
    else:
        clip = trainer.parallel.clip
        monkeypatch.setattr(trainer.parallel, "clip", lambda *args: clip(*args) * float("inf"))
    trainer.train_step()
    monkeypatch.undo()
    trainer.train_step()  # all well again, but too late
    assert trainer.step == 4
    now = everything(trainer)
    changed = [name for name in good if not torch.equal(now[name], good[name])]
    # The average moves on towards weights that stay finite, and is never seen.
    assert not [name for name in changed if not name.startswith(("ema/", "rng/"))]
    assert all(value.isfinite().all() for name, value in now.items() if name.startswith("ema/"))
    for _ in range(2):  # however often it is asked for
        with pytest.raises(NonFiniteLoss, match=f"step 3: the {what} is"):
            trainer.save()
    assert checkpoint.latest_step(trainer.out_dir / "state") is None


@pytest.mark.parametrize(
    "every", ["validate", "preview", "export", "diagnose", "save", "log", "nothing"]
)
def test_no_hook_sees_the_average_after_a_late_non_finite_loss(make, monkeypatch, every):
    trainer = late(make("objective=self_flow"))
    seen, step = [], trainer.objective.objective.loss

    def hook(ema, step):
        seen.append(step)

    trainer.validate, trainer.validate_every = hook, 4 if every == "validate" else 0
    trainer.preview, trainer.preview_every = hook, 4 if every == "preview" else 0
    trainer.export, trainer.export_every = hook, 4 if every == "export" else 0
    trainer.diagnose_every = 4 if every == "diagnose" else 0
    trainer.save_every = 4 if every == "save" else 0
    trainer.log_every = 4 if every == "log" else 100
    monkeypatch.setattr(trainer, "_diagnose", lambda: hook(None, trainer.step))
    monkeypatch.setattr(
        trainer.objective.objective, "loss", lambda *args: broken(step(*args), float("nan"))
    )
    with pytest.raises(NonFiniteLoss):
        trainer.train()
    assert seen == [] and checkpoint.latest_step(trainer.out_dir / "state") is None
    assert trainer.step == (6 if every == "nothing" else 4)


def broken(output, by):
    output.total = output.total * by
    return output
