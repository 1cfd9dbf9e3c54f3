"""The embedded simulator: MuJoCo scenes of the Google robot's tasks with a similar robot.

`scenes` registers the environments with gymnasium (`drawer_tasks`, `table_tasks`, and `env` for
what they share), which consist of `robot`, `scene` and `controller`; `expert` solves them, and `gl`
finds a way to render without a screen.
"""

from __future__ import annotations

from typing import Any

from eval.envs.contract import Limits, Row, Simulator, check_drawing
from eval.envs.tasks import Task


class Mujoco(Simulator):
    """The embedded simulator; runs in the calling process."""

    name = "mujoco"
    title = "the embedded MuJoCo simulator"
    labels = {"embedded-mujoco": {}}
    packages = ("numpy", "gymnasium", "mujoco")

    def prepare(self) -> None:
        """Choose MuJoCo's OpenGL library; `ValueError` says what to install if there is none."""
        from eval.envs.mujoco.gl import NoOpenGLError, ensure_gl

        try:
            ensure_gl()
        except NoOpenGLError as error:
            raise ValueError(str(error)) from None

    def make_env(self, task: Task, limits: Limits | None = None) -> Any:
        import gymnasium

        from eval.envs.mujoco.scenes import ENV_IDS

        return gymnasium.make(ENV_IDS[task.name], obs_mode="state", disable_env_checker=True)

    def make_expert(self, env: Any) -> Any:
        from eval.envs.mujoco.expert import Expert

        return Expert(env)

    def check(self, render: bool = False) -> list[Row]:
        return check_drawing(self, advice="see the message; MUJOCO_GL=egl or osmesa")
