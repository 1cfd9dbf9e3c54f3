"""What a checkpoint imagines, next to what happened in held-out episodes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robotics.data.images import strip, write_mp4, write_png
from robotics.data.sources import parse_mixture
from robotics.data.windows import WindowDataset
from robotics.embodiment.table import ARM
from robotics.imagination.report import print_report, write_html
from robotics.imagination.scores import action_scores, video_scores
from robotics.model.world_model import WorldModel
from selfflow_wm.files import check_out
from selfflow_wm.progress import Progress
from selfflow_wm.training.checkpoint import write_json

BATCH = 32
VIDEO_MODES = ("forward", "video", "joint")
ACTION_MODES = ("inverse", "policy", "joint")


def imagine(arguments: argparse.Namespace) -> None:
    """What `python -m robotics.imagine` does with its arguments."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    world = WorldModel.load(arguments.checkpoint, device=arguments.device)
    _check(world, arguments)
    print_report(run(world, _held_out(world, arguments), arguments))
    print(f"written to {arguments.out}")


def _check(world: WorldModel, arguments: argparse.Namespace) -> None:
    """ValueError, before the data is opened, where nothing could be drawn or written."""
    check_out(arguments.out)
    if (arguments.episode or not arguments.windows) and not set(VIDEO_MODES) & set(world.modes):
        raise ValueError(
            f"--episode, --windows 0: expected a model trained in {', '.join(VIDEO_MODES[:-1])} or "
            f"{VIDEO_MODES[-1]}, got one trained in {', '.join(world.modes)}, which has no frames "
            "to draw; leave them out"
        )


def _held_out(world: WorldModel, arguments: argparse.Namespace) -> WindowDataset:
    settings = world.config.get("dataset", {})
    spec, split = world.config.get("spec"), settings.get("validation_split", "train")
    trained_on = world.config.get("data")
    if isinstance(trained_on, dict):  # a mixture: which of its sets is this?
        for entry in (parse_mixture(trained_on) or {}).values():
            if Path(entry.path).resolve() == arguments.data.resolve():
                spec, split = entry.spec or spec, entry.validation_split or split
    return WindowDataset(
        arguments.data,
        world.image_size,
        split=arguments.split or split,
        horizon=world.horizon,
        video_offsets=world.video_offsets,
        history=len(world.history_offsets),
        history_stride=min(world.history_offsets, default=1),
        cache_dir=arguments.cache_dir or settings.get("cache_dir"),
        spec=spec,
        on_error=world.config.get("on_error", "error"),
        decoded=world.config.get("decoded", True),
    )


def run(world: WorldModel, dataset: WindowDataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """Draw the episodes, measure the windows, write everything to `arguments.out`."""
    out = Path(arguments.out)
    chosen = arguments.episode
    if chosen is None:
        chosen = list(range(min(4, len(dataset.episodes))))
    if wrong := [number for number in chosen if not 0 <= number < len(dataset.episodes)]:
        raise ValueError(f"--episode: expected 0..{len(dataset.episodes) - 1}, got {wrong}")
    report: dict[str, Any] = {
        "checkpoint": str(arguments.checkpoint),
        "data": str(arguments.data),
        "steps": arguments.steps,
        "seed": arguments.seed,
        "offsets": list(world.video_offsets),
        "ahead": {},
        "strips": [],
        "videos": [],
    }
    for mode in VIDEO_MODES:
        if mode not in world.modes:
            continue
        for number in chosen:
            draw_episode(world, dataset, number, mode, arguments, out, report)
    if arguments.windows:
        report |= measure(world, dataset, arguments)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "results.json", report)
    write_html(out / "index.html", report)
    return report


def draw_episode(
    world: WorldModel,
    dataset: WindowDataset,
    number: int,
    mode: str,
    arguments: argparse.Namespace,
    out: Path,
    report: dict[str, Any],
) -> None:
    """A strip and a video of one episode: recorded frames above, imagined ones below.

    The strip shows up to 8 windows, the video every step; frames are those at the last offset that
    the episode is long enough for, which goes into `report["ahead"]` (steps, by episode). Each is
    imagined from the recorded current frame that many steps before it.
    """
    steps = np.asarray(dataset.episodes[number])
    there = np.flatnonzero(dataset.video_steps(steps)[1].any(0))
    if not len(there):
        print(
            f"imagine: episode {number}: nothing drawn, its {len(steps)} steps end before "
            f"{world.video_offsets[0]} steps ahead",
            file=sys.stderr,
        )
        return
    last = there[-1]
    true, imagined, current = [], [], []
    for samples in _batches(dataset, steps):
        valid = np.asarray(samples["video_valid"])[:, last]
        frames = _generate(world, samples, mode, arguments)["video"]
        true += list(samples["video"][valid, last])
        imagined += list(frames[valid, last])
        current += list(samples["image"][valid])
    report["ahead"][str(number)] = world.video_offsets[last]
    name = f"episode_{number:04d}_{mode}"
    shown = np.unique(np.linspace(0, len(true) - 1, min(8, len(true))).astype(int))
    rows = [[column[i] for i in shown] for column in (current, true, imagined)]
    write_png(out / "strips" / f"{name}.png", strip(rows))
    report["strips"].append(f"strips/{name}.png")
    video = [strip([[a, b]], gap=0) for a, b in zip(true, imagined, strict=True)]
    write_mp4(out / "videos" / f"{name}.mp4", video, fps=6)
    report["videos"].append(f"videos/{name}.mp4")


