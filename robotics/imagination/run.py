"""What a checkpoint imagines, next to what happened in held-out episodes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robotics.data.images import beside, strip, write_mp4, write_png
from robotics.data.sources import parse_mixture
from robotics.data.windows import WindowDataset
from robotics.embodiment.tables import load_robot
from robotics.imagination.report import print_report, write_html
from robotics.imagination.scores import action_scores, video_scores
from robotics.model.robot_model import RobotModel
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
    robot = world.robot(arguments.robot or _of_data(world, arguments.data))
    _check(robot, arguments)
    print_report(run(world, robot, _held_out(world, robot, arguments), arguments))
    print(f"written to {arguments.out}")


def _check(robot: RobotModel, arguments: argparse.Namespace) -> None:
    """ValueError, before the data is opened, where nothing could be drawn or written."""
    check_out(arguments.out)
    if (arguments.episode or not arguments.windows) and not set(VIDEO_MODES) & set(robot.modes):
        raise ValueError(
            f"--episode, --windows 0: expected a model trained in {', '.join(VIDEO_MODES[:-1])} or "
            f"{VIDEO_MODES[-1]}, got one trained in {', '.join(robot.modes)}, which has no frames "
            "to draw; leave them out"
        )


def _entry(world: WorldModel, data: Path) -> Any:
    """The set of the mixture that the model was trained on which this is; None if it is none."""
    trained_on = world.config.get("data")
    if isinstance(trained_on, dict):
        for entry in (parse_mixture(trained_on) or {}).values():
            if Path(entry.path).resolve() == data.resolve():
                return entry
    return None


def _of_data(world: WorldModel, data: Path) -> str | None:
    """The robot that recorded one of the sets that a model of several was trained on."""
    entry = _entry(world, data)
    if len(world.robots) == 1 or entry is None or not isinstance(entry.spec, Mapping):
        return None
    return load_robot(entry.spec).name


def _held_out(world: WorldModel, robot: RobotModel, arguments: argparse.Namespace) -> WindowDataset:
    settings = world.config.get("dataset", {})
    spec, split = world.config.get("spec"), settings.get("validation_split", "train")
    if entry := _entry(world, arguments.data):  # a mixture: which of its sets is this?
        spec, split = entry.spec or spec, entry.validation_split or split
    first, *_ = robot.image_sizes.values()
    dataset = WindowDataset(
        arguments.data,
        first,
        cameras=robot.cameras,
        image_sizes=robot.image_sizes,
        split=arguments.split or split,
        horizon=robot.horizon,
        video_offsets=robot.video_offsets,
        history=len(robot.history_offsets),
        history_stride=min(robot.history_offsets, default=1),
        cache_dir=arguments.cache_dir or settings.get("cache_dir"),
        spec=robot.robot if arguments.robot or spec is None else spec,
        on_error=world.config.get("on_error", "error"),
        decoded=world.config.get("decoded", True),
    )
    for group in ("state_names", "action_names"):
        wanted, got = getattr(robot.coder, group), getattr(dataset.coder, group)
        if wanted != got[: len(wanted)]:
            raise ValueError(
                f"--data {arguments.data}: expected data of robot {robot.name} with "
                f"{', '.join(wanted)}, got {', '.join(got)}; give data of that robot"
            )
    return dataset


def run(
    world: WorldModel, robot: RobotModel, dataset: WindowDataset, arguments: argparse.Namespace
) -> dict[str, Any]:
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
        "robot": robot.name,
        "offsets": list(robot.video_offsets),
        "ahead": {},
        "strips": [],
        "videos": [],
    }
    for mode in VIDEO_MODES:
        if mode not in robot.modes:
            continue
        for number in chosen:
            draw_episode(world, robot, dataset, number, mode, arguments, out, report)
    if arguments.windows:
        report |= measure(world, robot, dataset, arguments)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "results.json", report)
    write_html(out / "index.html", report)
    return report


def draw_episode(
    world: WorldModel,
    robot: RobotModel,
    dataset: WindowDataset,
    number: int,
    mode: str,
    arguments: argparse.Namespace,
    out: Path,
    report: dict[str, Any],
) -> None:
    """A strip and a video of one episode: recorded frames above, imagined ones below, one camera
    beside the other.

    The strip shows up to 8 windows, the video every step; frames are those at the last offset that
    the episode is long enough for, which goes into `report["ahead"]` (steps, by episode). Each is
    imagined from the recorded current frame that many steps before it.
    """
    steps = np.asarray(dataset.episodes[number])
    there = np.flatnonzero(dataset.video_steps(steps)[1].any(0))
    if not len(there):
        print(
            f"imagine: episode {number}: nothing drawn, its {len(steps)} steps end before "
            f"{robot.video_offsets[0]} steps ahead",
            file=sys.stderr,
        )
        return
    last = there[-1]
    cameras = {name: ([], [], []) for name in robot.cameras}  # current, true, imagined
    for samples in _batches(robot, dataset, steps):
        valid = np.asarray(samples["video_valid"])[:, last]
        found = _generate(world, samples, mode, arguments)
        for name, (current, true, imagined) in cameras.items():
            current += list(samples[f"image/{name}"][valid])
            true += list(samples[f"video/{name}"][valid, last])
            imagined += list(found[f"video/{name}"][valid, last])
    report["ahead"][str(number)] = robot.video_offsets[last]
    name = f"episode_{number:04d}_{mode}"
    count = len(next(iter(cameras.values()))[0])
    shown = np.unique(np.linspace(0, count - 1, min(8, count)).astype(int))
    strips = [strip([[column[i] for i in shown] for column in one]) for one in cameras.values()]
    write_png(out / "strips" / f"{name}.png", beside(strips))
    report["strips"].append(f"strips/{name}.png")
    video = [
        beside([strip([[true[i], imagined[i]]], gap=0) for _, true, imagined in cameras.values()])
        for i in range(count)
    ]
    write_mp4(out / "videos" / f"{name}.mp4", video, fps=6)
    report["videos"].append(f"videos/{name}.mp4")


def measure(
    world: WorldModel, robot: RobotModel, dataset: WindowDataset, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Scores of every trained mode on the same windows drawn from all held-out episodes."""
    generator = np.random.default_rng(arguments.seed)
    steps = np.sort(generator.permutation(len(dataset))[: arguments.windows])
    episode = np.repeat(
        np.arange(len(dataset.episodes)), [len(steps) for steps in dataset.episodes]
    )[steps]
    modes = [m for m in dict.fromkeys((*VIDEO_MODES, *ACTION_MODES)) if m in robot.modes]
    parts: dict[str, list[np.ndarray]] = {}

    def keep(name: str, values: np.ndarray) -> None:
        parts.setdefault(name, []).append(np.asarray(values))

    for samples in _batches(robot, dataset, steps, "measuring"):
        keep("true video_valid", samples["video_valid"])
        if robot.coder.action_width:
            keep("true action_valid", samples["action_valid"])
            keep("true action", moves(robot, samples["action"]))
        for camera in robot.cameras:
            for kind in ("image", "video"):
                keep(f"true {kind}/{camera}", samples[f"{kind}/{camera}"])
            there = samples.get(
                f"camera_valid/{camera}", np.ones(len(samples["video_valid"]), bool)
            )
            keep(f"there/{camera}", there)
            keep(f"codec/{camera}", _restored(world, robot, samples, camera))
        for mode in modes:
            answer = _generate(world, samples, mode, arguments)
            if mode in VIDEO_MODES:
                for camera in robot.cameras:
                    keep(f"video/{camera} {mode}", answer[f"video/{camera}"])
            if mode in ACTION_MODES:
                keep(f"action {mode}", moves(robot, answer["action"]))
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    return _scores(robot, joined, episode, modes)


