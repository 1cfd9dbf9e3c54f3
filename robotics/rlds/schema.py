"""RT-1's record (`fractal20220817_data` 0.1.0): its features, and episodes to and from it.

Needs tensorflow-datasets, never TensorFlow. Files and splits are `robotics.rlds`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from robotics.episodes import Episode

DATASET_NAME = "fractal20220817_data"
DATASET_VERSION = "0.1.0"
IMAGE_SHAPE = (256, 320, 3)

_ATTRIBUTES = (
    "collection_mode", "data_type", "env", "location", "objects_family", "task_family",
)  # fmt: skip
_OBSERVATION_VECTORS = {
    "base_pose_tool_reached": (7,),
    "gripper_closed": (1,),
    "gripper_closedness_commanded": (1,),
    "height_to_bottom": (1,),
    "natural_language_embedding": (512,),
    "orientation_box": (2, 3),
    "orientation_start": (4,),
    "robot_orientation_positions_box": (3, 3),
    "rotation_delta_to_go": (3,),
    "src_rotation": (4,),
    "vector_to_go": (3,),
    "workspace_bounds": (3, 3),
}
_ACTION_VECTORS = {
    "base_displacement_vector": (2,),
    "base_displacement_vertical_rotation": (1,),
    "gripper_closedness_action": (1,),
    "rotation_delta": (3,),
    "world_vector": (3,),
}


def load_tfds() -> Any:
    """The tensorflow-datasets module (which does not load TensorFlow until it must)."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            "RLDS data needs tensorflow-datasets: pip install tensorflow-datasets"
        ) from error
    return tensorflow_datasets


@functools.cache
def rt1_features() -> Any:
    """RT-1's `tfds.features.FeaturesDict`, key by key."""
    features = load_tfds().features

    def vector(shape: tuple[int, ...]) -> Any:
        return features.Tensor(shape=shape, dtype=np.float32)

    action = {name: vector(shape) for name, shape in _ACTION_VECTORS.items()}
    observation = {name: vector(shape) for name, shape in _OBSERVATION_VECTORS.items()}
    aspects = ("already_success", "feasible", "has_aspects", "success", "undesirable")
    attributes: dict[str, Any] = {}
    for name in _ATTRIBUTES:
        attributes |= {name: np.int64, f"{name}_name": features.Text()}
    return features.FeaturesDict(
        {
            "aspects": dict.fromkeys(aspects, np.bool_),
            "attributes": attributes,
            "steps": features.Dataset(
                {
                    "action": {
                        **action,
                        "terminate_episode": features.Tensor(shape=(3,), dtype=np.int32),
                    },
                    "is_first": np.bool_,
                    "is_last": np.bool_,
                    "is_terminal": np.bool_,
                    "observation": {
                        **observation,
                        "image": features.Image(shape=IMAGE_SHAPE, encoding_format="jpeg"),
                        "natural_language_instruction": features.Text(),
                    },
                    "reward": features.Scalar(np.float32),
                }
            ),
        }
    )