def measure(
    world: WorldModel, dataset: WindowDataset, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Scores of every trained mode on the same windows drawn from all held-out episodes."""
    generator = np.random.default_rng(arguments.seed)
    steps = np.sort(generator.permutation(len(dataset))[: arguments.windows])
    episode = np.repeat(
        np.arange(len(dataset.episodes)), [len(steps) for steps in dataset.episodes]
    )[steps]
    modes = [m for m in dict.fromkeys((*VIDEO_MODES, *ACTION_MODES)) if m in world.modes]
    parts: dict[str, list[np.ndarray]] = {}

    def keep(name: str, values: np.ndarray) -> None:
        parts.setdefault(name, []).append(np.asarray(values))

    for samples in _batches(dataset, steps, "measuring"):
        for name in ("image", "video", "video_valid", "action_valid"):
            keep(f"true {name}", samples[name])
        keep("true action", world.action.normalise(samples["action"])[..., ARM])
        video = torch.as_tensor(_padded(samples)).to(world.device)
        current = world.image_codec.encode(torch.as_tensor(samples["image"]).to(world.device))
        coded = world.video_codec.encode(video, reference_latents=current)
        restored = world.video_codec.decode(coded, reference_latents=current)
        keep("codec", restored.cpu().numpy())
        for mode in modes:
            answer = _generate(world, samples, mode, arguments)
            if mode in VIDEO_MODES:
                keep(f"video {mode}", answer["video"])
            if mode in ACTION_MODES:
                keep(f"action {mode}", world.action.normalise(answer["action"])[..., ARM])
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    return _scores(world, joined, episode, modes)


def _padded(samples: dict[str, Any]) -> np.ndarray:
    """The future frames, uint8 (B, F, H, W, 3), the last one repeated after the episode's end.

    A codec of clips mixes the frames of a group: black ones would spoil how it restores the real
    ones before them.
    """
    frames = np.concatenate([samples["image"][:, None], samples["video"]], axis=1)
    valid = np.pad(samples["video_valid"], [(0, 0), (1, 0)], constant_values=True)
    last = np.maximum.accumulate(np.where(valid, np.arange(valid.shape[1]), 0), axis=1)
    return frames[np.arange(len(frames))[:, None], last][:, 1:]


def _scores(
    world: WorldModel, joined: dict[str, np.ndarray], episode: np.ndarray, modes: Sequence[str]
) -> dict[str, Any]:
    report: dict[str, Any] = {}
    videos = {mode: joined[f"video {mode}"] for mode in modes if mode in VIDEO_MODES}
    image, video, shown = (joined[f"true {k}"] for k in ("image", "video", "video_valid"))
    if videos:
        still = np.broadcast_to(image[:, None], video.shape)
        report["video"] = video_scores(
            image,
            video,
            shown,
            {"copy": still, **videos, "codec": joined["codec"]},
            episode,
        )
    actions = {mode: joined[f"action {mode}"] for mode in modes if mode in ACTION_MODES}
    if actions:
        valid = joined["true action_valid"]
        if "inverse" in actions:  # it can only be asked for actions between frames it was shown
            valid = valid & shown.all(axis=1, keepdims=True)
        mean = np.asarray(world.action.statistics.mean, np.float32)
        mean = world.action.normalise(mean)[ARM]
        actions["mean"] = np.broadcast_to(mean, joined["true action"].shape)
        report["action"] = action_scores(joined["true action"], valid, actions, episode)
    return report


def _batches(
    dataset: WindowDataset, steps: np.ndarray, title: str | None = None
) -> Iterator[dict[str, Any]]:
    """Samples of `steps`, BATCH at a time, under a progress bar if there is a title."""
    with Progress(len(steps), description=title or "", unit="window", quiet=title is None) as bar:
        for start in range(0, len(steps), BATCH):
            part = steps[start : start + BATCH]
            yield dataset.batch(part, video=True) | {"step": part}
            bar.add(len(part))


def _generate(
    world: WorldModel,
    samples: dict[str, Any],
    mode: str,
    arguments: argparse.Namespace,
) -> dict[str, np.ndarray]:
    """One generator per window, seeded by its step: batching changes nothing."""
    generators = [
        torch.Generator().manual_seed(arguments.seed * 1_000_003 + int(step))
        for step in samples["step"]
    ]
    return world.generate(samples, mode, steps=arguments.steps, generator=generators)