def moves(robot: RobotModel, action: np.ndarray) -> np.ndarray:
    """The normalised values of actions that are scaled, of all where none is: motions, without the
    commands of grippers and what ends a task."""
    normalizer = robot.normalizers["action"]
    values = normalizer.normalise(np.asarray(action)[..., : normalizer.dim])
    scaled = np.asarray(normalizer.scaled)
    return values[..., scaled] if scaled.any() else values


def _restored(
    world: WorldModel, robot: RobotModel, samples: Mapping[str, Any], camera: str
) -> np.ndarray:
    """The true future frames through the codec."""
    codec = robot.codecs[camera]
    image = torch.as_tensor(samples[f"image/{camera}"]).to(world.device)
    video = torch.as_tensor(_padded(samples, camera)).to(world.device)
    current = robot.image_codec(camera).encode(image)
    coded = codec.encode(video, reference_latents=current)
    return codec.decode(coded, reference_latents=current).cpu().numpy()


def _padded(samples: Mapping[str, Any], camera: str) -> np.ndarray:
    """The future frames, uint8 (B, F, H, W, 3), the last one repeated after the episode's end.

    A codec of clips mixes the frames of a group: black ones would spoil how it restores the real
    ones before them.
    """
    image, video = (samples[f"{kind}/{camera}"] for kind in ("image", "video"))
    frames = np.concatenate([image[:, None], video], axis=1)
    valid = np.pad(samples["video_valid"], [(0, 0), (1, 0)], constant_values=True)
    last = np.maximum.accumulate(np.where(valid, np.arange(valid.shape[1]), 0), axis=1)
    return frames[np.arange(len(frames))[:, None], last][:, 1:]


def _scores(
    robot: RobotModel, joined: dict[str, np.ndarray], episode: np.ndarray, modes: Sequence[str]
) -> dict[str, Any]:
    """{"video": scores of each camera, "action": scores}, those there are."""
    report: dict[str, Any] = {}
    shown = joined["true video_valid"]
    videos = [mode for mode in modes if mode in VIDEO_MODES]
    for camera in robot.cameras if videos else ():
        image, video = (joined[f"true {kind}/{camera}"] for kind in ("image", "video"))
        report.setdefault("video", {})[camera] = video_scores(
            image,
            video,
            shown & joined[f"there/{camera}"][:, None],
            {
                "copy": np.broadcast_to(image[:, None], video.shape),
                **{mode: joined[f"video/{camera} {mode}"] for mode in videos},
                "codec": joined[f"codec/{camera}"],
            },
            episode,
        )
    actions = {mode: joined[f"action {mode}"] for mode in modes if mode in ACTION_MODES}
    if actions:
        valid = joined["true action_valid"]
        if "inverse" in actions:  # it can only be asked for actions between frames it was shown
            valid = valid & shown.all(axis=1, keepdims=True)
        mean = np.asarray(robot.normalizers["action"].statistics.mean, np.float32)
        actions["mean"] = np.broadcast_to(moves(robot, mean), joined["true action"].shape)
        report["action"] = action_scores(joined["true action"], valid, actions, episode)
    return report


def _batches(
    robot: RobotModel, dataset: WindowDataset, steps: np.ndarray, title: str | None = None
) -> Iterator[dict[str, Any]]:
    """Samples of `steps`, BATCH at a time, under a progress bar if there is a title."""
    with Progress(len(steps), description=title or "", unit="window", quiet=title is None) as bar:
        for start in range(0, len(steps), BATCH):
            part = steps[start : start + BATCH]
            yield dataset.batch(part, video=True) | {"step": part, "robot": robot.name}
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
