"""The Trainer on a toy problem: resumption, signals, refusals, schedules, files."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_runs import everything

from selfflow_wm.layout import Batch, Layout, Modality
from selfflow_wm.objective import LossOutput
from selfflow_wm.training import checkpoint
from selfflow_wm.training.ema import EMA
from selfflow_wm.training.optim import AdamWCosine, parameter_groups
from selfflow_wm.training.trainer import NonFiniteLoss, Trainer

LAYOUT = Layout((Modality("action", (3, 1, 1), 4),), text_length=8)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(4, 8)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 4)

    def forward(self, x):
        return self.out(torch.tanh(self.norm(self.inside(x))))


class ToyObjective:
    """Draws noise from the generator, and from torch's own, and asks the teacher."""

    def __init__(self, break_at: int | None = None) -> None:
        torch.manual_seed(1)
        self.projector = nn.Linear(4, 4)
        self.calls, self.break_at = 0, break_at

    def modules(self):
        return self.projector

    def loss(self, student, teacher, batch, generator):
        clean = batch.latents["action"]
        noise = torch.randn(clean.shape, generator=generator) + 0.1 * torch.randn(clean.shape)
        with torch.no_grad():
            target = teacher(clean + noise)
        answer = self.projector(student(clean + noise))
        total = (answer - noise).square().mean() + (answer - target).square().mean()
        if self.calls == self.break_at:
            total = total * float("nan")
        self.calls += 1
        empty = torch.tensor(float("nan"))
        return LossOutput(total, {"gen/action": total.detach(), "bin/action/0": empty})


class Stream:
    def __init__(self) -> None:
        self.position = 0

    def __next__(self) -> Batch:
        self.position += 1
        return LAYOUT.fake_batch(4, generator=torch.Generator().manual_seed(self.position))

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


