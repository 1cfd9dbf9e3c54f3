"""Video files of LeRobot data sets, written with PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from robotics.data.lerobot.info import Feature

CODECS = {
    # As lerobot has it: every other frame can be started from.
    "av1": ("libsvtav1", {"g": "2", "crf": "30", "svtav1-params": "lp=2"}),
    "h264": ("libx264", {"g": "2", "crf": "23", "threads": "2"}),
}


class VideoFile:
    """Encodes frames of several episodes one after the other."""

    def __init__(self, path: Path, feature: Feature, fps: float, codec: str) -> None:
        import av

        self._av: Any = av
        self.path, self.name, self.size, self.fps, self.codec = (
            path, feature.name, feature.size, fps, codec,
        )  # fmt: skip
        encoder, options = CODECS[codec]
        self._file: Any = av.open(str(path), "w")
        rate = Fraction(fps).limit_denominator(1_000_000)
        self._stream = self._file.add_stream(encoder, rate=rate, options=dict(options))
        self._stream.height, self._stream.width = self.size
        self._stream.pix_fmt = "yuv420p"

    def add(self, image: np.ndarray) -> None:
        """Append uint8 (H, W, 3)."""
        if image.shape != (*self.size, 3):
            raise ValueError(
                f"{self.name}: expected pictures {(*self.size, 3)}, got {image.shape}; leave out "
                "--videos, or write sets of one size"
            )
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
        self._file.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Complete the file."""
        if self._file is not None:
            self._file.mux(self._stream.encode())
            self._file.close()
            self._file = None

    def description(self) -> dict[str, Any]:
        """What info.json says of a video."""
        return {
            "video.height": self.size[0],
            "video.width": self.size[1],
            "video.codec": self.codec,
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": int(self.fps) if self.fps == int(self.fps) else self.fps,
            "video.channels": 3,
            "has_audio": False,
        }
