"""Small made-up datasets, RT-1's and others, for tests and for trying things without data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robotics.data.episodes import Episode, EpisodeRecorder
from robotics.data.rlds import arrayrecord, tfrecord
from robotics.data.rlds.writer import EpisodeWriter
from robotics.embodiment.control import Action

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


def write_dataset(
    directory: Path,
    features: Any,
    examples: Sequence[dict[str, Any]],
    *,
    name: str = "made_up",
    shard_episodes: int = 2,
    file_format: str = "tfrecord",
) -> Path:
    """Any TFDS dataset with one split, "train".

    Args:
        directory: new or empty.
        features: a `tfds.features.FeaturesDict`.
        examples: what it serialises, one dictionary an episode.
        name: of the dataset and its files.
        shard_episodes: most episodes of a shard.
        file_format: "tfrecord" or "array_record".
    """
    records = [features.serialize_example(example) for example in examples]
    groups = [records[i : i + shard_episodes] for i in range(0, len(records), shard_episodes)]
    directory.mkdir(parents=True, exist_ok=True)
    for shard, group in enumerate(groups):
        path = directory / f"{name}-train.{file_format}-{shard:05d}-of-{len(groups):05d}"
        if file_format == "array_record":
            arrayrecord.write(path, group)
        else:
            path.write_bytes(b"".join(map(tfrecord.frame, group)))
    split = {
        "name": "train",
        "shardLengths": [str(len(group)) for group in groups],
        "numBytes": str(sum(map(len, records))),
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    info = {"name": name, "version": "1.0.0", "fileFormat": file_format, "splits": [split]}
    (directory / "features.json").write_text(json.dumps(features.to_json()))
    (directory / "dataset_info.json").write_text(json.dumps(info))
    return directory