def make(out: Path, objective=None, **settings) -> Trainer:
    torch.manual_seed(0)
    settings = {"total_steps": 6, "ema_decay": 0.9, "log_every": 2, "save_every": 0} | settings
    optim = settings.pop("optim", AdamWCosine(lr=1e-2, warmup=2))
    return Trainer(
        Toy(), objective or ToyObjective(), Stream(), out_dir=out, optim=optim, **settings
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_equals_a_straight_run_bit_for_bit(tmp_path, accumulate):
    straight = make(tmp_path / "straight", accumulate=accumulate)
    assert straight.train() == "finished"
    expected = everything(straight)

    first = make(tmp_path / "cut", accumulate=accumulate)
    assert first.train(until=3) == "paused"
    torch.manual_seed(99)  # whatever happened in between
    second = make(tmp_path / "cut", accumulate=accumulate)
    torch.rand(5)
    assert second.resume()
    assert second.step == 3
    assert second.train() == "finished"
    got = everything(second)

    assert got.keys() == expected.keys()
    different = [k for k in got if not torch.equal(got[k], expected[k])]
    assert not different
    assert second.batches.position == straight.batches.position == 6 * accumulate
    # ... and training did something, so that the equality is not vacuous
    untrained = make(tmp_path / "none")
    assert not torch.equal(untrained.model.out.weight, second.model.out.weight)
    assert not torch.equal(untrained.ema.model.out.weight, second.ema.model.out.weight)


def test_resume_without_a_state_changes_nothing(tmp_path):
    trainer = make(tmp_path)
    assert not trainer.resume()
    assert trainer.step == 0


def test_non_finite_loss_stops_and_keeps_the_last_good_state(tmp_path):
    trainer = make(tmp_path, ToyObjective(break_at=4), save_every=2)
    with pytest.raises(NonFiniteLoss, match=r"step 5\b.*\bnan\b.*step_00000004"):
        trainer.train()
    state = checkpoint.latest_step(tmp_path / "state")
    assert state is not None and state.name == "step_00000004"
    assert trainer.step == 4
    assert all(p.isfinite().all() for p in trainer.model.parameters())
    again = make(tmp_path)
    again.resume()
    assert again.train() == "finished"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_state_and_stops(tmp_path, number):
    exported = []
    trainer = make(
        tmp_path,
        total_steps=100,
        validate_every=3,
        validate=lambda ema, step: os.kill(os.getpid(), number) or {"loss": 1.0},
        export=lambda ema, step: exported.append(step),
    )
    before = signal.getsignal(number)
    assert trainer.train() == "interrupted"
    assert signal.getsignal(number) is before
    assert trainer.step == 3 and exported == [3]
    again = make(tmp_path, total_steps=100)
    assert again.resume() and again.step == 3


def test_time_budget_stops_with_a_saved_state(tmp_path):
    trainer = make(tmp_path, max_minutes=0.0)
    assert trainer.train() == "out of time"
    assert trainer.step == 1
    assert make(tmp_path).resume()


def test_metrics_are_logged_once_a_step_also_after_a_crash(tmp_path):
    make(tmp_path).train(until=4)
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:  # a later line the crashed run wrote, and one cut short
        file.write('{"step": 6, "time": 0}\n{"step": 6, "ti')
    trainer = make(tmp_path)
    trainer.resume()
    trainer.train()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {"train/loss", "train/gen/action", "train/lr", "train/grad_norm"} <= rows[-1].keys()
    assert "train/bin/action/0" not in rows[-1]  # always empty: NaN never reaches the file


def test_hooks_get_the_averaged_weights_at_their_steps(tmp_path):
    seen = []
    trainer = make(
        tmp_path,
        preview_every=4,
        export_every=3,
        preview=lambda ema, step: seen.append(("preview", step, ema)),
        export=lambda ema, step: seen.append(("export", step, ema)),
    )
    trainer.train()
    assert [row[:2] for row in seen] == [("export", 3), ("preview", 4), ("export", 6)]
    assert all(row[2] is trainer.ema.model for row in seen)


def test_states_keep_the_newest_only(tmp_path):
    make(tmp_path, save_every=1, keep_states=2).train()
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert names == ["step_00000005", "step_00000006"]


def test_a_state_of_another_model_is_refused(tmp_path):
    make(tmp_path).train(until=1)
    trainer = make(tmp_path)
    trainer.model.out = nn.Linear(8, 5)
    with pytest.raises(ValueError, match=r"out\.weight.*\(5, 8\).*\(4, 8\)"):
        trainer.resume()


def test_accumulated_gradients_are_the_mean_over_batches(tmp_path):
    class Plain(ToyObjective):
        def loss(self, student, teacher, batch, generator):
            loss = self.projector(student(batch.latents["action"])).square().mean()
            return LossOutput(loss, {})

    trainer = make(tmp_path, Plain(), accumulate=2)
    batches = [next(Stream()), next(trainer.batches)]
    trainer.batches.position = 0
    both = torch.cat([batches[0].latents["action"], next_after(1).latents["action"]])
    expected = torch.autograd.grad(
        trainer.extra(trainer.model(both)).square().mean(), trainer.model.out.weight
    )[0]
    trainer.optim = AdamWCosine(clip_norm=1e9)
    trainer.train_step()
    torch.testing.assert_close(trainer.model.out.weight.grad, expected)


def next_after(position: int) -> Batch:
    stream = Stream()
    stream.position = position
    return next(stream)


def test_gradient_norm_is_clipped(tmp_path):
    trainer = make(tmp_path, optim=AdamWCosine(clip_norm=1e-3))
    trainer.train_step()
    norm = torch.stack([p.grad.norm() for p in trainer.trainable]).norm()
    assert norm <= 1e-3 * 1.001


def test_only_matrices_decay():
    model = Toy()
    decayed, plain = parameter_groups([model], 0.1)
    assert decayed["weight_decay"] == 0.1 and plain["weight_decay"] == 0.0
    assert {id(p) for p in decayed["params"]} == {id(model.inside.weight), id(model.out.weight)}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_schedule_warms_up_and_ends_at_its_floor():
    optim = AdamWCosine(lr=1.0, warmup=10, floor=0.1)
    rates = [optim.rate(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)


def test_ema_is_the_closed_form_average():
    model = nn.Linear(2, 2)
    ema = EMA(model, 0.75)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.copy_(start + 1.0)
    for _ in range(3):
        ema.update(model)
    torch.testing.assert_close(ema.model.weight, start + 1.0 - 0.75**3)
    assert not ema.model.weight.requires_grad
    with pytest.raises(ValueError):
        EMA(model, 1.0)


@pytest.mark.parametrize(
    "settings", [{"total_steps": 0}, {"accumulate": 0}, {"precision": "float16"}]
)
def test_impossible_settings_are_refused(tmp_path, settings):
    with pytest.raises(ValueError, match="expected"):
        make(tmp_path, **settings)
