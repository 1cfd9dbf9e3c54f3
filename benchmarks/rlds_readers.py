"""The contenders of `benchmarks.rlds`: batches of 9-frame windows from one process each.

Run by `benchmarks.rlds`, one process a contender: NAME and a JSON of settings as arguments; every
line on stdin asks for that many batches, every reply is a line of JSON. Each window is 9 frames
(the current and the 8 next) at the training size, their actions, and the first step's
proprioception and instruction; windows that the episode's end cuts are left out by all. A batch
has at least image/head uint8 (B, 9, H, W, 3), or its first frames as that (B, H, W, 3) and the
others as video/head (B, 8, H, W, 3), and action (B, 8 or 9, ...), the motion first.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

FRAMES = 9
OURS = {  # what frames come from, whether windows come in groups of episodes
    f"ours, {source}, {order}": (source, order == "groups")
    for source in ("JPEG", "draft", "pixels")
    for order in ("groups", "random")
}


def ours(name: str, a: Any) -> Iterator[dict[str, np.ndarray]]:
    """The toolkit's reader."""
    from robotics.data.streams import WindowStream
    from robotics.data.windows import WindowDataset

    source, grouped = OURS[name]
    dataset = WindowDataset(
        a.directory,
        a.size,
        horizon=FRAMES - 1,
        video_offsets=range(1, FRAMES),
        threads=a.threads,
        decoded=source == "pixels",
        draft=source == "draft",
        frame_cache_mb=a.cache_mb,
        progress=False,
    )
    whole = dataset.video_steps(np.arange(len(dataset)))[1].all(1)
    keep = np.flatnonzero(whole)
    stream = WindowStream(dataset, 0, keep, group=a.group if grouped else None)
    while True:
        yield stream.batch(a.batch)


def all_frames(batch: dict[str, np.ndarray]) -> np.ndarray:
    """A batch's frames uint8 (B, 9, H, W, 3)."""
    if "video/head" not in batch:
        return batch["image/head"]
    return np.concatenate([batch["image/head"][:, None], batch["video/head"]], axis=1)


def _motion(action: Any, join: Any) -> Any:
    """A step's or an episode's commands in one array; join: of numpy or TensorFlow."""
    names = ("world_vector", "rotation_delta", "gripper_closedness_action")
    return join([action[name] for name in names], -1)


