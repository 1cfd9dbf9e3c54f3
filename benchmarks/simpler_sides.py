"""The simulator's side of `benchmarks.simpler`: both loops, timed by the same clock.

Runs in the interpreter that SIMPLER is installed in, behind `eval.envs.simpler.server`. Seconds
go to exactly one part each: whatever no part claims is left to the caller as overhead.
"""

from __future__ import annotations

import sys
import tempfile
import time
import types
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from eval.envs.simpler.scene import Scene

PARTS = ("build", "physics", "render", "policy", "overhead")


class Clock:
    """Seconds per part; an inner part's are not its outer's."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start from nothing."""
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._parts = ["overhead"]
        self._since = time.perf_counter()

    def _turn(self) -> None:
        now = time.perf_counter()
        self.seconds[self._parts[-1]] += now - self._since
        self._since = now

    def part(self, name: str, work: Callable, *args: Any, **kwargs: Any) -> Any:
        """`work(...)`, its time counted as `name`."""
        self._turn()
        self._parts.append(name)
        try:
            return work(*args, **kwargs)
        finally:
            self._turn()
            self._parts.pop()

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Count calls of `owner.attribute` as `name` from now on."""
        work = getattr(owner, attribute)

        @wraps(work)
        def timed(*args: Any, **kwargs: Any) -> Any:
            return self.part(name, work, *args, **kwargs)

        setattr(owner, attribute, timed)


def watch_simulator(clock: Clock) -> None:
    """Time upstream's own methods, which both loops call."""
    import gymnasium
    from mani_skill2_real2sim.envs import sapien_env
    from mani_skill2_real2sim.envs.custom_scenes import base_env
    from mani_skill2_real2sim.utils.wrappers import observation

    clock.watch(gymnasium, "make", "build")
    clock.watch(sapien_env.BaseEnv, "step_action", "physics")
    clock.watch(sapien_env.BaseEnv, "_get_obs_images", "render")
    clock.watch(observation.RGBDObservationWrapper, "observation", "render")
    draw = base_env.CustomSceneEnv.get_obs

    def get_obs(self: Any) -> Any:
        part = "render" if self._obs_mode == "image" else "overhead"
        return clock.part(part, draw, self)

    base_env.CustomSceneEnv.get_obs = get_obs


def final_state(env: Any) -> list[list[Any]]:
    """Names and numbers of every body that moves, as the simulator holds them."""
    rows = []
    for articulation in env._scene.get_all_articulations():
        numbers = [articulation.get_qpos(), articulation.get_qvel(), *_pose(articulation)]
        rows.append([articulation.name, _flat(numbers)])
    for actor in env._scene.get_all_actors():
        if actor.type != "static":
            numbers = [*_pose(actor), actor.velocity, actor.angular_velocity]
            rows.append([actor.name, _flat(numbers)])
    return rows


def _pose(body: Any) -> tuple[Any, Any]:
    return body.pose.p, body.pose.q


def _flat(numbers: list[Any]) -> list[float]:
    return [float(value) for value in np.concatenate([np.ravel(one) for one in numbers])]


class Harness(Scene):
    """The scene that evaluations use, with a clock; its label carries times and state."""

    def __init__(self, shader: str) -> None:
        super().__init__(shader)
        self.clock = Clock()
        watch_simulator(self.clock)

    def reset(self, cell: dict[str, Any]) -> dict[str, Any]:
        """Start a cell and the clock."""
        self.clock.clear()
        return self.clock.part("build", super().reset, cell)

    def image(self) -> np.ndarray:
        """A picture, shrunk for the policy."""
        return self.clock.part("render", super().image)

    def label(self) -> dict[str, Any]:
        """`seconds` per part since the reset and the present `state`, beside the scene's label."""
        more = {}
        if self.env is not None:
            more = {"seconds": dict(self.clock.seconds), "state": final_state(self.env)}
        return {**super().label(), **more}


