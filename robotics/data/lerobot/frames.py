"""Pictures of an episode, and of many, decoded when asked for."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robotics.data.images import decode_image, resize_image, turn_image
from robotics.data.lerobot import video
from robotics.data.lerobot.columns import read_picture
from robotics.data.lerobot.info import EpisodePlace, LeRobotInfo
from robotics.data.lerobot.video import TOLERANCE, VideoIndex, read_index
from selfflow_wm.files import atomic_file


class Videos:
    """The indices of a data set's video files, each read once.

    Args:
        info: of the data set.
        cache_dir: where indices are kept until size or time of a file change.
    """

    def __init__(self, info: LeRobotInfo, cache_dir: Path | None = None) -> None:
        self.info, self.cache_dir = info, cache_dir
        self._indices: dict[Path, VideoIndex] = {}
        self._starts: dict[tuple[str, Path], np.ndarray] = {}
        for camera in info.cameras:
            if info.features[camera].dtype == "video":
                starts: dict[Path, list[float]] = {}
                for place in info.episodes:
                    starts.setdefault(place.videos[camera].path, []).append(
                        place.videos[camera].start
                    )
                for path, rows in starts.items():
                    self._starts[camera, path] = np.sort(rows)

    def frames(
        self, place: EpisodePlace, camera: str, timestamps: np.ndarray
    ) -> tuple[VideoIndex, np.ndarray]:
        """The file of an episode's video and the numbers (T,) of its frames.

        Args:
            place: the episode.
            camera: feature of type "video".
            timestamps: (T,) seconds since the episode began.

        Raises:
            ValueError: no video, damaged, or of another length, rate or size than its episode.
        """
        where = f"{self.info.directory}, episode {place.number}, {camera}"
        path, start, stop = place.videos[camera]
        index = self.index(path)
        size = self.info.features[camera].size
        if index.size != size:
            raise ValueError(
                f"{where}: expected frames of {size[0]} x {size[1]} by info.json, got "
                f"{index.size[0]} x {index.size[1]} in {path}"
            )
        found = index.find(start + timestamps, self.info.fps, where)
        starts = self._starts[camera, path]
        later = starts[starts > start]
        ends = (stop, later[0] if len(later) else np.inf)
        for end in ends:
            times = index.pts * index.time_base + TOLERANCE / self.info.fps
            count = int(((times >= start) & (times < end)).sum())
            if count != place.length:
                raise ValueError(
                    f"{where}: expected {place.length} frames, one a row, got {count} in {path} "
                    f"from {start:.3f} s to "
                    f"{'its end' if end == np.inf else f'{end:.3f} s'}; the video is of another "
                    "length than its episode, and which picture is of which row is not known; "
                    "record it again, or leave it out with on_error=skip"
                )
        return index, found

    def index(self, path: Path) -> VideoIndex:
        """A file's index."""
        if path not in self._indices:
            self._indices[path] = self._cached(path)
        return self._indices[path]

    def _cached(self, path: Path) -> VideoIndex:
        if self.cache_dir is None or not path.is_file():
            return read_index(path)
        status = path.stat()
        key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
        kept = self.cache_dir / f"video-{hashlib.sha256(key.encode()).hexdigest()[:20]}.npz"
        try:
            with np.load(kept, allow_pickle=False) as arrays:
                height, width = arrays["size"].tolist()
                unit = float(arrays["time_base"])
                return VideoIndex(path, unit, arrays["pts"], arrays["key"], (height, width))
        except (OSError, ValueError, KeyError, EOFError):  # none yet, or not one of ours
            index = read_index(path)
        with atomic_file(kept) as temporary, temporary.open("wb") as file:
            np.savez(file, pts=index.pts, key=index.key, time_base=index.time_base, size=index.size)
        return index


