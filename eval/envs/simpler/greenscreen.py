"""The policy's picture: foreground as rendered, background of the cell's photo.

Bit for bit what upstream's `get_obs` composes, without what it does on the way: textures that are
not used, the photo resized for every picture, blending in float64 where every pixel is either one
or the other. On a CPU that was a fifth of a picture's cost.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SCENERY = ("ground", "goal_site", "", "arena")
"""Names of actors that are background."""


class Greenscreen:
    """Pictures of one environment by one of its cameras; made anew for each episode.

    Args:
        env: a built and reset environment of SIMPLER.
        camera: name of the camera.
    """

    def __init__(self, env: Any, camera: str) -> None:
        self._env, self._camera = env, env._cameras[camera]
        self._photo: np.ndarray | None = None
        if env.rgb_overlay_img is not None and camera in env.rgb_overlay_cameras:
            if env.rgb_overlay_mode != "background":
                raise ValueError(
                    f"{camera}: expected the overlay mode background, got {env.rgb_overlay_mode!r}"
                )
            import cv2

            config = self._camera.camera_cfg
            size = (config.width, config.height)
            self._photo = cv2.resize(env.rgb_overlay_img, size).astype(np.float32)

    def draw(self) -> np.ndarray:
        """RGB float32 (H, W, 3) in [0, 1], of what is in front of the camera now."""
        self._env.update_render()
        self._camera.take_picture()
        camera = self._camera.camera
        colour = camera.get_float_texture("Color")[..., :3]
        if self._photo is None:
            return colour
        actors = camera.get_uint32_texture("Segmentation")[..., 1]
        shown = np.zeros(int(actors.max()) + 1, bool)
        ids = self._foreground()
        shown[ids[ids < len(shown)]] = True
        return np.where(shown[actors][..., None], colour, self._photo)

    def _foreground(self) -> np.ndarray:
        """Ids of the robot, of articulated things and of objects, but those that upstream lays the
        photo over."""
        env = self._env
        hidden = env.rgb_always_overlay_objects
        ids = [actor.id for actor in env.get_actors() if actor.name not in (*SCENERY, *hidden)]
        for body in env._scene.get_all_articulations():
            if body.name not in hidden or body is env.agent.robot:
                ids += [link.id for link in body.get_links()]
        return np.array(ids, np.int64)
