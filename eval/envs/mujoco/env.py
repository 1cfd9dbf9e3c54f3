"""The embedded simulator behind gymnasium: what every task of it shares."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from scipy.spatial.transform import Rotation

from eval.envs.mujoco.controller import ToolController
from eval.envs.mujoco.robot import (
    CAMERA_POSITION,
    CAMERA_SIZE,
    CAMERA_TARGET,
    CONTROL_HZ,
    FINGER_GEOMS,
    HEAD_CAMERA,
    camera_axes,
)
from eval.envs.mujoco.scene import OBJECTS, scene_xml
from robotics.embodiment.control import tool_robot

_SETTLE_STEPS = 150


class EmbeddedEnv(gymnasium.Env):
    """One robot, one scene, one task; subclasses set up the scene and judge success.

    Observation: see `robotics.embodiment.control.Observation`; `obs_mode="state"` leaves the image out and
    renders only when `camera_image()` is called. Action: float32 (7,), Δxyz (m), axis-angle (rad)
    in the base frame, gripper (+1 closes, -1 opens, below 1e-3 keeps). Everything random comes
    from the seed given to `reset`. Episodes are truncated at the horizon and never terminated:
    ending early is the policy's decision, as in SIMPLER.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}
    backend = "mujoco"
    robot = tool_robot("embedded", CONTROL_HZ, CAMERA_SIZE)
    scene: str
    stages: tuple[str, ...]
    robot_xy: tuple[float, float]

    def __init__(
        self, horizon: int, obs_mode: str = "rgb", render_mode: str | None = "rgb_array"
    ) -> None:
        if obs_mode not in ("rgb", "state"):
            raise ValueError(f"expected obs_mode 'rgb' or 'state', got {obs_mode!r}")
        self.horizon, self.obs_mode, self.render_mode = horizon, obs_mode, render_mode
        self.model = mujoco.MjModel.from_xml_string(scene_xml(self.scene))
        self.data = mujoco.MjData(self.model)
        self.controller = ToolController(self.model)
        self._renderer: mujoco.Renderer | None = None
        self._finger_geoms = {
            side: {self.model.geom(n).id for n in names} for side, names in FINGER_GEOMS.items()
        }
        observation: dict[str, spaces.Space] = {
            "tool_pose": spaces.Box(-5.0, 5.0, (7,), np.float32),
            "gripper_closed": spaces.Box(0.0, 1.0, (1,), np.float32),
        }
        if obs_mode == "rgb":
            observation["image"] = spaces.Box(0, 255, (*CAMERA_SIZE, 3), np.uint8)
        self.observation_space = spaces.Dict(observation)
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.reached: dict[str, bool] = {}
        self.elapsed_steps = 0
        self.subtask = 0

    # --- what a task defines -------------------------------------------------------------------
    def _setup(self, rng: np.random.Generator) -> None:
        """Place all objects in `self.data`; called after a full reset, before settling."""
        raise NotImplementedError

    def _after_settle(self) -> None:
        """Store the poses that success is measured against."""

    def judge(self) -> tuple[bool, dict[str, bool]]:
        """Success now, and which stages hold now."""
        raise NotImplementedError

    @property
    def instruction(self) -> str:
        raise NotImplementedError

    @property
    def is_final_subtask(self) -> bool:
        return True

    def advance_to_next_subtask(self) -> str:
        """Start the next sub-task as SIMPLER does; no effect on the final one."""
        return self.instruction

    # --- gymnasium -----------------------------------------------------------------------------
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        rng = self.np_random
        mujoco.mj_resetData(self.model, self.data)
        self.elapsed_steps, self.subtask = 0, 0
        self.reached = dict.fromkeys(self.stages, False)
        self._vary_robot(rng)
        self._vary_looks(rng)
        self.controller.reset(self.data)
        self._setup(rng)
        mujoco.mj_forward(self.model, self.data)
        mujoco.mj_step(self.model, self.data, _SETTLE_STEPS)
        self._after_settle()
        return self._observe(), self._info(*self.judge())

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        control = np.asarray(action, dtype=np.float64)
        if control.shape != (7,) or not np.isfinite(control).all():
            raise ValueError(
                f"expected a finite action of shape (7,), got {control.shape}: {control}; "
                "check the policy's denormalisation"
            )
        self._before_step()
        self.controller.step(self.data, control)
        self.elapsed_steps += 1
        success, stages = self.judge()
        info = self._info(success, stages)
        return self._observe(), float(success), False, self.elapsed_steps >= self.horizon, info

    def _before_step(self) -> None:
        """Hook for protocol rules that act before the robot moves."""

    def render(self) -> np.ndarray:
        return self.camera_image()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # --- observation ---------------------------------------------------------------------------
    def camera_image(self) -> np.ndarray:
        """Render the head camera now: uint8 (256, 320, 3)."""
        renderer = self._renderer
        if renderer is None:
            renderer = self._renderer = mujoco.Renderer(self.model, *CAMERA_SIZE)
            # shadows cost more than everything else together on a CPU
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.update_scene(self.data, HEAD_CAMERA)
        return renderer.render()

    def _observe(self) -> dict[str, np.ndarray]:
        base_p, base_r = self.controller.base_pose(self.data)
        tool_p, tool_r = self.controller.tool_pose(self.data)
        quaternion = Rotation.from_matrix(base_r.T @ tool_r).as_quat()
        quaternion *= 1.0 if quaternion[3] >= 0 else -1.0
        pose = np.concatenate([base_r.T @ (tool_p - base_p), quaternion])
        observation = {
            "tool_pose": pose.astype(np.float32),
            "gripper_closed": np.array(
                [self.controller.gripper_closed(self.data)], dtype=np.float32
            ),
        }
        if self.obs_mode == "rgb":
            observation["image"] = self.camera_image()
        return observation

    def _info(self, success: bool, stages: dict[str, bool]) -> dict[str, Any]:
        for name, now in stages.items():
            self.reached[name] = self.reached[name] or now
        return {
            "instruction": self.instruction,
            "subtask": self.subtask,
            "success": success,
            "stages": dict(self.reached),
            "elapsed_steps": self.elapsed_steps,
        }

    # --- randomisation -------------------------------------------------------------------------
    def _vary_robot(self, rng: np.random.Generator) -> None:
        base = self.model.body("base").id
        x, y = np.array(self.robot_xy) + rng.uniform([-0.015, -0.03], [0.015, 0.03])
        yaw = np.pi + rng.uniform(-0.03, 0.03)
        self.model.body_pos[base] = [x, y, 0.0]
        self.model.body_quat[base] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]

    def _vary_looks(self, rng: np.random.Generator) -> None:
        """Small changes of camera pose, lights and surface colour."""
        position = CAMERA_POSITION + rng.uniform(-0.01, 0.01, 3)
        target = CAMERA_TARGET + rng.uniform(-0.01, 0.01, 3)
        axes = camera_axes(position, target).reshape(2, 3)
        matrix = np.stack([*axes, np.cross(axes[0], axes[1])], axis=1)
        x, y, z, w = Rotation.from_matrix(matrix).as_quat()
        camera = self.model.camera(HEAD_CAMERA).id
        self.model.cam_pos[camera] = position
        self.model.cam_quat[camera] = [w, x, y, z]
        light = self.model.light("ceiling").id
        self.model.light_diffuse[light] = rng.uniform(0.45, 0.65)
        self.model.light_pos[light] = [0.6, 0.5, 2.6] + rng.uniform(-0.3, 0.3, 3)
        top = self.model.mat("tabletop").id
        self.model.mat_rgba[top, :3] = np.array([0.86, 0.82, 0.74]) * rng.uniform(0.92, 1.05)

    # --- helpers of tasks and experts ----------------------------------------------------------
    def place(self, name: str, xyz: np.ndarray, rotation: Rotation | None = None) -> None:
        """Place a free object with its centre at `xyz` (only during set-up)."""
        x, y, z, w = (rotation or Rotation.identity()).as_quat()
        self.data.joint(name).qpos[:] = [*xyz, w, x, y, z]

    def object_position(self, name: str) -> np.ndarray:
        return self.data.body(name).xpos.copy()

    def contacts(self, geom: str) -> set[int]:
        """Ids of the geoms that touch `geom` now."""
        target = self.model.geom(geom).id
        pairs = self.data.contact.geom[: self.data.ncon]
        touching = pairs[(pairs == target).any(axis=1)]
        return set(touching[touching != target].tolist())

    def fingers_touching(self, geom: str) -> set[str]:
        """Which fingers ("left", "right") touch `geom`."""
        touching = self.contacts(geom)
        return {side for side, ids in self._finger_geoms.items() if ids & touching}

    def is_grasped(self, name: str) -> bool:
        """Both fingers touch the object."""
        return len(self.fingers_touching(name)) == 2

    def is_lifted(self, name: str) -> bool:
        """Nothing but the robot touches the object."""
        robot = set.union(*self._finger_geoms.values())
        return not (self.contacts(name) - robot)

    def rest_on(self, name: str, x: float, y: float, surface: float) -> np.ndarray:
        """Centre of an upright object standing on a surface at height `surface`."""
        return np.array([x, y, surface + OBJECTS[name].half_height + 0.002])