def as_png(image: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as a PNG, quickly rather than small."""
    quick = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    return cv2.imencode(".png", image[..., ::-1], quick)[1].tobytes()


class EpisodePictures(Sequence[bytes]):
    """The pictures of one camera of an episode: encoded by number, pixels by `decode`.

    Those of videos are encoded as PNG, so nothing is lost.
    """

    def __init__(
        self,
        encoded: Sequence[bytes] = (),
        video: VideoIndex | None = None,
        numbers: np.ndarray | None = None,
    ) -> None:
        self._encoded, self.video = encoded, video
        """video: the file of the frames."""
        self.numbers = np.zeros(0, np.int64) if numbers is None else numbers
        """(T,) frames of the file."""

    def __len__(self) -> int:
        return len(self._encoded if self.video is None else self.numbers)

    def __getitem__(self, step: Any) -> Any:
        if isinstance(step, slice):
            return [self[number] for number in range(*step.indices(len(self)))]
        if self.video is None:
            return self._encoded[step]
        return as_png(self.decode(step))

    def decode(self, step: int) -> np.ndarray:
        """uint8 (H, W, 3); ValueError where it is damaged."""
        if self.video is None:
            return decode_image(self[step])
        return video.decode(self.video, int(self.numbers[step]))


class RecordedFrames:
    """Frames of many steps, decoded from where they are recorded.

    See `robotics.data.recordings.Frames`.

    Args:
        image_size: height and width wanted.
        turn: degrees by which the recorded pictures are turned.
    """

    def __init__(self, image_size: tuple[int, int], turn: int) -> None:
        self.image_size, self.turn = image_size, turn

    def __len__(self) -> int:
        raise NotImplementedError

    def there(self, step: int) -> bool:
        """Whether the camera was."""
        raise NotImplementedError

    def recorded(self, step: int) -> np.ndarray:
        """A frame as recorded, uint8."""
        raise NotImplementedError

    def decode(self, step: int) -> np.ndarray:
        """One frame, black where the camera was absent; ValueError where it is damaged."""
        if not self.there(step):
            return np.zeros((*self.image_size, 3), np.uint8)
        return resize_image(turn_image(self.recorded(step), self.turn), self.image_size)

    def read_into(self, step: int, out: np.ndarray) -> None:
        """Fill `out`, uint8 (H, W, 3)."""
        out[...] = self.decode(step)


class VideoFrames(RecordedFrames):
    """Of videos. file: (n,) into `indices`, -1: none; number: (n,) frame of the file."""

    def __init__(
        self,
        indices: Sequence[VideoIndex],
        file: np.ndarray,
        number: np.ndarray,
        image_size: tuple[int, int],
        turn: int = 0,
    ) -> None:
        super().__init__(image_size, turn)
        self.indices, self.file, self.number = indices, file, number

    def __len__(self) -> int:
        return len(self.number)

    def __getitem__(self, steps: slice) -> VideoFrames:
        part = copy.copy(self)
        part.file, part.number = self.file[steps], self.number[steps]
        return part

    def there(self, step: int) -> bool:
        """Whether the camera was."""
        return self.file[step] >= 0

    def recorded(self, step: int) -> np.ndarray:
        """A frame as recorded, uint8."""
        return video.decode(self.indices[self.file[step]], int(self.number[step]))


class PictureFrames(RecordedFrames):
    """Of pictures in the rows. episode: (n,) into `places`, -1: none; step: (n,) of the episode."""

    def __init__(
        self,
        info: LeRobotInfo,
        feature: str,
        places: Sequence[EpisodePlace],
        episode: np.ndarray,
        step: np.ndarray,
        image_size: tuple[int, int],
        turn: int = 0,
    ) -> None:
        super().__init__(image_size, turn)
        self.info, self.feature, self.places = info, feature, places
        self.episode, self.step = episode, step

    def __len__(self) -> int:
        return len(self.step)

    def __getitem__(self, steps: slice) -> PictureFrames:
        part = copy.copy(self)
        part.episode, part.step = self.episode[steps], self.step[steps]
        return part

    def there(self, step: int) -> bool:
        """Whether the camera was."""
        return self.episode[step] >= 0

    def recorded(self, step: int) -> np.ndarray:
        """A frame as recorded, uint8."""
        place, row = self.places[self.episode[step]], int(self.step[step])
        try:
            return decode_image(read_picture(self.info, place, self.feature, row))
        except ValueError as error:
            raise ValueError(
                f"{self.info.directory}, episode {place.number}: undecodable picture of "
                f"{self.feature} in row {row}: {error}"
            ) from error
