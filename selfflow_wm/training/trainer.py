"""The one Trainer: pretraining and fine-tuning, any objective, any iterator of batches."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from selfflow_wm.layout import Batch
from selfflow_wm.objective import LossOutput
from selfflow_wm.progress import Progress
from selfflow_wm.training import checkpoint
from selfflow_wm.training.diagnostics import Diagnostics
from selfflow_wm.training.ema import EMA
from selfflow_wm.training.log import MetricsLog, NoLog
from selfflow_wm.training.optim import AdamWCosine, rescheduled
from selfflow_wm.training.parallel import SingleProcess
from selfflow_wm.training.readings import NonFiniteLoss as NonFiniteLoss
from selfflow_wm.training.readings import Readings

STATE_SCHEMA = 1


class BatchStream(Protocol):
    """An endless iterator whose position is a small JSON value."""

    def __next__(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Trainer:
    """Trains `model` on `objective` and saves all it needs to resume after any interruption.

    model: the student. objective: has `.loss(student, teacher, batch, generator)`, `.modules()`
    (further trainable parts) and gets the EMA as its teacher. batches: a BatchStream.
    out_dir: receives metrics.jsonl, `state/step_*` and whatever the hooks write.
    total_steps: length of the schedule. accumulate: batches per optimiser step.
    precision: "float32", or "bfloat16" for autocast (ignored on a CPU, where it is slower).
    activation_checkpointing: blocks keep their inputs only and run again in the backward pass.
    parallel: how student, teacher and gradients lie in the processes that train together; each
    reads its rows of every batch from its stream (`training.parallel`). The hooks run, and
    everything is written and printed, in the main process alone.
    Hooks get the EMA model in evaluation mode: `validate(ema, step) -> scalars` every
    `validate_every` steps, `preview(ema, step) -> files` (which it wrote, for the log) every
    `preview_every`, `export(ema, step)` every `export_every` and at the end; 0: never, but for the
    export at the end.
    diagnose_every: measure the representation term and the EMA this often (0: never), see
    `training.diagnostics`; logged as `diagnosis/*`.
    The state is saved every `save_every` steps, at the end and on SIGINT or SIGTERM.
    max_minutes: stop (with a saved state) after this long, whatever the step.

    A step does not wait for a GPU: its loss is read every `log_every` steps, before a hook and
    before saving, see `training.readings`.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Any,
        batches: BatchStream,
        *,
        out_dir: Path | str,
        total_steps: int,
        optim: AdamWCosine | None = None,
        ema_decay: float = 0.9999,
        accumulate: int = 1,
        precision: str = "float32",
        compile: bool = False,
        activation_checkpointing: bool = False,
        parallel: SingleProcess | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        log_every: int = 10,
        diagnose_every: int = 500,
        validate_every: int = 0,
        preview_every: int = 0,
        export_every: int = 0,
        save_every: int = 500,
        keep_states: int = 1,
        max_minutes: float | None = None,
        validate: Callable[[Any, int], dict[str, float]] | None = None,
        preview: Callable[[Any, int], Iterable[Path] | None] | None = None,
        export: Callable[[Any, int], None] | None = None,
        log: MetricsLog | None = None,
    ) -> None:
        if total_steps < 1 or accumulate < 1:
            raise ValueError(
                f"trainer: expected total_steps >= 1 and accumulate >= 1, "
                f"got {total_steps} and {accumulate}"
            )
        if log_every < 1:
            raise ValueError(
                f"trainer.log_every: expected at least 1 step, got {log_every}; write "
                "trainer.log_every=10"
            )
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"trainer.precision: expected float32 or bfloat16, got {precision!r}")
        self.device = torch.device(device)
        self.parallel = parallel or SingleProcess()
        self.ranks = self.parallel.ranks
        self.model = model.to(self.device).train()
        self.objective = objective
        self.extra: nn.Module = objective.modules().to(self.device).train()
        self.batches = batches
        self.out_dir = Path(out_dir)
        self.total_steps, self.accumulate = total_steps, accumulate
        self.ema = EMA(self.model, ema_decay)
        # The same in every process: each draws for the whole batch and keeps its rows.
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.autocast = precision == "bfloat16" and self.device.type != "cpu"
        self._prepare(compile, activation_checkpointing)
        self.optim = optim or AdamWCosine()
        self.optimizer = self.optim.build([self.model, self.extra])
        self.log_every, self.save_every, self.keep_states = log_every, save_every, keep_states
        self.max_minutes = max_minutes
        self.diagnostics = Diagnostics(
            objective, seed=seed, autocast=self.autocast, parallel=self.parallel
        )
        self.diagnose_every = diagnose_every
        self.validate, self.validate_every = validate, validate_every
        self.preview, self.preview_every = preview, preview_every
        self.export, self.export_every = export, export_every
        self.log = log
        self.step = 0
        self.rescheduled = ""  # what resuming with another number of steps does to the rate
        self._signal: int | None = None
        self._exported = -1
        self._batch: Batch | None = None
        self.readings = Readings(self.device, self.out_dir / "state")

    def _prepare(self, compile: bool, activation_checkpointing: bool) -> None:
        """Checkpointing inside, compilation around it, sharding outermost; the optimiser comes
        after, because sharding replaces the parameters."""
        if activation_checkpointing:  # the teacher has no backward pass
            cast(Any, self.model).checkpoint_blocks = True
        if compile:
            self.model.compile()
            self.ema.model.compile()
        self.parallel.wrap(self.model, self.extra, self.ema.model, self.autocast)

    @property
    def trainable(self) -> list[nn.Parameter]:
        """Every parameter the optimiser moves."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    # ---------------------------------------------------------------- the loop

    def train(self, until: int | None = None) -> str:
        """Train to `until` (default: the end of the schedule) and save the state.

        Returns "finished", "paused" (reached `until`), "out of time" or "interrupted".
        Raises NonFiniteLoss, leaving the last saved state as it is.
        """
        last = self.total_steps if until is None else min(until, self.total_steps)
        log = self._open_log()
        progress = Progress(self.total_steps, self.step, quiet=not self.ranks.main)
        begun, saved_at = time.monotonic(), None
        outcome = "finished" if last == self.total_steps else "paused"
        try:
            with self._catch_signals():
                while self.step < last:
                    self.train_step()
                    progress.advance(self.step)
                    if self.step % self.log_every == 0 or self.step == last:
                        self._report(log, progress)
                    self._run_hooks(log)
                    minutes = (time.monotonic() - begun) / 60
                    signalled, late = self.ranks.any(
                        self._signal is not None,
                        self.max_minutes is not None and minutes >= self.max_minutes,
                    )
                    if signalled:
                        outcome = "interrupted"
                        break
                    if late:
                        outcome = "out of time" if self.step < last else outcome
                        break
                    if self.save_every and self.step % self.save_every == 0:
                        self.save()
                        saved_at = self.step
                if saved_at != self.step:
                    self.save()
                if outcome != "paused" and self._exported != self.step:
                    self._export()
        finally:
            progress.close()
            log.close()
        return outcome

    def _open_log(self) -> MetricsLog | NoLog:
        if not self.ranks.main:
            return NoLog()
        return self.log or MetricsLog(self.out_dir, resume_step=self.step)

    def train_step(self) -> None:
        """One optimiser step over `accumulate` batches, then the EMA's; NonFiniteLoss if it has to
        stop, on a GPU only once the readings are read."""
        rate = self.optim.rate(self.step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        for number in range(1, self.accumulate + 1):
            batch = replace(next(self.batches).to(self.device), rows=self.ranks.rows)
            with self.parallel.step(last=number == self.accumulate):
                loss = self.parallel.train(lambda student, batch=batch: self._loss(student, batch))
                # Of all processes, so that all stop when one has to.
                terms = self.ranks.mean({"loss": loss.total.detach(), **loss.terms})
                self.readings.add(self.step + 1, terms)
                (loss.total / self.accumulate).backward()
            self._batch = batch
        norm = self.parallel.clip(self.trainable, self.optim.clip_norm)
        self.readings.add(self.step + 1, {"grad_norm": norm})
        # By the protocol of torch.amp.GradScaler: where it is 1, the fused kernel does nothing.
        cast(Any, self.optimizer).found_inf = self.readings.broken
        self.optimizer.step()
        # After a broken step it moves on towards weights that stay as they are: NonFiniteLoss is
        # raised before anything of it is saved or shown.
        self.ema.update(self.model)
        self.step += 1

    def _loss(self, student: Any, batch: Batch) -> LossOutput:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return self.objective.loss(student, self.ema.model, batch, self.generator)

    def _report(self, log: MetricsLog | NoLog, progress: Progress) -> None:
        means = self.readings.means()
        means["lr"] = self.optimizer.param_groups[0]["lr"]
        log.write(
            self.step,
            {f"train/{k}": v for k, v in means.items()}
            | {"train/steps_per_second": progress.rate(self.step)},
        )
        shown = {k: v for k, v in means.items() if not k.startswith("bin/")}
        progress.report(self.step, shown)

    def _run_hooks(self, log: MetricsLog | NoLog) -> None:
        def due(every: int) -> bool:
            return bool(every) and self.step % every == 0

        hooks = (self.validate_every, self.preview_every)
        if any(map(due, (self.diagnose_every, self.export_every, *hooks))):
            self.readings.read()  # nothing is shown or exported of a run that went wrong
        if due(self.diagnose_every):
            log.write(self.step, self._diagnose())
        if self.validate and due(self.validate_every):
            log.write(self.step, self._on_whole_ema(self._validate))
        if self.preview and due(self.preview_every):
            log.media(self.step, self._on_whole_ema(self._preview))
        if due(self.export_every):
            self._export()

    def _on_whole_ema(self, hook: Callable[[Any, int], Any]) -> Any:
        """`hook(ema, step)` in the main process, while the others wait; its scalars in all."""
        ema = self.parallel.whole(self.ema.model)
        return self.ranks.on_main(lambda: hook(ema, self.step))

    def _diagnose(self) -> dict[str, float]:
        assert self._batch is not None
        values = self.diagnostics(self.model, self.ema.model, self._batch, self.step)
        return {f"diagnosis/{k}": v for k, v in values.items()}

    def _validate(self, ema: nn.Module, step: int) -> dict[str, float]:
        values = self.validate(ema, step) if self.validate else {}
        return {f"validation/{k}": v for k, v in values.items()}

    def _preview(self, ema: nn.Module, step: int) -> list[str]:
        files = self.preview(ema, step) if self.preview else None
        return [str(path) for path in files or ()]

    def _export(self) -> None:
        if self.export is not None:
            self._on_whole_ema(self.export)
        self._exported = self.step

    @contextmanager
    def _catch_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the loop after the current step; a second one kills at once.

        Not so under torchrun, which passes on the signal that a terminal sent to all of its
        processes already, and kills what is left of them after half a minute anyway.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def catch(number: int, _frame: Any) -> None:
            if self.ranks.main and self._signal is None:
                name = signal.Signals(number).name
                print(f"\n{name}: saving the state, then stopping", flush=True)
            self._signal = number
            if self.ranks.size == 1:
                signal.signal(number, before[number])

        before: dict[int, Any] = {
            number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # ---------------------------------------------------------------- state

    def save(self) -> Path:
        """Write `out_dir/state/step_*` in one piece and drop the older ones.

        The same files whatever the number of processes and `parallel`: whole tensors.
        NonFiniteLoss, and nothing written, if a step since the last report went wrong.
        """
        self.readings.read()
        path = checkpoint.step_directory(self.out_dir / "state", self.step)
        gather = self.parallel.gather
        files = {
            "model": gather(self.model.state_dict()),
            "ema": gather(self.ema.model.state_dict()),
            "objective": gather(self.extra.state_dict()),
            "optimizer": gather(checkpoint.optimizer_tensors(self.optimizer)),
            "rng": self._rng(),
        }
        self.ranks.on_main(lambda: self._write(path, files))
        return path

    def _write(self, path: Path, files: dict[str, dict[str, Tensor]]) -> None:
        with checkpoint.atomic_directory(path) as temporary:
            for name, tensors in files.items():
                checkpoint.save_tensors(temporary / f"{name}.safetensors", tensors)
            checkpoint.write_json(
                temporary / "trainer.json",
                {
                    "schema": STATE_SCHEMA,
                    "step": self.step,
                    "accumulate": self.accumulate,
                    "total_steps": self.total_steps,
                    "batches": self.batches.state_dict(),
                    "diagnostics": self.diagnostics.state_dict(),
                },
            )
        checkpoint.remove_older(path.parent, self.keep_states)

    def resume(self, path: Path | str | None = None) -> bool:
        """Load the newest state in `out_dir/state` (or the one at `path`).

        Returns False, changing nothing, when there is none. ValueError when it does not fit.
        After it, training continues bit for bit as if it had never stopped (on a CPU); with another
        number of processes or another `parallel`, to rounding.
        """
        found = Path(path) if path is not None else checkpoint.latest_step(self.out_dir / "state")
        if found is None:
            return False
        header = checkpoint.read_json(found / "trainer.json")
        if header.get("schema") != STATE_SCHEMA:
            raise ValueError(
                f"{found}: expected state schema {STATE_SCHEMA}, got {header.get('schema')}; "
                "resume with the version of this package that wrote it"
            )
        if header.get("accumulate", self.accumulate) != self.accumulate:
            raise ValueError(
                f"{found}: expected trainer.accumulate={header['accumulate']}, with which it was "
                f"saved, got {self.accumulate}: a step would be of another batch; repeat it, or "
                "start another run from the checkpoint with init="
            )
        place = self.parallel.place
        for module, name in (
            (self.model, "model"),
            (self.ema.model, "ema"),
            (self.extra, "objective"),
        ):
            file = found / f"{name}.safetensors"
            checkpoint.load_strict(module, checkpoint.load_tensors(file), file, place)
        checkpoint.load_optimizer(
            self.optimizer, checkpoint.load_tensors(found / "optimizer.safetensors"), place
        )
        rng = checkpoint.load_tensors(found / "rng.safetensors")
        if rng["generator"].shape != self.generator.get_state().shape:
            raise ValueError(
                f"{found}: expected the state of a generator on a {self.device.type} device, got "
                "one of another; resume with the device= it was saved with, or start another run "
                "from the checkpoint with init="
            )
        self.generator.set_state(rng["generator"])
        torch.set_rng_state(rng["torch"])
        self.batches.load_state_dict(header["batches"])
        self.diagnostics.load_state_dict(header.get("diagnostics", {}))
        self.step = header["step"]
        planned = header.get("total_steps", self.total_steps)
        self.rescheduled = rescheduled(self.optim, self.step, planned, self.total_steps)
        return True

    def _rng(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state(), "torch": torch.get_rng_state()}
