"""Episodes as mp4: camera images with the instruction, the step and the outcome overlaid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from robotics.embodiment.control import Action, Observation
from selfflow_wm.videos import open_mp4

PARTIAL = ".partial.mp4"
"""Suffix of an unfinished file."""
SCALE = 2
"""Factor by which images are enlarged; small text would not survive the codec."""
BAR = 32
"""Height of the text bars above and below, pixels; with the image a multiple of 16."""
_WHITE, _GREY, _GREEN, _RED = (255, 255, 255), (170, 170, 170), (110, 220, 130), (255, 120, 110)
_BACKGROUND = (24, 26, 30)


class VideoWatcher:
    """Streams an episode into `path` (H.264, yuv420p); the file appears when it is complete.

    Args:
        path: the mp4 to write.
        horizon: the task's, shown beside the step.
        fps: frames per second.
    """

    needs_image = True

    def __init__(self, path: Path, horizon: int, fps: float = 6.0) -> None:
        self._path, self._horizon, self._fps = path, horizon, fps
        self._partial = path.with_name(f".{path.stem}{PARTIAL}")
        self._writer: Any = None
        self._steps = 0
        self._success = False
        self._instruction = ""

    def step(
        self, observation: Observation, action: Action, instruction: str, info: dict[str, Any]
    ) -> None:
        """Write the frame before the step."""
        self._instruction = instruction
        self._write(observation)
        self._steps += 1
        self._success = bool(info["success"])

    def end(self, observation: Observation, info: dict[str, Any]) -> None:
        """Write the last frame, held for a second, and move the file into place."""
        self._instruction = info["instruction"]
        for _ in range(max(1, round(self._fps))):
            self._write(observation, over=True)
        self._close()
        self._partial.replace(self._path)

    def abort(self) -> None:
        """Remove the video of an episode that did not end; harmless after `end`."""
        self._close()
        self._partial.unlink(missing_ok=True)

    def _write(self, observation: Observation, over: bool = False) -> None:
        assert "image" in observation, "needs_image makes the rollout render"
        image, steps, success = observation["image"], self._steps, self._success
        frame = annotate(image, self._instruction, steps, self._horizon, success, over=over)
        if self._writer is None:
            self._writer = open_mp4(self._partial, frame.shape[1], frame.shape[0], self._fps)
        self._writer.send(np.ascontiguousarray(frame))

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def annotate(
    image: np.ndarray, instruction: str, step: int, horizon: int, success: bool, *, over: bool
) -> np.ndarray:
    """uint8 (H, W, 3) -> (SCALE*H + 2*BAR, SCALE*W, 3) with text above and below."""
    height, width = image.shape[0] * SCALE, image.shape[1] * SCALE
    canvas = Image.new("RGB", (width, height + 2 * BAR), _BACKGROUND)
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    canvas.paste(picture, (0, BAR))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=20)
    draw.text((10, BAR / 2), instruction, _WHITE, font, anchor="lm")
    low = height + 1.5 * BAR
    draw.text((10, low), f"step {step}/{horizon}", _GREY, font, anchor="lm")
    if over:
        outcome, color = ("SUCCESS", _GREEN) if success else ("FAILURE", _RED)
    else:
        outcome, color = ("success", _GREEN) if success else ("not yet", _GREY)
    draw.text((width - 10, low), outcome, color, font, anchor="rm")
    return np.asarray(canvas)
