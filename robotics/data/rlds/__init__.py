"""TFDS datasets in RT-1's format, written and read without TensorFlow.

What is written opens with `tfds.builder_from_directory(directory)`, and `as_dataset` works where
TensorFlow is installed. The published RT-1 data is read by the same code. Only this package touches
tensorflow-datasets.
"""

from robotics.data.rlds.reader import EpisodeReader
from robotics.data.rlds.writer import EpisodeWriter

__all__ = ["EpisodeReader", "EpisodeWriter"]
