"""Small made-up RT-1 datasets, for tests and for trying things without data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robotics.control import Action
from robotics.episodes import Episode, EpisodeRecorder
from robotics.rlds.writer import EpisodeWriter

INSTRUCTIONS = ("open top drawer", "place apple into top drawer")


def fake_episode(seed: int, steps: int = 12, switch: int | None = 7) -> Episode:
    """Smooth random images and motions; from step `switch` on the second instruction."""
    rng = np.random.default_rng(seed)
    recorder = EpisodeRecorder()
    ramp = np.linspace(0, 200, 256)[:, None, None] * np.ones((1, 320, 3))
    for t in range(steps):
        quaternion = rng.normal(size=4)
        observation = {
            "image": (ramp + rng.uniform(0, 50, (1, 1, 3))).astype(np.uint8),
            "tool_pose": np.concatenate(
                [rng.normal(size=3), quaternion / np.linalg.norm(quaternion)]
            ).astype(np.float32),
            "gripper_closed": rng.uniform(size=1).astype(np.float32),
        }
        control = np.append(rng.normal(0, 0.1, 6), rng.choice([-1.0, 1.0])).astype(np.float32)
        second = switch is not None and t >= switch
        terminate = t == steps - 1 or (switch is not None and t == switch - 1)
        recorder.add(
            observation, Action(control, terminate), INSTRUCTIONS[second], float(t == steps - 1)
        )
    return recorder.build(success=seed % 2 == 0)


def fake_dataset(
    directory: Path, lengths: Sequence[int] = (12, 9, 15, 8), shard_episodes: int = 3
) -> Path:
    """A finalized dataset; episode with seed i has `lengths[i]` steps and switches at step 7."""
    writer = EpisodeWriter(directory, shard_episodes=shard_episodes, provenance={"simulator": "no"})
    for seed, steps in enumerate(lengths):
        writer.write(seed, fake_episode(seed, steps), seed=seed)
    writer.finalize()
    return directory
