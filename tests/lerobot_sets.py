"""Small LeRobot data sets whose every picture says which step it is of."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq

from robotics.data.images import encode_image
from robotics.data.lerobot.info import Feature
from robotics.data.lerobot.writer import LeRobotWriter

SIZE = (96, 128)
AXES = ("height", "width", "channels")
JOINTS = ("shoulder_pan.pos", "elbow_flex.pos", "gripper.pos")
TOP, WRIST = "observation.images.top", "observation.images.wrist"


def numbered(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture that `number_of` reads, also after lossy compression."""
    frame = np.full((*size, 3), 40, np.uint8)
    height, width = size
    for bit in range(10):
        if number >> bit & 1:
            first = (4 + bit * 12) * width // 128
            frame[height // 4 : height * 3 // 4, first : first + 10 * width // 128] = 220
    return frame


def number_of(frame: np.ndarray) -> int:
    height, width = frame.shape[:2]
    cells = [
        frame[height * 2 // 5 : height * 3 // 5, (6 + bit * 12) * width // 128 :][
            :, : 6 * width // 128
        ]
        for bit in range(10)
    ]
    return sum(1 << bit for bit, cell in enumerate(cells) if cell.mean() > 128)


def write_video(path: Path, numbers, fps: float, codec: str = "libsvtav1", **options: str) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, fps, options=options)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for number in numbers:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), "rgb24")))
        file.mux(stream.encode())


def write_set(
    directory: Path,
    lengths=(11, 7, 25, 9),
    *,
    fps: float = 10,
    kinds=("video", "image"),
    codec: str = "av1",
    file_frames: int = 30,
) -> list[dict]:
    """Write a data set; the columns of its episodes. Pictures are numbered over all episodes, and
    the wrist's are 200 ahead."""
    features = [
        Feature("observation.state", "float32", (3,), JOINTS),
        Feature("action", "float32", (3,), JOINTS),
        Feature("observation.torque", "float64", (2, 3)),
        Feature("next.reward", "float32", (1,)),
        Feature("next.done", "bool", (1,)),
        Feature("note", "string", (1,)),
        Feature(TOP, kinds[0], (*SIZE, 3), AXES),
        Feature(WRIST, kinds[1], (*SIZE, 3), AXES),
    ]
    writer = LeRobotWriter(
        directory,
        {row.name: row for row in features},
        fps,
        robot_type="so101_follower",
        codec=codec,
        file_frames=file_frames,
    )
    rng, first, episodes = np.random.default_rng(0), 0, []
    for number, steps in enumerate(lengths):
        state = np.float32(rng.uniform(-90, 90, (steps, 3)))
        state[:, 2] = rng.uniform(0, 100, steps)
        columns = {
            "observation.state": state,
            "action": state + np.float32([1, 2, 0]),
            "observation.torque": np.float32(rng.normal(size=(steps, 2, 3))).astype(np.float64),
            "next.reward": np.arange(steps),
            "next.done": np.arange(steps) == steps - 1,
            "note": [f"step {step} — é" for step in range(steps)],
        }
        for camera, kind, ahead in ((TOP, kinds[0], 0), (WRIST, kinds[1], 200)):
            frames = [numbered(first + step + ahead) for step in range(steps)]
            columns[camera] = frames if kind == "video" else [encode_image(f) for f in frames]
        tasks = [f"task {number % 3}"] * steps
        writer.add(columns, tasks, {"success": number % 2 == 0, "file": f"{number}.h5"})
        episodes.append({**columns, "task": tasks})
        first += steps
    writer.finish()
    return episodes


def change_info(directory: Path, **entries) -> None:
    path = directory / "meta" / "info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def change_episodes(directory: Path, number: int, **entries) -> None:
    """Change columns of one row of meta/episodes ("/" written as "__")."""
    path = directory / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(path)
    for name, value in entries.items():
        name = name.replace("__", "/")
        values = table.column(name).to_pylist()
        values[number] = value
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), [values])
    pq.write_table(table, path)