def data_source(_: str, a: Any) -> Iterator[dict[str, np.ndarray]]:
    """tfds.data_source as documented: random access to episodes, whose steps decode when read."""
    import tensorflow_datasets as tfds

    from robotics.data.images import resize_image

    builder: Any = tfds.builder_from_directory(a.array_record)
    source = builder.as_data_source("train")
    windows = a.steps - FRAMES + 1
    generator, size = np.random.default_rng(0), tuple(a.size)
    while True:
        order = generator.permutation(len(source) * windows)
        for rows in order[: len(order) // a.batch * a.batch].reshape(-1, a.batch):
            images, actions = [], []
            for episode, first in zip(*divmod(rows, windows), strict=True):
                steps = source[int(episode)]["steps"]
                window = [steps[int(first) + i] for i in range(FRAMES)]
                frames = [resize_image(step["observation"]["image"], size) for step in window]
                images.append(np.stack(frames))
                actions.append(
                    np.stack([_motion(step["action"], np.concatenate) for step in window])
                )
            yield {"image/head": np.stack(images), "action": np.stack(actions)}


def dlimp_style(_: str, a: Any) -> Iterator[dict[str, np.ndarray]]:
    """tf.data as Octo trains: an episode as tensors, chunked into windows whose images are still
    encoded, shuffled, and only then every frame of every window decoded and resized (Lanczos)."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    auto = tf.data.AUTOTUNE

    def chunk(episode: Any) -> Any:
        steps = episode["steps"]
        view, action = steps["observation"], steps["action"]
        count = tf.shape(view["image"])[0]
        index = tf.range(count - FRAMES + 1)[:, None] + tf.range(FRAMES)
        return {
            "image/head": tf.gather(view["image"], index),
            "action": tf.gather(_motion(action, tf.concat), index),
            "proprio": tf.gather(view["base_pose_tool_reached"], index[:, 0]),
            "text": tf.gather(view["natural_language_instruction"], index[:, 0]),
        }

    def frame(data: Any) -> Any:
        image = tf.io.decode_image(data, expand_animations=False, dtype=tf.uint8)
        image = tf.image.resize(image, a.size, method="lanczos3", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

    def decode(window: Any) -> Any:
        frames = tf.stack([frame(data) for data in tf.unstack(window["image/head"], num=FRAMES)])
        return window | {"image/head": frames}

    builder: Any = tfds.builder_from_directory(a.directory)
    data = builder.as_dataset(
        split="train", shuffle_files=True, decoders={"steps": tfds.decode.SkipDecoding()}
    )
    data = data.repeat().map(chunk, num_parallel_calls=auto)
    data = data.flat_map(tf.data.Dataset.from_tensor_slices).shuffle(a.buffer)
    data = data.map(decode, num_parallel_calls=auto).batch(a.batch).prefetch(1)
    yield from data.as_numpy_iterator()


def rlds_tuned(_: str, a: Any) -> Iterator[dict[str, np.ndarray]]:
    """tf.data and rlds with each frame decoded once, straight to half size, before windows."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from robotics.data.rlds.tfdata import load_rlds

    rlds, auto = load_rlds(), tf.data.AUTOTUNE

    def step(row: Any) -> Any:
        view, action = row["observation"], row["action"]
        image = tf.io.decode_jpeg(view["image"], ratio=2)
        return {
            "image/head": tf.ensure_shape(image, (*a.size, 3)),
            "action": _motion(action, tf.concat),
            "proprio": view["base_pose_tool_reached"],
            "text": view["natural_language_instruction"],
        }

    def windows(episode: Any) -> Any:
        steps = episode["steps"].map(step, num_parallel_calls=auto)
        return rlds.transformations.batch(steps, size=FRAMES, shift=1, drop_remainder=True)

    skip = {"steps": {"observation": {"image": tfds.decode.SkipDecoding()}}}
    builder: Any = tfds.builder_from_directory(a.directory)
    data = builder.as_dataset(split="train", shuffle_files=True, decoders=skip).repeat()
    data = data.interleave(windows, cycle_length=4, num_parallel_calls=auto)
    yield from data.shuffle(a.buffer).batch(a.batch).prefetch(1).as_numpy_iterator()


CONTENDERS: dict[str, Callable[[str, Any], Iterator[dict[str, np.ndarray]]]] = {
    **dict.fromkeys(OURS, ours),
    "octo/dlimp style": dlimp_style,
    "tfds.data_source": data_source,
    "tf.data + rlds tuned": rlds_tuned,
}
NEEDS_TENSORFLOW = ("octo/dlimp style", "tf.data + rlds tuned")


def memory() -> dict[str, float]:
    """Resident MB of this process: now and at most. Of the present program alone, where /proc is
    there (`ru_maxrss` may hold that of the process it was started from)."""
    status = Path("/proc/self/status")
    if not status.is_file():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"rss": peak, "peak": peak}
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return {k: int(lines[v].split()[0]) / 1024 for k, v in (("rss", "VmRSS"), ("peak", "VmHWM"))}


def cpu() -> float:
    """CPU seconds of all threads of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def serve(name: str, settings: dict[str, Any]) -> None:
    """Answer on stdout what is asked for on stdin."""
    a = SimpleNamespace(**settings)
    batches = CONTENDERS[name](name, a)
    expected = a.batch * FRAMES * a.size[0] * a.size[1] * 3
    seen = cpu()
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            batch = next(batches)
            size = sum(batch[key].size for key in ("image/head", "video/head") if key in batch)
            assert size == expected, f"{name}: expected {expected} bytes of frames, got {size}"
        used = cpu()
        # From reply to reply: what a prefetching thread does in between counts too.
        reply = {"wall": time.perf_counter() - began, "cpu": used - seen, **memory()}
        seen = used
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
