"""A scripted expert with privileged state: the positive control and the demonstrator.

Each skill is a feedback law of the current state alone, without timers or plans. It therefore
recovers when its actions are perturbed, and its action in a state can be learned from that state.
"""

from __future__ import annotations

import gymnasium
import numpy as np
from scipy.spatial.transform import Rotation

from eval.envs.mujoco.drawer_tasks import CloseDrawer, DrawerEnv, OpenDrawer, OpenDrawerPlace
from eval.envs.mujoco.env import EmbeddedEnv
from eval.envs.mujoco.scene import CABINET_TOP, DRAWER_RANGE, OBJECTS, TABLE_TOP
from eval.envs.mujoco.table_tasks import MoveNear, PickCokeCan
from robotics.embodiment.control import Action

MAX_STEP = 0.085
"""m per control step."""
MAX_TURN = 0.35
"""rad per control step."""
OPEN, CLOSE = -1.0, 1.0
_PULL_TO, _PUSH_TO = 0.22, 0.01


def tool_rotation(tilt: float, closing_yaw: float = 0.0) -> np.ndarray:
    """Tool frame looking along -x, pitched down by `tilt` (rad), turned about the approach axis.

    With `closing_yaw` 0 the fingers close in the vertical plane of the approach, which holds a
    horizontal bar along y; with ±π/2 they close along y.
    """
    approach = np.array([-np.cos(tilt), 0.0, -np.sin(tilt)])
    closing = np.array([-np.sin(tilt), 0.0, np.cos(tilt)])
    frame = np.stack([np.cross(closing, approach), closing, approach], axis=1)
    return Rotation.from_rotvec(approach * closing_yaw).as_matrix() @ frame


BAR_GRASP = tool_rotation(np.deg2rad(40))
TOP_GRASP = tool_rotation(np.deg2rad(80))
TOP_GRASP_ACROSS = tool_rotation(np.deg2rad(80), np.pi / 2)
_TIP_CLEARANCE = 0.030
"""m; the lowest the tool goes above a surface, so that the fingertips stay off it."""


