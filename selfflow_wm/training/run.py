"""A training run from its configuration: its directory, its parts put together, its command.

Pretraining and fine-tuning differ in their parts (`Parts`): model, samples, previews, checkpoints.
What makes a run of them is here.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from selfflow_wm.data import Mode, ModeSchedule, UnusableSample
from selfflow_wm.data.ahead import Draws, ReadAhead, reading_threads
from selfflow_wm.files import hold, write_file
from selfflow_wm.layout import Batch
from selfflow_wm.objective import FlowMatching
from selfflow_wm.training import checkpoint, ranks
from selfflow_wm.training.command import PLACES
from selfflow_wm.training.config import current_record, make_objective, make_part, require
from selfflow_wm.training.log import MetricsLog
from selfflow_wm.training.parallel import make_parallel
from selfflow_wm.training.trainer import NonFiniteLoss, Trainer
from selfflow_wm.training.validate import FixedNoiseValidation

Model = TypeVar("Model", bound=nn.Module)

LOADED = "loaded"
"""Key of run.json: what was loaded from the checkpoint in `init`."""
LOCK = ".lock"
"""File of a run's directory that its main process holds."""
RESUMABLE = ("trainer", "log", "resume", "device", "out", "workers", "ahead", LOADED)
"""Parts of the configuration that may change between a run and its resumption."""


@dataclass(frozen=True)
class Setting:
    """What a run's parts are made for."""

    config: DictConfig
    plain: dict[str, Any]
    """The resolved configuration as JSON values."""
    out: Path
    ranks: ranks.Ranks
    modes: ModeSchedule
    """With the batches of all processes together."""
    resuming: bool

    @property
    def fresh(self) -> bool:
        """Whether this process makes the untrained model; otherwise it reads out/initial, which
        the main process or an earlier start has written."""
        return self.ranks.main and not self.resuming


@dataclass(frozen=True)
class Parts:
    """What differs between pretraining and fine-tuning."""

    model: Any
    """A `SavedModel` or a `WorldModel`, for whoever builds a run."""
    network: nn.Module
    """Of it: what is trained."""
    pixels: Callable[[Batch, str], Any]
    """`(batch, modality)`: frames, for objectives that look at them."""
    stream: Callable[..., Draws]
    """`(modes, **options)`: training batches. options: seed, accumulate, rank, world_size."""
    fixed_batches: Callable[[ModeSchedule, int], dict[str, list[Batch]]]
    """`(modes, batches of each)`: for validation."""
    preview: Callable[[Path], Callable[[Any, int], Sequence[Path]]]
    """`(directory)`: the hook that writes pictures and clips there, and returns their paths."""
    save: Callable[[Any, int, Path], None]
    """`(ema, step, directory)`: writes one checkpoint."""
    describe: Callable[[Trainer], list[str]]
    """Lines on data and model, printed before training."""
    objective: Callable[[FlowMatching], Any] = field(default=lambda objective: objective)
    """The objective as the Trainer is to have it."""
    by_row: Callable[[Mapping[str, Any]], Mapping[str, Any]] = field(default=lambda values: values)
    """Settings by modality -> by row of the layout, where a modality has several rows."""


@dataclass
class TrainingRun:
    """Everything a training run is made of, built and not yet started."""

    model: Any
    """A `SavedModel` or a `WorldModel` around the network that is trained."""
    trainer: Trainer
    description: str


