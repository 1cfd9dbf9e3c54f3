"""A made-up RT-1 data set of any size, with JPEGs as large as RT-1's (about 30 kB)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from robotics.data.episodes import Episode
from robotics.data.images import encode_image
from robotics.data.rlds import arrayrecord
from robotics.data.rlds.schema import IMAGE_SHAPE
from robotics.data.rlds.writer import EpisodeWriter
from robotics.embodiment.tables import shipped
from selfflow_wm.files import atomic_directory

POOL = 64
"""Different images; steps go through them, so decoding is real and making them is not the cost."""


def made_set(root: Path, episodes: int, steps: int, shard_episodes: int = 20) -> Path:
    """The directory of a TFRecord set below `root`, made if it is not there: `episodes` episodes of
    `steps` steps each."""
    directory = root / f"{episodes}x{steps}"
    if not (directory / "dataset_info.json").is_file():
        with atomic_directory(directory) as temporary:
            _write(temporary, episodes, steps, shard_episodes)
    return directory


def as_array_record(directory: Path) -> Path:
    """The same set in ArrayRecord files beside it."""
    out = directory.with_name(directory.name + "-array_record")
    if not (out / "dataset_info.json").is_file():
        arrayrecord.repack(directory, out)
    return out


def _write(directory: Path, episodes: int, steps: int, shard_episodes: int) -> None:
    images = [_image(seed) for seed in range(POOL)]
    writer = EpisodeWriter(directory, shard_episodes=shard_episodes)
    for number in range(episodes):
        writer.write(number, _episode(number, steps, images))
    writer.finalize()


def _image(seed: int) -> bytes:
    """Smooth shapes and some texture: at quality 95 as many bytes as RT-1's."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(2, *IMAGE_SHAPE)).astype(np.float32)
    image = 600 * cv2.GaussianBlur(noise[0], (0, 0), 6) + 30 * cv2.GaussianBlur(
        noise[1], (0, 0), 1.2
    )
    return encode_image(np.clip(image + 128, 0, 255).astype(np.uint8))


def _episode(number: int, steps: int, images: list[bytes]) -> Episode:
    generator = np.random.default_rng([number, 1])
    pose = generator.normal(size=(steps, 7))
    pose[:, 3:] /= np.linalg.norm(pose[:, 3:], axis=1, keepdims=True)
    motion = generator.normal(0, 0.02, (steps, 3))
    turn = generator.normal(0, 0.05, (steps, 3))
    gripper = generator.choice([-1.0, 1.0], steps)
    return Episode(
        shipped(),
        {"head": [images[(17 * number + step) % len(images)] for step in range(steps)]},
        state=np.column_stack([pose, generator.uniform(size=steps)]),
        action=np.column_stack([motion, turn, gripper]),
        instructions=[(f"pick thing {number % 50}",)] * steps,
        terminate=np.arange(steps) == steps - 1,
        reward=np.arange(steps) == steps - 1,
    )
