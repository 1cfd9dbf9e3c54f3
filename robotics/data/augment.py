"""Random crops and colours of camera images, one draw for all of a camera's frames of a window.

A camera's frames of a window belong together: a crop that moved between them would be a camera
motion that no action explains. There is no mirroring, which would need mirrored actions. Policies
see whole frames in the camera's colours: a crop of side 1 and no colour change are within what is
drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

KINDS = {"image": None, "history": "history_valid", "video": "video_valid"}
"""Kinds of samples that hold frames, "image/CAMERA" and so on, and the mask of those that exist."""

_STREAM = 7  # separates these draws from others with the same seed
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class Augment:
    """Draws and applies a transform that follows from (seed, epoch, window, camera) alone.

    Args:
        crop: smallest side of the crop, as a fraction of the frame's, in (0, 1]. Height and width
            share one fraction, uniform in [crop, 1]; the place is uniform; the crop is resized
            back to the frame's size.
        brightness, contrast, saturation: largest change b of a factor uniform in [1 - b, 1 + b],
            in [0, 1). Contrast is about mid-grey (127.5), so that it is the same map for all
            frames; saturation is about each pixel's luma.
        hue: largest rotation of the hue, degrees, either way.
        seed: of all draws.
    """

    def __init__(
        self,
        crop: float = 1.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        *,
        seed: int = 0,
    ) -> None:
        factors = (brightness, contrast, saturation)
        if not 0 < crop <= 1 or not all(0 <= value < 1 for value in factors) or not 0 <= hue <= 180:
            raise ValueError(
                "expected crop in (0, 1], brightness, contrast and saturation in [0, 1) and hue in "
                f"0..180 degrees, got crop={crop}, {factors} and hue={hue}; see configs/augment"
            )
        self.crop, self.hue = float(crop), float(hue)
        self.brightness, self.contrast, self.saturation = (float(value) for value in factors)
        self.seed = int(seed)

    @property
    def config(self) -> dict[str, float]:
        """JSON-able constructor arguments."""
        names = ("crop", "brightness", "contrast", "saturation", "hue", "seed")
        return {name: getattr(self, name) for name in names}

    def __call__(
        self, samples: Mapping[str, Any], epochs: Sequence[int], windows: Sequence[int]
    ) -> dict[str, Any]:
        """A copy of a batch of windows with its frames transformed; what does not exist stays zero.

        samples: as from `WindowDataset.batch`. epochs, windows: B numbers each, one per row.
        """
        changed = dict(samples)
        cameras = [name.partition("/")[2] for name in samples if name.partition("/")[0] == "image"]
        present = {
            camera: [kind for kind in KINDS if f"{kind}/{camera}" in samples] for camera in cameras
        }
        for camera, kinds in present.items():
            for kind in kinds:
                changed[f"{kind}/{camera}"] = np.array(samples[f"{kind}/{camera}"])
        for row, key in enumerate(zip(epochs, windows, strict=True)):
            for number, (camera, kinds) in enumerate(present.items()):
                there = samples.get(f"camera_valid/{camera}")
                if there is not None and not there[row]:
                    continue
                # The first camera's draw is the same whatever other cameras there are.
                transform = self.draw(*map(int, key), *([number] if number else []))
                for kind in kinds:
                    frames = changed[f"{kind}/{camera}"][row]
                    mask = KINDS[kind]
                    if mask is None:
                        changed[f"{kind}/{camera}"][row] = apply(frames, *transform)
                        continue
                    for place in np.flatnonzero(samples[mask][row]):
                        frames[place] = apply(frames[place], *transform)
        return changed

    def draw(self, *key: int) -> tuple[np.ndarray, np.ndarray]:
        """The transform of `key`, in training (epoch, window) and the camera's number if that is
        not 0, for `apply`: crop (3,) float64
        (side, top, left; top and left as fractions of what the crop leaves over) and colour (3, 4)
        float64, an affine map of RGB in 0..255."""
        generator = np.random.default_rng([self.seed, _STREAM, *key])
        side = generator.uniform(self.crop, 1.0)
        crop = np.array([side, *generator.uniform(size=2)])
        bright, contrast, saturation = (
            1.0 + generator.uniform(-limit, limit)
            for limit in (self.brightness, self.contrast, self.saturation)
        )
        angle = np.deg2rad(generator.uniform(-self.hue, self.hue))
        chroma = saturation * np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        yiq = np.eye(3)
        yiq[1:, 1:] = chroma
        matrix = bright * contrast * (np.linalg.inv(_TO_YIQ) @ yiq @ _TO_YIQ)
        offset = bright * (1.0 - contrast) * 127.5
        return crop, np.column_stack([matrix, np.full(3, offset)])


def apply(image: np.ndarray, crop: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (H, W, 3), see `Augment.draw`; nothing drawn returns it as it is."""
    import cv2

    height, width = image.shape[:2]
    side, top, left = crop
    if side < 1.0:
        # Pixel centres: output (x, y) looks at side * (x + 0.5) - 0.5 + the crop's corner.
        corner = (1 - side) * np.array([left * width, top * height]) + (side - 1) / 2
        inverse = np.array([[side, 0, corner[0]], [0, side, corner[1]]])
        image = cv2.warpAffine(
            image,
            inverse,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    if not np.allclose(colour, np.eye(3, 4), atol=1e-9):
        image = cv2.transform(image, colour)
    return image
