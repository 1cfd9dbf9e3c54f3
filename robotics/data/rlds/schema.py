"""RT-1's record (`fractal20220817_data` 0.1.0): its features, and episodes written as it.

Needs tensorflow-datasets, never TensorFlow. Files and splits are `robotics.data.rlds`; reading, of
this record and others, is `robotics.data.rlds.convert`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from robotics.data.episodes import Episode
from robotics.embodiment.columns import column

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
    """An episode as RT-1's serialised `tf.train.Example`; its table's paths are RT-1's.

    Known values are written, the rest are zeros or empty strings: attributes, base displacements,
    boxes, bounds, values "to go", `src_rotation` and `natural_language_embedding` (there is no text
    encoder here; the instruction itself is stored).

    Raises:
        ValueError: a path that RT-1 does not have, or an image that is not a JPEG of 256 x 320.
    """
    robot, steps = episode.robot, []
    commanded = episode.part("action.gripper")
    for t in range(len(episode)):
        last = t == len(episode) - 1
        done = bool(episode.terminate[t])
        action: dict[str, Any] = {
            name: np.zeros(shape, np.float32) for name, shape in _ACTION_VECTORS.items()
        }
        observation: dict[str, Any] = {
            name: np.zeros(shape, np.float32) for name, shape in _OBSERVATION_VECTORS.items()
        }
        step = {"action": action, "observation": observation}
        for group in ("state", "action"):
            for part in getattr(robot, group):
                _put(step, part.path, episode.part(f"{group}.{part.name}")[t])
        # One-hot of terminate, continue, and a third mode that arm data never uses.
        action["terminate_episode"] = np.array([done, not done, 0], np.int32)
        if t > 0:
            observation["gripper_closedness_commanded"] = commanded[t - 1]
        (image,) = (images[t] for images in episode.cameras.values())
        observation["image"] = _checked_image(image, t)
        (observation["natural_language_instruction"],) = episode.instructions[t]
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


def _put(step: dict[str, dict[str, Any]], path: str, values: np.ndarray) -> None:
    """Write a part's values where the path says."""
    place = column(path)
    group, _, name = place.name.partition("/")
    if not place.of_step or name not in step.get(group, {}):
        raise ValueError(
            f"expected paths of RT-1's features, got {path!r}; its records are written of episodes "
            "whose table extends rt1."
        )
    step[group][name][slice(None) if place.values is None else place.values] = values


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


class Leaf(NamedTuple):
    """How a feature is stored in a `tf.train.Example`."""

    kind: str
    """"bytes_list", "int64_list" or "float_list"."""
    width: int | None
    """Values of one step (or of the episode); None if that varies."""


def stored_features(features: Any) -> dict[str, Leaf]:
    """Every key of a record and how it is stored, of a `tfds.features.FeaturesDict`."""
    tfds = load_tfds().features
    return {
        key: _leaf(feature, tfds, ragged=sequences > key.startswith("steps/"))
        for key, feature, sequences in _walk(features, tfds, "", 0)
    }


def feature_shapes(features: Any) -> dict[str, str]:
    """Every key of a record and its type and shape, such as "image (256, 320, 3)"."""
    tfds = load_tfds().features
    shapes = {}
    for key, feature, _ in _walk(features, tfds, "", 0):
        kinds = ((tfds.Image, "image"), (tfds.Text, "text"))
        dtype = np.dtype(feature.np_dtype)
        name = next((name for kind, name in kinds if isinstance(feature, kind)), dtype.name)
        size = ", ".join("?" if n is None else str(n) for n in feature.shape)
        shapes[key] = f"{name} ({size})" if size else name
    return shapes


class Described(NamedTuple):
    """A feature as features.json has it."""

    kind: str
    """"image", "text", "bytes" (anything else that is stored encoded) or "numbers"."""
    dtype: str
    """numpy's name of the type."""
    shape: tuple[int | None, ...]
    """Of one step's value, or of the episode's; None where it varies."""


def described_features(features: Any) -> dict[str, Described]:
    """Every key of a record and what it holds, of a `tfds.features.FeaturesDict`."""
    tfds = load_tfds().features
    found = {}
    for key, feature, sequences in _walk(features, tfds, "", 0):
        inner = sequences - key.startswith("steps/")
        leaf = _leaf(feature, tfds, ragged=inner > 0)
        kind = "numbers" if leaf.kind != "bytes_list" else "bytes"
        kind = "text" if isinstance(feature, tfds.Text) else kind
        kind = "image" if isinstance(feature, tfds.Image) else kind
        shape = (None,) * inner + tuple(feature.shape)
        found[key] = Described(kind, np.dtype(feature.np_dtype).name, shape)
    return found


def _walk(feature: Any, tfds: Any, prefix: str, sequences: int) -> Iterator[tuple[str, Any, int]]:
    """Leaves of a feature: key, feature, number of sequences around it."""
    inner = getattr(feature, "feature", None)  # a Dataset or Sequence around another feature
    if isinstance(feature, tfds.FeaturesDict):
        for name, value in feature.items():
            yield from _walk(value, tfds, f"{prefix}/{name}" if prefix else name, sequences)
    elif inner is not None and not isinstance(feature, tfds.Tensor):
        yield from _walk(inner, tfds, prefix, sequences + 1)
    else:
        yield prefix, feature, sequences


def _leaf(feature: Any, tfds: Any, ragged: bool) -> Leaf:
    dtype = np.dtype(feature.np_dtype)
    encoded = getattr(feature, "_encoding", None)
    as_bytes = isinstance(feature, (tfds.Image, tfds.Text)) or (
        encoded is not None and getattr(encoded, "value", encoded) not in ("none", None)
    )
    if as_bytes or dtype.kind in "OSU":
        return Leaf("bytes_list", None if ragged else 1)
    kind = "float_list" if dtype.kind not in "biu" else "int64_list"
    shape = feature.shape
    return Leaf(kind, None if ragged or None in shape else int(np.prod(shape, dtype=np.int64)))


@functools.cache
def rt1_stored() -> dict[str, Leaf]:
    """`stored_features` of RT-1."""
    return stored_features(rt1_features())