def assemble(
    config: DictConfig,
    make_parts: Callable[[Setting], Parts],
    table: Mapping[str, Mode],
    resumable: tuple[str, ...] = RESUMABLE,
    check: Callable[[DictConfig], None] | None = None,
) -> TrainingRun:
    """A run of a composed configuration, resumed when its state is there; ValueError for misuse.

    table: the modes there are. resumable: settings that may differ from the run being resumed.
    check: raises ValueError for what is soon seen to be wrong, before the directory is touched.
    """
    require(config, *PLACES)
    if check:
        check(config)
    optim, noise = make_part(config, "optim"), make_part(config, "noise")
    joined = ranks.join(config.trainer.parallel, config.device)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    stated = ModeSchedule(plain["modes"], config.seed, table)
    modes = of_run(stated, plain["batch_of"], joined.size)
    threads = reading_threads(plain["workers"], plain["ahead"], joined.device)
    out = Path(config.out)
    per_process = modes.divided(joined.size)
    resuming = joined.on_main(lambda: claim(out, plain, resumable))

    torch.manual_seed(config.seed)  # the network's initial weights, then the projector's
    parts = make_parts(Setting(config, plain, out, joined, modes, resuming))
    network = parts.network.requires_grad_(True).to(joined.device)
    objective = _for_rows(make_objective(config), parts)
    objective.bind(parts.pixels)
    trained = parts.objective(objective)

    settings = plain["trainer"] | {"parallel": make_parallel(joined)}
    per_mode = settings.pop("validation_batches")
    stream = parts.stream(
        per_process,
        seed=config.seed,
        accumulate=settings["accumulate"],
        rank=joined.rank,
        world_size=joined.size,
    )
    trainer = Trainer(
        network,
        trained,
        ReadAhead(stream, threads, plain["ahead"]) if threads else stream,
        out_dir=out,
        optim=optim,
        seed=config.seed,
        device=joined.device,
        validate=FixedNoiseValidation(
            _for_rows(
                FlowMatching(noise["time_laws"], noise["condition_noise"], caption_dropout=0.0),
                parts,
            ),
            parts.fixed_batches(stated, per_mode),
        ),
        preview=parts.preview(out / "previews") if settings["preview_every"] else None,
        export=exporter(parts.save, out),
        **settings,
    )
    if resuming:
        trainer.resume()
    if joined.main:
        trainer.log = MetricsLog(out, config=plain, resume_step=trainer.step, **plain["log"])
    loaded = _recorded(out)
    lines = [*(loaded["table"] if loaded else ()), *parts.describe(trainer)]
    return TrainingRun(parts.model, trainer, "\n".join([*lines, *describe_run(trainer, config)]))


def _for_rows(objective: FlowMatching, parts: Parts) -> FlowMatching:
    """The objective with its time laws and condition noise by row of the layout."""
    if isinstance(objective.time_laws, Mapping):
        objective.time_laws = parts.by_row(objective.time_laws)
    objective.condition_noise = dict(parts.by_row(objective.condition_noise))
    return objective


def of_run(modes: ModeSchedule, batch_of: str, processes: int) -> ModeSchedule:
    """The schedule with the batches that all processes share. batch_of: of the configuration."""
    if batch_of not in ("run", "process"):
        raise ValueError(
            f"batch_of: expected run (all processes share a batch) or process (each has one), got "
            f"{batch_of!r}"
        )
    return modes.times(processes) if batch_of == "process" else modes


def record_loaded(out: Path, found: Mapping[str, Any]) -> None:
    """Put what was loaded from `init` into run.json, beside the configuration, and its table into
    init.txt. found: JSON values with `table`, its lines."""
    record = checkpoint.read_json(out / "run.json")
    checkpoint.write_json(out / "run.json", record | {LOADED: found})
    write_file(out / "init.txt", "\n".join(found["table"]) + "\n")


def _recorded(out: Path) -> dict[str, Any] | None:
    """What the run in `out` has loaded from a checkpoint."""
    return checkpoint.read_json(out / "run.json").get(LOADED)


def claim(out: Path, config: dict[str, Any], resumable: Sequence[str] = RESUMABLE) -> bool:
    """Make `out` this run's, until this process ends. True if a run with the same configuration is
    there to resume.

    ValueError: another process writes there, a run with other settings is there, or `out` cannot
    be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        holder = hold(out / LOCK)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ValueError(
            f"out={out}: expected a directory that can be written, got {error.strerror}; choose "
            "another out="
        ) from error
    if holder:
        raise ValueError(
            f"out={out}: expected a directory that no other run is writing, got that of {holder}; "
            "wait for it or choose another out="
        )
    state, record = out / "state", out / "run.json"
    if not config["resume"]:
        _set_aside(out)
    resuming = checkpoint.latest_step(state) is not None
    if resuming:
        before = current_record(checkpoint.read_json(record))
        differing = sorted(
            key
            # Parts that a later version has added stand at what was done before them.
            for key in before
            if key not in resumable and before[key] != config.get(key)
        )
        if differing:
            raise ValueError(
                f"out={out}: expected a run with the same settings, got one with other "
                f"settings of {', '.join(differing)}; rerun its command to resume it, choose "
                "another out=, or start over with resume=false"
            )
        config = config | {key: before[key] for key in (LOADED,) if key in before}
    checkpoint.write_json(record, config)
    return resuming


PARTS = (
    "state", "checkpoints", "checkpoint", "initial", "previews", "metrics.jsonl", "run.json",
    "init.txt", "wandb.json",
)  # fmt: skip
"""Of a run's directory."""