def encode_episode(episode: Episode) -> bytes:
    """An episode as RT-1's serialised `tf.train.Example`.

    Known values are written, the rest are zeros or empty strings: attributes, base displacements,
    boxes, bounds, values "to go", `src_rotation` and `natural_language_embedding` (there is no text
    encoder here; the instruction itself is stored).

    Raises:
        ValueError: an image is not a JPEG of 256 x 320.
    """
    steps = []
    for t in range(len(episode)):
        last = t == len(episode) - 1
        done = bool(episode.terminate[t])
        action: dict[str, Any] = {
            name: np.zeros(shape, np.float32) for name, shape in _ACTION_VECTORS.items()
        }
        action["world_vector"] = episode.world_vector[t]
        action["rotation_delta"] = episode.rotation_delta[t]
        action["gripper_closedness_action"] = episode.gripper[t : t + 1]
        # One-hot of terminate, continue, and a third mode that arm data never uses.
        action["terminate_episode"] = np.array([done, not done, 0], np.int32)
        observation: dict[str, Any] = {
            name: np.zeros(shape, np.float32) for name, shape in _OBSERVATION_VECTORS.items()
        }
        observation["base_pose_tool_reached"] = episode.tool_pose[t]
        observation["gripper_closed"] = episode.gripper_closed[t : t + 1]
        if t > 0:
            observation["gripper_closedness_commanded"] = episode.gripper[t - 1 : t]
        observation["image"] = _checked_image(episode.images[t], t)
        observation["natural_language_instruction"] = episode.instruction[t]
        steps.append(
            {
                "action": action,
                "is_first": t == 0,
                "is_last": last,
                "is_terminal": last and done,
                "observation": observation,
                "reward": episode.reward[t],
            }
        )
    attributes: dict[str, Any] = {}
    for name in _ATTRIBUTES:
        attributes |= {name: 0, f"{name}_name": ""}
    aspects = {
        "already_success": False,
        "feasible": True,
        "has_aspects": True,
        "success": episode.success,
        "undesirable": False,
    }
    return rt1_features().serialize_example(
        {"aspects": aspects, "attributes": attributes, "steps": steps}
    )


def _checked_image(image: bytes, step: int) -> bytes:
    import simplejpeg

    expected = f"expected a JPEG of {IMAGE_SHAPE[0]} x {IMAGE_SHAPE[1]} at step {step}"
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(image)
    except ValueError as error:
        raise ValueError(f"{expected}, got {error}.") from error
    if (height, width) != IMAGE_SHAPE[:2]:
        raise ValueError(f"{expected}, got {height} x {width}; render or resize to that size.")
    return image


def decode_episode(record: bytes, where: str = "record") -> Episode:
    """The inverse of `encode_episode`, for any record with RT-1's keys.

    Parses the `Example` directly and takes only the columns an `Episode` has: decoding all of
    RT-1's features costs several times as much, and its images are wanted encoded.

    Args:
        record: serialised `tf.train.Example`.
        where: file and record, for the messages.
    """
    load_tfds()
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        example = tf_example_pb2.Example.FromString(record)  # pyright: ignore
        columns = example.features.feature
    except DecodeError as error:
        raise ValueError(f"{where}: expected a tf.train.Example, got {error}.") from error

    def column(key: str, kind: str) -> Any:
        # `in` first: indexing a protobuf map would insert the key.
        if key not in columns or columns[key].WhichOneof("kind") != kind:
            got = columns[key].WhichOneof("kind") if key in columns else "no such key"
            raise ValueError(
                f"{where}: expected {key!r} as {kind}, got {got}; "
                f"the data must have the features of {DATASET_NAME}."
            )
        return getattr(columns[key], kind).value

    success = column("aspects/success", "int64_list")
    if len(success) != 1:
        raise ValueError(f"{where}: expected one value of 'aspects/success', got {len(success)}.")
    images = list(column("steps/observation/image", "bytes_list"))
    text = column("steps/observation/natural_language_instruction", "bytes_list")

    def array(key: str, width: int, kind: str = "float_list") -> np.ndarray:
        values = np.array(column(key, kind))
        if values.size != len(images) * width:
            raise ValueError(
                f"{where}: expected {width} values of {key!r} for each of {len(images)} images, "
                f"got {values.size} in all."
            )
        return values.reshape(len(images), width)

    arrays = {
        "world_vector": array("steps/action/world_vector", 3),
        "rotation_delta": array("steps/action/rotation_delta", 3),
        "gripper": array("steps/action/gripper_closedness_action", 1)[:, 0],
        "terminate": array("steps/action/terminate_episode", 3, "int64_list")[:, 0] == 1,
        "tool_pose": array("steps/observation/base_pose_tool_reached", 7),
        "gripper_closed": array("steps/observation/gripper_closed", 1)[:, 0],
        "reward": array("steps/reward", 1)[:, 0],
    }
    try:
        instruction = [value.decode("utf-8") for value in text]
        return Episode(images, instruction, **arrays, success=bool(success[0]))
    except ValueError as error:  # of the episode's own checks, or undecodable text
        raise ValueError(f"{where}: {error}") from error