class Expert:
    """Solves every embedded task with the same actions as a policy."""

    def __init__(self, env: gymnasium.Env) -> None:
        if not isinstance(env.unwrapped, EmbeddedEnv):
            raise ValueError(f"expected an embedded environment, got {env.unwrapped}")
        self.env = env.unwrapped

    def reset(self) -> None:
        """Nothing to reset: every action depends on the current state only."""

    def act(self) -> Action:
        """The next action from the simulator's state."""
        env = self.env
        if isinstance(env, OpenDrawer):
            return self._open(env)
        if isinstance(env, CloseDrawer):
            return self._close(env)
        if isinstance(env, OpenDrawerPlace):
            return self._place(env) if env.is_final_subtask else self._open(env)
        if isinstance(env, PickCokeCan):
            return self._pick(env)
        if isinstance(env, MoveNear):
            return self._move_near(env)
        raise ValueError(f"expected one of the embedded tasks, got {type(env).__name__}")

    # --- motions -------------------------------------------------------------------------------
    def _servo(
        self,
        position: np.ndarray,
        rotation: np.ndarray,
        grip: float,
        speed: float = MAX_STEP,
        terminate: bool = False,
    ) -> Action:
        """One bounded step towards a world pose, expressed in the base frame."""
        controller, data = self.env.controller, self.env.data
        base = controller.base_pose(data)[1]
        here, frame = controller.tool_pose(data)
        move = base.T @ (position - here)
        move *= min(1.0, speed / max(float(np.linalg.norm(move)), 1e-9))
        turn = base.T @ Rotation.from_matrix(rotation @ frame.T).as_rotvec()
        turn *= min(1.0, MAX_TURN / max(float(np.linalg.norm(turn)), 1e-9))
        return Action(np.concatenate([move, turn, [grip]]).astype(np.float32), terminate)

    def _tool(self) -> tuple[np.ndarray, np.ndarray]:
        return self.env.controller.tool_pose(self.env.data)

    def _stay(self, rotation: np.ndarray, grip: float, terminate: bool = False) -> Action:
        return self._servo(self._tool()[0], rotation, grip, terminate=terminate)

    def _turn_left(self, rotation: np.ndarray) -> float:
        return float(Rotation.from_matrix(rotation @ self._tool()[1].T).magnitude())

    def _approach(
        self, goal: np.ndarray, rotation: np.ndarray, standoff: float, tolerance: float
    ) -> Action:
        """Approach along the tool's axis: line up `standoff` before the goal, then move in."""
        axis = rotation[:, 2]
        offset = self._tool()[0] - goal
        along = float(offset @ axis)
        aside = float(np.linalg.norm(offset - along * axis))
        lined_up = aside < tolerance and self._turn_left(rotation) < 0.15 and along > -2 * standoff
        if lined_up:
            return self._servo(goal, rotation, OPEN, speed=0.05)
        return self._servo(goal - standoff * axis, rotation, OPEN)

    # --- drawers -------------------------------------------------------------------------------
    def _holds_handle(self, env: DrawerEnv) -> bool:
        return len(env.fingers_touching(f"{env.target}_handle")) == 2

    def _grasp_handle(self, env: DrawerEnv) -> Action:
        goal = env.handle_position()
        here = self._tool()[0]
        if np.linalg.norm((here - goal)[[0, 2]]) < 0.018 and self._turn_left(BAR_GRASP) < 0.2:
            return self._servo(goal, BAR_GRASP, CLOSE, speed=0.02)
        return self._approach(goal, BAR_GRASP, 0.10, 0.02)

    def _open(self, env: DrawerEnv) -> Action:
        if env.travel >= _PULL_TO - 0.02:
            return self._stay(BAR_GRASP, CLOSE, terminate=True)
        if not self._holds_handle(env):
            return self._grasp_handle(env)
        ahead = env.handle_position() + [0.07, 0.0, 0.0]
        return self._servo(ahead, BAR_GRASP, CLOSE)

    def _close(self, env: DrawerEnv) -> Action:
        if env.travel <= _PUSH_TO + 0.01:
            return self._stay(BAR_GRASP, CLOSE, terminate=True)
        if not self._holds_handle(env):
            return self._grasp_handle(env)
        behind = env.handle_position() - [0.07, 0.0, 0.0]
        return self._servo(behind, BAR_GRASP, CLOSE)

    # --- objects -------------------------------------------------------------------------------
    def _grasp_object(self, name: str, rotation: np.ndarray, clear: float) -> Action:
        """Reach over the object from above, go down, close; `clear` is the safe height, m."""
        env = self.env
        here = self._tool()[0]
        goal = env.object_position(name) + self._grasp_offset(name)
        aside = float(np.linalg.norm((here - goal)[:2]))
        if np.linalg.norm(here - goal) < 0.02 and self._turn_left(rotation) < 0.2:
            return self._servo(goal, rotation, CLOSE, speed=0.02)
        if here[2] < clear - 0.03 and aside > 0.08:
            return self._servo(np.array([here[0], here[1], clear + 0.03]), rotation, OPEN)
        return self._approach(goal, rotation, 0.12, 0.022)

    def _grasp_offset(self, name: str) -> np.ndarray:
        """Tall objects are held in their upper half, which the fingers reach first."""
        upright = abs(self.env.data.body(name).xmat[8]) > 0.7
        spec = OBJECTS[name]
        rise = 0.45 * spec.half_height if upright and spec.shape == "cylinder" else 0.0
        surface = TABLE_TOP if self.env.scene == "table" else CABINET_TOP
        lowest = surface + _TIP_CLEARANCE - float(self.env.object_position(name)[2])
        return np.array([0.0, 0.0, max(rise, lowest)])

    def _place(self, env: OpenDrawerPlace) -> Action:
        here = self._tool()[0]
        if env.apple_inside():
            return self._stay(TOP_GRASP, OPEN, terminate=True)
        if not env.is_grasped("apple"):
            released = env.object_position("apple")[0] > 0.01
            if released:  # it is falling into the drawer, or fell beside it: wait open
                return self._stay(TOP_GRASP, OPEN)
            return self._leave_handle_then(env, here)
        apple = env.object_position("apple")
        drop = np.array([env.travel - 0.10, float(np.clip(apple[1], -0.12, 0.12)), 0.0])
        offset = here - apple
        aside = float(np.linalg.norm((drop - apple)[:2]))
        carry = CABINET_TOP + 0.10
        if aside < 0.035:
            if apple[2] < CABINET_TOP - 0.02:
                return self._servo(here, TOP_GRASP, OPEN)
            return self._servo(drop + [0, 0, CABINET_TOP - 0.05] + offset, TOP_GRASP, CLOSE)
        if apple[2] < carry - 0.03 and apple[0] < 0.03:
            return self._servo(apple + [0, 0, 0.10] + offset, TOP_GRASP, CLOSE)
        return self._servo(drop + [0, 0, carry] + offset, TOP_GRASP, CLOSE)

    def _leave_handle_then(self, env: OpenDrawerPlace, here: np.ndarray) -> Action:
        """Let go of the handle, rise in front of the cabinet, then grasp the apple."""
        near_handle = np.linalg.norm((here - env.handle_position())[[0, 2]]) < 0.06
        if near_handle and env.controller.gripper_closed(env.data) > 0.25:
            return self._stay(BAR_GRASP, OPEN)
        if here[2] < CABINET_TOP + 0.07 and here[0] > 0.06:
            return self._servo(here + [0.02, 0.0, 0.12], BAR_GRASP, OPEN)
        return self._grasp_object("apple", TOP_GRASP, CABINET_TOP + 0.10)

    def _pick(self, env: PickCokeCan) -> Action:
        rotation = TOP_GRASP_ACROSS if env.pose == "along_x" else TOP_GRASP
        if not env.is_grasped("coke_can"):
            return self._grasp_object("coke_can", rotation, TABLE_TOP + 0.16)
        can = env.object_position("coke_can")
        if env.is_lifted("coke_can") and can[2] > env.settled["coke_can"][2] + 0.06:
            return self._stay(rotation, CLOSE, terminate=True)
        return self._servo(self._tool()[0] + [0, 0, 0.08], rotation, CLOSE)

    def _move_near(self, env: MoveNear) -> Action:
        rotation = TOP_GRASP
        name = env.source
        source, reference = env.object_position(name), env.object_position(env.reference)
        goal = self._spot_beside(env)
        aside = float(np.linalg.norm((goal - source)[:2]))
        floor = TABLE_TOP + OBJECTS[name].half_height
        clear = TABLE_TOP + 0.19
        here = self._tool()[0]
        if not env.is_grasped(name):
            if env.judge()[0] and np.linalg.norm((source - reference)[:2]) < self._gap(env) + 0.04:
                if here[2] - source[2] > 0.10:
                    return self._stay(rotation, OPEN, terminate=True)
                return self._servo(here + [0.01, 0, 0.08], rotation, OPEN)
            return self._grasp_object(name, rotation, clear)
        offset = here - source
        if aside < 0.03:
            if source[2] < floor + 0.012:
                return self._stay(rotation, OPEN)
            return self._servo(np.array([*goal[:2], floor]) + offset, rotation, CLOSE, speed=0.05)
        carry = floor + 0.07
        if source[2] < carry - 0.03:
            return self._servo(source + [0, 0, 0.08] + offset, rotation, CLOSE)
        return self._servo(np.array([*goal[:2], carry]) + offset, rotation, CLOSE)

    @staticmethod
    def _gap(env: MoveNear) -> float:
        """Distance of the centres to aim at: a hand's width less than what counts as near."""
        return OBJECTS[env.source].radius + OBJECTS[env.reference].radius + 0.045

    def _spot_beside(self, env: MoveNear) -> np.ndarray:
        """The free spot beside the reference object that is nearest to the source's start."""
        reference = env.object_position(env.reference)
        bystander = env.object_position(env.bystander)
        start = env.settled[env.source]
        angles = np.linspace(-np.pi, np.pi, 24, endpoint=False)
        ring = reference[:2] + self._gap(env) * np.stack([np.cos(angles), np.sin(angles)], 1)
        cost = np.linalg.norm(ring - start[:2], axis=1)
        cost += 10.0 * (np.linalg.norm(ring - bystander[:2], axis=1) < 0.15)
        cost += 10.0 * ((ring[:, 0] > -0.03) | (ring[:, 0] < -0.42))
        return np.array([*ring[np.argmin(cost)], 0.0])


assert _PULL_TO < DRAWER_RANGE
