"""One SIMPLER environment behind the contract's operations; runs in the simulator's interpreter.

Environments are made with `gym.make` and a cell's exact arguments, never through
`simpler_env.make`, which draws a start from one seed and shares its arguments between calls.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from eval.envs.simpler import stand_ins, vulkan
from eval.envs.simpler.adapters import Adapter, relative_pose
from eval.envs.simpler.greenscreen import Greenscreen

TOUCH_IMPULSE = 1e-6
"""Newton seconds; upstream's threshold for "in contact"."""
MOVED = 0.01
"""A drawer that moved this far (m) was touched, even between two checks of the contacts."""


class Scene:
    """Holds the environment of the current cell.

    Args:
        shader: `rasterised` (any machine) or `ray_traced` (where a cell's protocol asks for it).
    """

    def __init__(self, shader: str) -> None:
        if shader == "ray_traced":
            vulkan.require_ray_tracing()
        else:
            os.environ.setdefault("SAPIEN_DISABLE_RAY_TRACING", "1")
        import sapien.core  # noqa: F401  (maps the library that allow_lavapipe changes)

        self.shader = shader
        vulkan.allow_lavapipe()
        import mani_skill2_real2sim.envs  # noqa: F401  (registers the environments)
        from mani_skill2_real2sim import ASSET_DIR

        self.assets = Path(ASSET_DIR)
        stand_ins.install()
        _force_renderer(ray_traced=shader == "ray_traced")
        self.env: Any = None

    # --- the contract's operations -------------------------------------------------------------
    def reset(self, cell: dict[str, Any]) -> dict[str, Any]:
        """Start a cell; returns its info, with the names of the cell's `stand_ins`.

        The environment is rebuilt, as upstream does for each episode: nothing of an earlier one can
        affect it, and objects come to rest exactly where upstream's do. (They settle once
        while it is made and once more now; a reconfigured environment settles them only once, and
        the apple lay 1.3 mm elsewhere.) It takes half a second.
        """
        self._make(cell)
        options = dict(cell["reset"])
        for name in ("robot_init_options", "obj_init_options"):
            if name in options:
                options[name] = {
                    key: np.array(value) if isinstance(value, list) else value
                    for key, value in options[name].items()
                }
        self.adapter.reset()
        self.env.reset(seed=cell["seed"], options=options)
        self.cell, self.steps, self.reached = cell, 0, {}
        self._screen: Greenscreen | None = None
        # Judging counts contacts and grasps; upstream does it after steps only.
        self._judged = {"success": False}
        return {**self.info(), "stand_ins": sorted(stand_ins.replaced)}

    def step(self, control: np.ndarray) -> dict[str, Any]:
        """One control step; returns info after it."""
        action = self.adapter.to_simulator(control)
        *_, info = self.env.step(action)
        self.steps += 1
        self._judged = info
        return self.info()

    def advance(self) -> dict[str, Any]:
        """The next sub-task, where there is one."""
        if not self.env.is_final_subtask():
            self.env.advance_to_next_subtask()
        return self.info()

    def info(self) -> dict[str, Any]:
        """The contract's info, and what the client mirrors."""
        for stage, now in self._stages().items():
            self.reached[stage] = self.reached.get(stage, False) or bool(now)
        final = bool(self.env.is_final_subtask())
        return {
            "instruction": str(self.env.get_language_instruction()),
            "subtask": int(getattr(self.env, "cur_subtask_id", 0)),
            "is_final_subtask": final,
            "success": bool(self._judged["success"]),
            "stages": dict(self.reached),
            "elapsed_steps": self.steps,
            "truncated": self.steps >= self.cell["horizon"],
            "cell": self.cell["name"],
        }

    def observation(self) -> dict[str, np.ndarray]:
        """Tool pose in the base frame (7,) and the gripper's closedness (1,), float32."""
        agent = self.env.agent
        pose = relative_pose(_vector(agent.robot.pose), _vector(self.env.tcp.pose))
        closed = np.clip(float(agent.get_gripper_closedness()), 0.0, 1.0)
        return {"tool_pose": pose, "gripper_closed": np.array([closed], np.float32)}

    def image(self) -> np.ndarray:
        """What the policy's camera sees now, overlay included: uint8 (H, W, 3)."""
        if self._screen is None:
            self._screen = Greenscreen(self.env, self.adapter.row.camera)
        return self.adapter.image(self._screen.draw())

    def expert(self) -> Any:
        """The scripted controller of the current cell, from its start or its current state."""
        from eval.envs.simpler.expert import Expert

        return Expert(self.env, self.cell["task"])

    def label(self) -> dict[str, Any]:
        """How images are rendered here, and the stand-ins of the current cell."""
        return {
            "rendering": "ray traced" if self.shader == "ray_traced" else "rasterised",
            "stand_ins": sorted(stand_ins.replaced),
            "devices": [device.name for device in vulkan.devices()],
        }

    def close(self) -> None:
        """Release the environment."""
        if self.env is not None:
            self.env.close()
        self.env = None

    # --- inside --------------------------------------------------------------------------------
    def _make(self, cell: dict[str, Any]) -> None:
        import gymnasium

        self.close()
        stand_ins.replaced.clear()
        build = {"camera_cfgs": {"add_segmentation": True}, **cell["build"]}
        build["shader_dir"] = build.pop("shader") if self.shader == "ray_traced" else "ibl"
        build.pop("shader", None)
        if overlay := build.pop("overlay", None):
            build["rgb_overlay_path"] = str(self.assets / "real_inpainting" / overlay)
            build["rgb_overlay_cameras"] = [Adapter(build["robot"]).row.camera]
        made = gymnasium.make(cell["env_id"], obs_mode="state_dict", **build)
        self.env = made.unwrapped
        self.adapter = Adapter(self.env.robot_uid)

    def _stages(self) -> dict[str, bool]:
        env, judged, task = self.env, self._judged, self.cell["task"]
        stats: Any = judged.get("episode_stats") or {}
        if task in ("open_drawer", "close_drawer", "open_drawer_place"):
            travel = float(env.art_obj.get_qpos()[env.joint_idx])
            start = 0.2 if task == "close_drawer" else 0.0
            stages = {"handle_touched": abs(travel - start) > MOVED or self._touches_drawer()}
            if task == "close_drawer":
                return {**stages, "drawer_closed": travel <= 0.05}
            stages["drawer_opened"] = travel >= 0.15
            if task == "open_drawer_place":
                stages["object_grasped"] = bool(env.agent.check_grasp(env.obj))
                stages["object_in_drawer"] = bool(stats.get("has_contact", 0))
            return stages
        if task == "pick_coke_can":
            return _named(judged, object_grasped="is_grasped", object_lifted="lifted_object")
        if task == "move_near":
            grasped = bool(env.agent.check_grasp(env.episode_source_obj))
            return {"object_grasped": grasped, **_named(judged, object_moved="moved_correct_obj")}
        return _named(
            judged, object_grasped="is_src_obj_grasped", object_moved="moved_correct_obj",
            object_on_target="src_on_target",
        )  # fmt: skip

    def _touches_drawer(self) -> bool:
        robot = {link.name for link in self.env.agent.robot.get_links()}
        drawer = self.env.drawer_obj
        for contact in self.env._scene.get_contacts():
            pair = (contact.actor0, contact.actor1)
            if not any(actor.id == drawer.id for actor in pair):
                continue
            if any(actor.name in robot for actor in pair):
                impulse = np.sum([point.impulse for point in contact.points], axis=0)
                if np.linalg.norm(impulse) > TOUCH_IMPULSE:
                    return True
        return False


def _named(judged: dict[str, Any], **keys: str) -> dict[str, bool]:
    return {stage: bool(judged.get(key, False)) for stage, key in keys.items()}


def _vector(pose: Any) -> np.ndarray:
    return np.concatenate([pose.p, pose.q]).astype(np.float64)


def _force_renderer(*, ray_traced: bool) -> None:
    """Render off screen, and rasterise if requested: prepackaged drawer scenes force ray tracing in
    their constructor, whatever the arguments."""
    from mani_skill2_real2sim.envs import sapien_env

    begin = sapien_env.BaseEnv.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        given = kwargs.get("renderer_kwargs") or {}
        kwargs["renderer_kwargs"] = {"offscreen_only": True, **given}
        if not ray_traced:
            kwargs["shader_dir"] = "ibl"
        begin(self, *args, **kwargs)

    sapien_env.BaseEnv.__init__ = init
