"""End-effector delta control: SIMPLER's contract on MuJoCo's Jacobians.

One action moves the *sensed* tool pose by (Δxyz, axis-angle) expressed in the base frame; damped
least squares finds the joint target and the servos follow it over one control period.
"""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from eval.envs.mujoco.robot import (
    ARM_JOINTS,
    FINGER_JOINTS,
    FINGER_TRAVEL,
    HOME_QPOS,
    MAX_JOINT_SPEED,
)
from eval.envs.mujoco.scene import CONTROL_HZ, SUBSTEPS

GRIPPER_DEADBAND = 1e-3
"""|gripper command| below this repeats the previous target, as in SIMPLER."""
_MAX_ITERATIONS = 30
_DAMPING = 0.04
_POSTURE_GAIN = 0.1
_RAMP = 0.75
"""Fraction of the control period in which the joint targets move; the arm settles in the rest."""


class ToolController:
    """Differential inverse kinematics and the gripper's relative target."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self.scratch = mujoco.MjData(model)
        joints = [model.joint(n) for n in ARM_JOINTS]
        self.qpos_ids = np.array([j.qposadr[0] for j in joints])
        self.dof_ids = np.array([j.dofadr[0] for j in joints])
        self.limits = np.array([j.range for j in joints])
        self.arm_ctrl = np.array([model.actuator(n).id for n in ARM_JOINTS])
        self.finger_ctrl = np.array([model.actuator(n).id for n in FINGER_JOINTS])
        self.finger_qpos = np.array([model.joint(n).qposadr[0] for n in FINGER_JOINTS])
        self.site = model.site("tool").id
        self.base = model.body("base").id
        self.grip_target = 0.0

    def reset(self, data: mujoco.MjData) -> None:
        """Home posture, gripper open; call before `mj_forward`."""
        self.grip_target = 0.0
        data.qpos[self.qpos_ids] = HOME_QPOS
        data.ctrl[self.arm_ctrl] = HOME_QPOS
        data.qpos[self.finger_qpos] = 0.0
        data.ctrl[self.finger_ctrl] = 0.0

    def tool_pose(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
        """World position (3,) m and rotation matrix (3, 3) of the tool frame."""
        return data.site_xpos[self.site].copy(), data.site_xmat[self.site].reshape(3, 3).copy()

    def base_pose(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
        """World position (3,) m and rotation matrix (3, 3) of the base frame."""
        return data.xpos[self.base].copy(), data.xmat[self.base].reshape(3, 3).copy()

    def gripper_closed(self, data: mujoco.MjData) -> float:
        """0 fully open, 1 fully closed, from the sensed finger positions."""
        return float(np.clip(data.qpos[self.finger_qpos].mean() / FINGER_TRAVEL, 0.0, 1.0))

    def solve(self, data: mujoco.MjData, position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        """Joint angles (7,) that bring the tool closest to a world pose, from the current ones."""
        s, m = self.scratch, self.model
        s.qpos[:] = data.qpos
        jac_p, jac_r = np.zeros((3, m.nv)), np.zeros((3, m.nv))
        for _ in range(_MAX_ITERATIONS):
            mujoco.mj_kinematics(m, s)
            mujoco.mj_comPos(m, s)
            error_p = position - s.site_xpos[self.site]
            current = s.site_xmat[self.site].reshape(3, 3)
            error_r = Rotation.from_matrix(rotation @ current.T).as_rotvec()
            error = np.concatenate([error_p, 0.5 * error_r])
            mujoco.mj_jacSite(m, s, jac_p, jac_r, self.site)
            jac = np.concatenate([jac_p, 0.5 * jac_r])[:, self.dof_ids]
            gram = jac @ jac.T + _DAMPING**2 * np.eye(6)
            inverse = jac.T @ np.linalg.inv(gram)
            q = s.qpos[self.qpos_ids]
            posture = _POSTURE_GAIN * (HOME_QPOS - q)
            step = inverse @ error + posture - inverse @ (jac @ posture)
            s.qpos[self.qpos_ids] = np.clip(q + step, self.limits[:, 0], self.limits[:, 1])
            if np.linalg.norm(error) < 5e-4:
                break
        return s.qpos[self.qpos_ids].copy()

    def step(self, data: mujoco.MjData, control: np.ndarray) -> None:
        """Run one control period (SUBSTEPS physics steps) under a 7-D action."""
        base_rotation = self.base_pose(data)[1]
        position, rotation = self.tool_pose(data)
        target_p = position + base_rotation @ control[:3]
        # the axis-angle acts in the base frame, on the left of the sensed rotation
        delta = Rotation.from_rotvec(base_rotation @ control[3:6]).as_matrix()
        start = data.qpos[self.qpos_ids].copy()
        move = self.solve(data, target_p, delta @ rotation) - start
        longest = MAX_JOINT_SPEED / CONTROL_HZ
        move *= min(1.0, longest / max(float(np.abs(move).max()), 1e-9))
        if abs(control[6]) >= GRIPPER_DEADBAND:
            self.grip_target = float(
                np.clip(self.grip_target + control[6] * FINGER_TRAVEL, 0.0, FINGER_TRAVEL)
            )
        data.ctrl[self.finger_ctrl] = self.grip_target
        for i in range(SUBSTEPS):
            fraction = min(1.0, (i + 1) / (_RAMP * SUBSTEPS))
            data.ctrl[self.arm_ctrl] = start + fraction * move
            mujoco.mj_step(self.model, data)
