"""Windows through tf.data and the rlds library: the reference for our reader.

Needs the extra `rlds` (TensorFlow); nothing else here does, and training never imports this.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from robotics.data.rlds.schema import load_tfds


def load_rlds() -> Any:
    """The rlds module.

    rlds 0.1.8 imports `reverb` for its patterns, which are not used here, and reverb does not work
    with current versions of TensorFlow: an empty module stands in for it.
    """
    try:
        import tensorflow  # noqa: F401

        if "reverb" not in sys.modules:
            sys.modules["reverb"] = _StandIn("reverb")
        import rlds
    except ImportError as error:
        raise ImportError(
            "the tf.data reference needs TensorFlow and rlds: pip install 'selfflow-wm[rlds]'"
        ) from error
    return rlds


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(name, (), {})


class _Absent(type):
    """Stands for whatever is looked up in it: rlds names parts of reverb in annotations."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(name, (), {})


def reference_windows(
    directory: str | os.PathLike[str], size: int, split: str = "train"
) -> Iterator[dict[str, Any]]:
    """A window of up to `size` steps from every step of every episode on, in the files' order.

    Args:
        directory: TFDS dataset in TFRecord files (tf.data has no reader for ArrayRecord).
        size: steps of a window; fewer where the episode ends.
        split: any read instruction.

    Returns:
        RT-1's step features as numpy arrays with a leading axis of steps; images stay encoded.
    """
    rlds, tfds = load_rlds(), load_tfds()
    data = tfds.builder_from_directory(str(directory)).as_dataset(
        split=split,
        shuffle_files=False,
        decoders={"steps": {"observation": {"image": tfds.decode.SkipDecoding()}}},
    )
    for episode in data:
        batches = rlds.transformations.batch(
            episode["steps"], size=size, shift=1, drop_remainder=False
        )
        yield from batches.as_numpy_iterator()
