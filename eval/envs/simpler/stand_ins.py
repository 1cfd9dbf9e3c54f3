"""Stand-ins for meshes that a checkout of ManiSkill2_real2sim may lack.

The stage meshes are large files that some copies of the repository leave out. The photo overlay of
visual matching hides the stage: only its table top matters, as a surface. A box at the right height
serves the same purpose, but not bit for bit (the real table is a mesh), so what was replaced is
recorded in every episode and in the results. Runs in the simulator's
interpreter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

TABLES = {
    # centre x, y and half sizes x, y (m) of a top that holds all of upstream's object positions
    "google_robot": ((-0.295, 0.21), (0.315, 0.31)),
    "widowx": ((-0.20, 0.05), (0.60, 0.60)),
}
_FLOOR = (10.0, 10.0, 0.017)
_WOOD, _GROUND = (0.39, 0.19, 0.08), (0.3, 0.25, 0.2)
_DEFAULT_STAGE = {"google_robot": "google_pick_coke_can_1_v4", "widowx": "bridge_table_1_v1"}
_TINTS = {"eggplant": (0.10, 0.02, 0.16), "blue_plastic_bottle": (0.05, 0.25, 0.60)}
_GREY = (0.5, 0.5, 0.5)

replaced: set[str] = set()
"""What has been replaced in the current cell."""


def install() -> None:
    """Make environments of this process build stand-ins where a mesh is absent."""
    from mani_skill2_real2sim.envs.custom_scenes import base_env

    scene, objects = base_env.CustomSceneEnv, base_env.CustomOtherObjectsInSceneEnv
    load_arena, build_actor = scene._load_arena_helper, objects._build_actor_helper

    def arena(self: Any, add_collision: bool = True) -> None:
        family = "google_robot" if "google" in self.robot_uid else "widowx"
        stage = self.scene_name or _DEFAULT_STAGE[family]
        if "dummy" in stage or (Path(self.scene_root) / "stages" / f"{stage}.glb").is_file():
            return load_arena(self, add_collision)
        replaced.add(f"stage {stage}")
        self.arena = _table(self._scene, family, self.scene_table_height, add_collision)

    def actor(
        model_id: str, scene: Any, scale: float = 1.0, physical_material: Any = None,
        density: float = 1000.0, root_dir: Any = base_env.ASSET_DIR / "custom",
    ) -> Any:  # fmt: skip
        folder = Path(root_dir) / "models" / model_id
        if any((folder / f"textured.{kind}").is_file() for kind in ("obj", "dae", "glb")):
            return build_actor(model_id, scene, scale, physical_material, density, root_dir)
        replaced.add(f"look of {model_id}")
        builder, mesh = scene.create_actor_builder(), str(folder / "collision.obj")
        builder.add_multiple_collisions_from_file(
            filename=mesh, scale=[scale] * 3, material=physical_material, density=density
        )
        builder.add_visual_from_file(filename=mesh, scale=[scale] * 3, material=_tint(model_id))
        return builder.build()

    scene._load_arena_helper = arena
    objects._build_actor_helper = staticmethod(actor)


def _table(scene: Any, family: str, height: float, collision: bool) -> Any:
    import sapien.core as sapien

    (x, y), (half_x, half_y) = TABLES[family]
    pose, half = sapien.Pose([x, y, height / 2]), np.array([half_x, half_y, height / 2])
    builder = scene.create_actor_builder()
    builder.add_box_visual(pose=pose, half_size=half, color=_WOOD)
    builder.add_box_visual(half_size=np.array(_FLOOR), color=_GROUND)
    if collision:
        builder.add_box_collision(pose=pose, half_size=half)
    return builder.build_static(name="arena")


def _tint(model_id: str) -> Any:
    import sapien.core as sapien

    material = sapien.Engine().get_renderer().create_material()
    material.base_color = [*_TINTS.get(model_id.replace("baked_", ""), _GREY), 1.0]
    material.roughness, material.specular = 0.4, 0.5
    return material
