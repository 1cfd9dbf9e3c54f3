"""What is measured of a robot's data set and of the policy trained on it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from websockets.sync.client import connect

from eval.policies.options import load_config
from eval.policies.remote import messages
from eval.policies.remote.server import serve_checkpoint
from robotics.data.formats import open_recording
from robotics.data.images import decode_image
from robotics.data.window_steps import action_window
from robotics.data.windows import WindowDataset
from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot
from robotics.embodiment.rotation import as_quaternion
from robotics.model.policy import Policy
from robotics.model.world_model import WorldModel
from selfflow_wm.checkpoints import find_checkpoint, read_config

STEPS = 2
"""Euler steps of every prediction, as a policy takes by default."""


@dataclass(frozen=True)
class HeldOut:
    """Error of predicted chunks on episodes that training did not see."""

    model: float
    """Mean squared error in variances of the training data."""
    mean: float
    """That of predicting the mean action."""
    gain: float
    """1 - model / mean."""
    low: float
    high: float
    """95% bootstrap interval of `gain` over episodes."""


def held_out_error(
    checkpoint: Path, data: WindowDataset, robot: str | None = None, windows: int = 256
) -> HeldOut:
    """Of the policy mode, over at most `windows` windows of `data`."""
    world = WorldModel.load(checkpoint)
    normalizer = world.robot(robot).normalizers["action"]
    statistics = normalizer.statistics
    mean, deviation = np.asarray(statistics.mean), np.asarray(statistics.std)
    varies = deviation > 1e-6
    index = np.unique(np.linspace(0, len(data) - 1, windows).astype(int))
    errors: dict[str, list[np.ndarray]] = {"model": [], "mean": []}
    for first in range(0, len(index), 32):
        part = index[first : first + 32]
        samples = data.batch(part, video=False)
        if robot is not None:
            samples["robot"] = robot
        generator = torch.Generator().manual_seed(first)
        chunk = world.generate(samples, "policy", steps=STEPS, generator=generator)["action"]
        true, valid = samples["action"], samples["action_valid"]
        for name, guess in (("model", chunk), ("mean", mean)):
            off = (np.broadcast_to(guess, true.shape) - true)[..., varies]
            scaled = np.square(off / deviation[varies]).mean(-1)
            errors[name].append((scaled * valid).sum(1) / valid.sum(1))
    rows = {name: np.concatenate(values) for name, values in errors.items()}
    return _with_interval(rows, data.episode_start[index])


def _with_interval(rows: dict[str, np.ndarray], episode: np.ndarray) -> HeldOut:
    names = np.unique(episode)
    sums = {k: np.array([v[episode == name].sum() for name in names]) for k, v in rows.items()}
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(names), (2000, len(names)))
    gains = 1 - sums["model"][drawn].sum(1) / sums["mean"][drawn].sum(1)
    low, high = np.quantile(gains, [0.025, 0.975])
    model, mean = (float(rows[name].mean()) for name in ("model", "mean"))
    return HeldOut(model, mean, 1 - model / mean, float(low), float(high))


def round_trip(data: WindowDataset) -> float:
    """Largest difference between recorded actions and what comes back of the model's values of
    them, over every chunk of `data`: of rotations the angle, rad; of other values in units of the
    largest of their part, or of 1 where that is less."""
    worst, actions = 0.0, data.recorded_action
    ends = np.array([row.stop for row in data.episodes])
    for first in range(0, len(data), 512):
        steps = np.arange(first, min(first + 512, len(data)))
        last = ends[np.searchsorted(ends, steps, side="right")]
        index, valid = action_window(steps, last, data.horizon)
        recorded, state = actions[index], data.recorded_state[steps]
        before = np.where(steps > data.episode_start[steps], steps - 1, steps)
        chunk = data.coder.chunk(recorded, state, np.zeros(index.shape, bool))
        back, _ = data.coder.recorded(chunk, state, actions[before])
        for part, place in zip(
            data.robot.action, data.robot.slices("action").values(), strict=True
        ):
            off = _difference(part, back[..., place], recorded[..., place])
            worst = max(worst, float(off[valid].max(initial=0.0)))
    return worst


def _difference(part: Part, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(..., H)."""
    if part.kind != "rotation":
        size = max(float(np.abs(other).max()), 1.0)
        return np.abs(one - other).max(-1) / size
    a, b = (as_quaternion(values * part.factor, str(part.form)) for values in (one, other))
    # 2 arcsin of half the distance is exact for small angles, arccos of the product is not.
    apart = np.minimum(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1))
    return 4 * np.arcsin(np.clip(apart / 2, 0, 1))


def windows(run: Path, data: Path, spec: str, split: str) -> WindowDataset:
    """The windows of one set as a run cut them."""
    settings = read_config(find_checkpoint(run))["training"]["dataset"]
    cut = ("horizon", "video_offsets", "history", "history_stride")
    size = settings["image_size"]
    chosen: Any = {name: settings[name] for name in cut}
    return WindowDataset(data, size, split=split, spec=spec, progress=False, **chosen)


def raw_observation(data: Path, robot: Robot) -> tuple[dict[str, Any], str]:
    """The middle step of the last episode, as recorded: frames at their own size, the state; and
    its instruction."""
    episode = list(open_recording(data, robot).episodes("train"))[-1]
    step = len(episode) // 2
    observation: dict[str, Any] = {
        camera: decode_image(images[step]) for camera, images in episode.cameras.items()
    }
    if robot.state:
        observation["state"] = episode.state[step]
    return observation, next(iter(episode.instructions[step]), "")


def acts_alike(
    checkpoint: Path, observation: dict[str, Any], instruction: str, robot: str | None = None
) -> tuple[bool, bool]:
    """Whether a policy acts on a raw recorded observation, and through the server bit for bit the
    same."""
    policy = Policy.load(checkpoint, robot=robot, steps=STEPS)
    policy.reset(instruction, seed=0)
    ours = policy.chunk(observation)
    theirs = _served(checkpoint, observation, instruction, robot)[:, : ours.shape[1]]
    return bool(np.isfinite(ours).all()), np.array_equal(ours, theirs)


def _served(
    checkpoint: Path, observation: dict[str, Any], instruction: str, robot: str | None
) -> np.ndarray:
    """A served checkpoint's chunk for the same observation."""
    config = load_config([f"policy.steps={STEPS}"])
    server = serve_checkpoint(str(checkpoint), "127.0.0.1", 0, config, robot=robot)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with connect(f"ws://127.0.0.1:{server.port}", max_size=messages.MAX_BYTES) as socket:
            socket.recv()
            request = {**observation, "prompt": instruction, "episode/seed": 0}
            socket.send(messages.pack({**request, "episode/call": 0}))
            answer = socket.recv()
            if isinstance(answer, str):
                raise RuntimeError(answer)
            return messages.unpack(answer)["actions"]
    finally:
        server.shutdown()
        thread.join()