def _set_aside(out: Path) -> None:
    """Move the run in `out` to out/replaced, so that a mistake in the command loses nothing.

    What was set aside before is deleted, unless the run in `out` has not saved anything yet.
    """
    found = [out / name for name in PARTS if (out / name).exists()]
    if not any(path.name in ("state", "checkpoint") for path in found):
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return
    aside = out / "replaced"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for path in found:
        path.rename(aside / path.name)
    print(f"resume=false: the run that was in {out} now lies in {aside}", flush=True)


def exporter(save: Callable[[Model, int, Path], None], out: Path) -> Callable[[Model, int], None]:
    """Writes the EMA weights to checkpoints/step_* and, as the newest, to checkpoint/.

    save: `(ema, step, directory)` writes one checkpoint.
    """

    def export(ema: Model, step: int) -> None:
        save(ema, step, checkpoint.step_directory(out / "checkpoints", step))
        save(ema, step, out / "checkpoint")

    return export


def describe_run(trainer: Trainer, config: DictConfig) -> list[str]:
    """Lines on model, objective, modes, steps and directory, printed before training."""

    def count(module: nn.Module) -> float:
        return sum(p.numel() for p in module.parameters()) / 1e6

    modes = ", ".join(
        f"{name} {share['probability']:g} x {share['batch_size']}"
        for name, share in config.modes.items()
        if share is not None and share["probability"] > 0
    )
    objective = getattr(trainer.objective, "name", type(trainer.objective).__name__)
    shared = [
        f"processes   {trainer.ranks.size} that share every batch, {trainer.ranks.mode}",
    ]
    return [
        f"model       {count(trainer.model):.2f}M parameters, "
        f"{count(trainer.extra):.2f}M in the projector; {trainer.device}",
        f"objective   {objective}, EMA {trainer.ema.decay:g}, seed {config.seed}",
        f"modes       {modes}",
        *(shared if trainer.ranks.size > 1 else []),
        f"steps       {trainer.step} done of {trainer.total_steps}"
        + (f", at most {trainer.max_minutes:g} minutes" if trainer.max_minutes else ""),
        *([f"rate        {trainer.rescheduled}"] if trainer.rescheduled else []),
        f"out         {config.out}",
    ]


def run_training(
    name: str,
    make_config: Callable[[], DictConfig],
    build: Callable[[DictConfig], TrainingRun],
    show: bool,
) -> int:
    """Compose, build and train; the exit status: 0 done, 1 a training failure, 2 misuse, 130
    interrupted. name: of the command, before its errors. show: print the configuration only.

    One of several processes prints the errors of all."""
    try:
        config = make_config()
        if show:
            if ranks.is_main():
                print(OmegaConf.to_yaml(config), end="")
            return 0
        run = build(config)
    except ValueError as error:
        return _failed(name, error, 2)
    except ConnectionError as error:  # data behind a URL
        return _failed(name, error, 1)
    if ranks.is_main():
        print(run.description, flush=True)
    try:
        outcome = run.trainer.train()
    except (NonFiniteLoss, UnusableSample, ConnectionError) as error:
        return _failed(name, error, 1)
    if ranks.is_main():
        print(f"{outcome} at step {run.trainer.step}; checkpoint {Path(config.out) / 'checkpoint'}")
    ranks.leave()
    return 130 if outcome == "interrupted" else 0


def _failed(name: str, error: Exception, status: int) -> int:
    if ranks.is_reporter(str(error)):
        print(f"{name}: {error}", file=sys.stderr, flush=True)
    return status
