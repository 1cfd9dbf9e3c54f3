"""Tiny RLDS data sets as public ones are laid out, with the tables that read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from robotics.data.images import encode_image
from robotics.data.rlds.fake import write_dataset

F = tfds.features
SIZES = {"image": (24, 32), "wrist": (20, 20)}


def jpeg(value: float, size: tuple[int, int]) -> bytes:
    """A smooth picture, brighter to the right, whose top left corner is dark."""
    height, width = size
    ramp = np.linspace(0, 120, width)[None, :, None] * np.ones((height, 1, 3))
    image = np.clip(ramp + 40 + value, 0, 255).astype(np.uint8)
    image[: height // 3, : width // 3] = 0
    return encode_image(image)


def picture(size: tuple[int, int]) -> Any:
    return F.Image(shape=(*size, 3), encoding_format="jpeg")


def vector(count: int, dtype: Any = np.float32) -> Any:
    return F.Tensor(shape=(count,), dtype=dtype)


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def bridge(directory: Path, lengths=(6, 5, 7, 4), **changes: Any) -> Path:
    """BridgeData V2: two cameras, one of them in every other episode; openness; a first action of
    zero; some episodes without an instruction."""
    features = F.FeaturesDict(
        {
            "steps": F.Dataset(
                {
                    "action": vector(7),
                    "observation": {
                        "image_0": picture(SIZES["image"]),
                        "image_1": picture(SIZES["image"]),
                        "state": vector(7),
                    },
                    "language_instruction": F.Text(),
                    "is_last": np.bool_,
                }
            ),
            "episode_metadata": {"has_image_1": np.bool_, "file_path": F.Text()},
        }
    )
    examples = []
    for number, length in enumerate(lengths):
        rng = np.random.default_rng(number)
        action = rng.normal(0, 0.02, (length, 7))
        action[:1], action[:, 6] = 0, np.arange(length) % 3 > 0
        state = rng.normal(0.3, 0.1, (length, 7))
        state[:, 6] = rng.uniform(0, 1, length)
        text = "" if number % 4 == 3 else f"put the spoon on towel {number}"
        steps = [
            {
                "action": action[t].astype(np.float32),
                "observation": {
                    "image_0": jpeg(5 * t + number, SIZES["image"]),
                    "image_1": jpeg(100 if number % 2 == 0 else -200, SIZES["image"]),
                    "state": state[t].astype(np.float32),
                },
                "language_instruction": text,
                "is_last": t == length - 1,
            }
            for t in range(length)
        ]
        place = f"/data/{'success' if number != 1 else 'failure'}/{number}.npy"
        meta = {"has_image_1": number % 2 == 0, "file_path": place}
        examples.append({"steps": steps, "episode_metadata": meta})
    return write_dataset(directory, features, examples, **changes)


BRIDGE: dict[str, Any] = {
    "name": "bridge_dataset",
    "rate": 5,
    "cameras": {
        "primary": "observation/image_0",
        "side": {"path": "observation/image_1", "present": "/episode_metadata/has_image_1"},
    },
    "state": {
        "position": {"path": "observation/state[0:3]", "kind": "position"},
        "rotation": {"path": "observation/state[3:6]", "kind": "rotation", "form": "euler_xyz"},
        "gripper": {"path": "observation/state[6]", "kind": "gripper", "open": 1, "closed": 0},
    },
    "action": {
        "position": {"path": "action[0:3]", "kind": "position", "mode": "delta"},
        "rotation": {
            "path": "action[3:6]",
            "kind": "rotation",
            "form": "euler_xyz",
            "mode": "delta",
        },
        "gripper": {
            "path": "action[6]",
            "kind": "gripper",
            "mode": "absolute",
            "open": 1,
            "closed": 0,
        },
    },
    "instruction": "language_instruction",
    "steps": {"drop_first": 1},
    "window": {"horizon": 4, "video_offsets": [1, 2]},
}


def droid(directory: Path, lengths=(6, 5, 4), **changes: Any) -> Path:
    """DROID: three cameras, float64, absolute joints, three instructions of which some are empty;
    what succeeded is in the path."""
    cameras = {"exterior_image_1_left": "image", "wrist_image_left": "wrist"}
    texts = ("language_instruction", "language_instruction_2", "language_instruction_3")
    features = F.FeaturesDict(
        {
            "steps": F.Dataset(
                {
                    "action_dict": {
                        "joint_position": vector(7, np.float64),
                        "gripper_position": vector(1, np.float64),
                    },
                    "observation": {
                        "joint_position": vector(7, np.float64),
                        "gripper_position": vector(1, np.float64),
                        **{name: picture(SIZES[size]) for name, size in cameras.items()},
                    },
                    **dict.fromkeys(texts, F.Text()),
                    "is_last": np.bool_,
                }
            ),
            "episode_metadata": {"file_path": F.Text()},
        }
    )
    examples = []
    for number, length in enumerate(lengths):
        rng = np.random.default_rng(100 + number)
        joints = np.cumsum(rng.normal(0, 0.05, (length + 1, 7)), axis=0)
        said = ("pick up the cup", "", "lift the cup") if number != 2 else ("", "", "")
        steps = [
            {
                "action_dict": {
                    "joint_position": joints[t + 1],
                    "gripper_position": np.array([t % 2], np.float64),
                },
                "observation": {
                    "joint_position": joints[t],
                    "gripper_position": np.array([(t % 4) / 4]),
                    **{name: jpeg(7 * t, SIZES[size]) for name, size in cameras.items()},
                },
                **dict(zip(texts, said, strict=True)),
                "is_last": t == length - 1,
            }
            for t in range(length)
        ]
        place = f"/nfs/{'success' if number != 1 else 'failure'}/{number}/trajectory.h5"
        examples.append({"steps": steps, "episode_metadata": {"file_path": place}})
    return write_dataset(directory, features, examples, **changes)


DROID: dict[str, Any] = {
    "name": "droid",
    "rate": 15,
    "cameras": {
        "exterior": "observation/exterior_image_1_left",
        "wrist": {"path": "observation/wrist_image_left", "view": "wrist", "rotate": 180},
    },
    "state": {
        "joints": {"path": "observation/joint_position[0:7]", "kind": "joints"},
        "gripper": {"path": "observation/gripper_position", "kind": "gripper"},
    },
    "action": {
        "joints": {
            "path": "action_dict/joint_position[0:7]",
            "kind": "joints",
            "mode": "absolute",
        },
        "gripper": {
            "path": "action_dict/gripper_position",
            "kind": "gripper",
            "mode": "absolute",
            "continuous": True,
        },
    },
    "instruction": [
        "language_instruction",
        "language_instruction_2",
        "language_instruction_3",
    ],
    "filters": [{"path": "/episode_metadata/file_path", "contains": "success"}],
    "window": {"horizon": 3, "video_offsets": [2]},
}


def language_table(directory: Path, lengths=(5, 4), **changes: Any) -> Path:
    """Language-Table: a planar effector; the instruction is a vector of characters."""
    features = F.FeaturesDict(
        {
            "steps": F.Dataset(
                {
                    "action": vector(2),
                    "observation": {
                        "rgb": picture((18, 32)),
                        "effector_translation": vector(2),
                        "instruction": vector(24, np.int32),
                    },
                    "is_last": np.bool_,
                }
            )
        }
    )
    examples = []
    for number, length in enumerate(lengths):
        rng = np.random.default_rng(200 + number)
        code = np.zeros(24, np.int32)
        text = f"push the cube {number} à gauche"
        code[: len(text)] = [ord(letter) for letter in text]
        steps = [
            {
                "action": rng.normal(0, 0.03, 2).astype(np.float32),
                "observation": {
                    "rgb": jpeg(3 * t, (18, 32)),
                    "effector_translation": rng.normal(0, 0.2, 2).astype(np.float32),
                    "instruction": code,
                },
                "is_last": t == length - 1,
            }
            for t in range(length)
        ]
        examples.append({"steps": steps})
    return write_dataset(directory, features, examples, **changes)


LANGUAGE_TABLE: dict[str, Any] = {
    "name": "language_table",
    "rate": 10,
    "cameras": {"front": "observation/rgb"},
    "state": {
        "effector": {"path": "observation/effector_translation[0:2]", "kind": "other", "unit": "m"}
    },
    "action": {"effector": {"path": "action[0:2]", "kind": "other", "mode": "delta", "unit": "m"}},
    "instruction": {"paths": ["observation/instruction"], "encoding": "characters"},
}


def video(directory: Path, lengths=(5, 4), **changes: Any) -> Path:
    """Video alone: no action, no state, no instruction."""
    features = F.FeaturesDict(
        {"steps": F.Dataset({"observation": {"image": picture((16, 16))}, "is_last": np.bool_})}
    )
    examples = [
        {
            "steps": [
                {"observation": {"image": jpeg(9 * t + number, (16, 16))}, "is_last": False}
                for t in range(length)
            ]
        }
        for number, length in enumerate(lengths)
    ]
    return write_dataset(directory, features, examples, **changes)


VIDEO: dict[str, Any] = {
    "name": "play_video",
    "rate": 10,
    "cameras": {"front": "observation/image"},
    "window": {"horizon": 2, "video_offsets": [1, 3]},
}
