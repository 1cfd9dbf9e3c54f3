"""Open a drawer, close a drawer, open the top drawer and place the apple in it."""

from __future__ import annotations

import numpy as np

from eval.envs.mujoco.env import EmbeddedEnv
from eval.envs.mujoco.scene import CABINET_TOP, DRAWERS

OPEN_TRAVEL = 0.15
"""m; from here on SIMPLER counts a drawer as open."""
CLOSED_TRAVEL = 0.05
"""m; up to here SIMPLER counts a drawer as closed."""
FORCED_ADVANCE_STEP = 100
"""Step at which SIMPLER moves open-and-place on to its second sub-task by itself."""


class DrawerEnv(EmbeddedEnv):
    """The cabinet; `target` is the drawer that the instruction names."""

    scene = "drawer"
    robot_xy = (0.65, 0.0)
    target: str = "top"

    def _setup(self, rng: np.random.Generator) -> None:
        self.target = str(rng.choice(list(DRAWERS)))
        self._place_apple(rng)

    def _place_apple(self, rng: np.random.Generator) -> None:
        x, y = rng.uniform([-0.11, -0.10], [-0.045, 0.12])
        self.place("apple", self.rest_on("apple", x, y, CABINET_TOP))

    @property
    def travel(self) -> float:
        """How far the target drawer stands open, m."""
        return float(self.data.joint(f"drawer_{self.target}").qpos[0])

    def handle_position(self) -> np.ndarray:
        return self.data.site(f"handle_{self.target}").xpos.copy()

    def handle_touched(self) -> bool:
        return bool(self.fingers_touching(f"{self.target}_handle"))


class OpenDrawer(DrawerEnv):
    stages = ("handle_touched", "drawer_opened")

    @property
    def instruction(self) -> str:
        return f"open {self.target} drawer"

    def judge(self) -> tuple[bool, dict[str, bool]]:
        opened = self.travel >= OPEN_TRAVEL
        return opened, {"handle_touched": self.handle_touched(), "drawer_opened": opened}


class CloseDrawer(DrawerEnv):
    stages = ("handle_touched", "drawer_closed")

    def _setup(self, rng: np.random.Generator) -> None:
        super()._setup(rng)
        self.data.joint(f"drawer_{self.target}").qpos[0] = rng.uniform(0.18, 0.22)

    @property
    def instruction(self) -> str:
        return f"close {self.target} drawer"

    def judge(self) -> tuple[bool, dict[str, bool]]:
        closed = self.travel <= CLOSED_TRAVEL
        return closed, {"handle_touched": self.handle_touched(), "drawer_closed": closed}


class OpenDrawerPlace(DrawerEnv):
    """Two sub-tasks; the second starts when the policy terminates the first, or at step 100."""

    stages = ("handle_touched", "drawer_opened", "object_grasped", "object_in_drawer")
    target = "top"

    def _setup(self, rng: np.random.Generator) -> None:
        self._place_apple(rng)
        self._touched_inside = False

    def _after_settle(self) -> None:
        self._rest_height = self.object_position("apple")[2]

    @property
    def instruction(self) -> str:
        return ("open top drawer", "place apple into top drawer")[self.subtask]

    @property
    def is_final_subtask(self) -> bool:
        return self.subtask == 1

    def advance_to_next_subtask(self) -> str:
        self.subtask = 1
        return self.instruction

    def _before_step(self) -> None:
        if self.elapsed_steps >= FORCED_ADVANCE_STEP:
            self.advance_to_next_subtask()

    def apple_inside(self) -> bool:
        """The apple touches the tray of the top drawer."""
        tray = {self.model.geom(f"top_{p}").id for p in ("floor", "side_a", "side_b", "back")}
        return bool(tray & self.contacts("apple"))

    def judge(self) -> tuple[bool, dict[str, bool]]:
        self._touched_inside = self._touched_inside or self.apple_inside()
        lifted = self.object_position("apple")[2] - self._rest_height > 0.02
        stages = {
            "handle_touched": self.handle_touched(),
            "drawer_opened": self.travel >= OPEN_TRAVEL,
            "object_grasped": self.is_grasped("apple") and lifted,
            "object_in_drawer": self._touched_inside,
        }
        success = self.is_final_subtask and self.travel >= CLOSED_TRAVEL and self._touched_inside
        return success, stages