class Upstream(Scene):
    """SimplerEnv's own evaluation of one episode: `reset` runs it to its end."""

    def __init__(self, shader: str) -> None:
        super().__init__(shader)  # the same renderer, requests and stand-ins
        self.clock = Clock()
        watch_simulator(self.clock)
        # Videos are left out on both sides, so that their encoder is not needed either.
        sys.modules.setdefault("mediapy", types.ModuleType("mediapy"))
        from simpler_env.evaluation import maniskill2_evaluator

        self._loop = maniskill2_evaluator
        self._loop.write_video = lambda *args, **kwargs: None
        build = self._loop.build_maniskill2_env

        def keep(*args: Any, **kwargs: Any) -> Any:
            self.env = self.clock.part("build", build, *args, **kwargs)
            self.clock.watch(self.env, "reset", "build")
            return Forwarding(self.env)

        self._loop.build_maniskill2_env = keep

    def reset(self, cell: dict[str, Any]) -> dict[str, Any]:
        """Run an episode; `cell` also holds `controls` (T, 7) and `terminate` (T,)."""
        self.env = None  # upstream drops it with the episode; not on its time
        script = Script(cell["controls"], cell["terminate"])
        self.clock.watch(script, "step", "policy")
        with tempfile.TemporaryDirectory() as folder:
            arguments = self._arguments(cell)
            self.clock.clear()
            started = time.perf_counter()
            success = self._loop.run_maniskill2_eval_single_episode(
                script, "script", logging_dir=folder, **arguments
            )
            total = time.perf_counter() - started
        env = self.env.unwrapped
        parts = {name: self.clock.seconds[name] for name in PARTS if name != "overhead"}
        return {
            "total": total, "seconds": {**parts, "overhead": total - sum(parts.values())},
            "state": final_state(env), "success": bool(success), "steps": script.used,
        }  # fmt: skip

    def observation(self) -> dict[str, np.ndarray]:
        """Nothing: the episode is over."""
        return {}

    def label(self) -> dict[str, Any]:
        """Nothing more to say."""
        return {}

    def _arguments(self, cell: dict[str, Any]) -> dict[str, Any]:
        build = dict(cell["build"])
        build.pop("shader", None)  # `Scene` has chosen one for both
        overlay = build.pop("overlay", None)
        robot, options = cell["reset"]["robot_init_options"], cell["reset"]
        objects = options.get("obj_init_options", {"init_xy": [0.0, 0.0]})
        start: dict[str, Any] = (
            {"obj_episode_id": objects["episode_id"]}
            if "episode_id" in objects
            else dict(zip(("obj_init_x", "obj_init_y"), objects["init_xy"], strict=True))
        )
        return {
            "robot_name": build.pop("robot"), "env_name": cell["env_id"],
            "scene_name": build.pop("scene_name"), "control_mode": build.pop("control_mode"),
            "control_freq": build.pop("control_freq"), "sim_freq": build.pop("sim_freq"),
            "robot_init_x": robot["init_xy"][0], "robot_init_y": robot["init_xy"][1],
            "robot_init_quat": robot["init_rot_quat"], "max_episode_steps": cell["horizon"],
            "additional_env_build_kwargs": build,
            "rgb_overlay_path": str(self.assets / "real_inpainting" / overlay) if overlay else None,
            **start,
        }  # fmt: skip


class Forwarding:
    """A wrapped environment that shows what is inside, as gymnasium's wrappers did before 1.0."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env if hasattr(self._env, name) else self._env.unwrapped, name)


class Script:
    """Upstream's policy interface over a list of actions; terminates once they are used up."""

    def __init__(self, controls: list[list[float]], terminate: list[bool]) -> None:
        self._controls, self._terminate = np.array(controls, np.float32), terminate
        self.used = 0

    def reset(self, instruction: str) -> None:
        """Upstream starts an episode."""
        self.used = 0

    def step(self, image: np.ndarray, instruction: str) -> tuple[dict, dict]:
        """The next action, raw and as the environment takes it."""
        over = self.used >= len(self._controls)
        control = np.zeros(7, np.float32) if over else self._controls[self.used]
        terminate = True if over else self._terminate[self.used]
        self.used += 1
        action = {
            "world_vector": control[:3], "rot_axangle": control[3:6], "gripper": control[6:],
            "terminate_episode": np.array([float(terminate)]),
        }  # fmt: skip
        return action, action

    def visualize_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Plots are left out on both sides."""
