"""A Google-robot-like mobile manipulator from primitives: head camera, 7-joint arm, two fingers.

The kinematics are our design: shoulder on the right of a slim torso, spherical shoulder, elbow, spherical
wrist. The base frame has x forward and z up; the tool frame has z along the approach direction
and y along the closing direction, its origin between the fingertips.
"""

from __future__ import annotations

import numpy as np

ARM_JOINTS = tuple(f"arm_{i}" for i in range(1, 8))
FINGER_JOINTS = ("finger_left", "finger_right")
FINGER_GEOMS = {"left": ("pad_left", "tip_left"), "right": ("pad_right", "tip_right")}
FINGER_TRAVEL = 0.055
"""m, each finger; the gripper opens to twice this."""
MAX_JOINT_SPEED = 1.5
"""rad/s, the limit of SIMPLER's planner for this robot."""
HOME_QPOS = np.array([-0.81, -0.59, 1.86, 2.21, 1.50, -1.38, -0.01])
"""rad; elbow out to the right so that the arm stays out of the camera's view."""
CONTROL_HZ = 3
HEAD_CAMERA = "head_camera"
CAMERA_SIZE = (256, 320)
CAMERA_FOVY = 48.0
CAMERA_POSITION = np.array([-0.05, 0.02, 1.42])
CAMERA_TARGET = np.array([0.62, 0.0, 0.70])
"""Point of the base frame that the camera looks at, m."""

UPPER_ARM, FOREARM, HAND = 0.45, 0.42, 0.185
SHOULDER = (0.0, -0.24, 0.92)


def camera_axes(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """MuJoCo `xyaxes` (6,) of a camera at `position` looking at `target`, upright."""
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return np.concatenate([right, np.cross(back, right)])


def _link(radius: float, length: float, rgba: str) -> str:
    return (
        f'<geom class="robot" type="capsule" fromto="0.02 0 0 {length - 0.02} 0 0" '
        f'size="{radius}" rgba="{rgba}" mass="1.0"/>'
    )


def _finger(side: str, sign: int) -> str:
    """One finger: a pad that holds and a slim tip; slides along the tool's closing axis."""
    return f"""
    <body name="finger_{side}" pos="0.06 {sign * FINGER_TRAVEL:.4f} 0" gravcomp="1">
      <joint name="finger_{side}" type="slide" axis="0 {-sign} 0" range="0 {FINGER_TRAVEL}"
             damping="20" armature="0.5"/>
      <geom class="pad" name="pad_{side}" type="box" pos="0.065 {sign * 0.007} 0"
            size="0.055 0.007 0.014"/>
      <geom class="pad" name="tip_{side}" type="box" pos="0.123 {sign * 0.006} 0"
            size="0.006 0.006 0.012"/>
    </body>"""


def robot_xml() -> str:
    """MJCF body of the robot; the base body is placed by the environment at reset."""
    grey, dark, white = "0.62 0.64 0.66 1", "0.23 0.24 0.26 1", "0.86 0.87 0.88 1"
    axes = " ".join(f"{v:.6f}" for v in camera_axes(CAMERA_POSITION, CAMERA_TARGET))
    shoulder = " ".join(map(str, SHOULDER))
    position = " ".join(map(str, CAMERA_POSITION))
    return f"""
  <body name="base" pos="0.65 0 0" quat="0 0 0 1">
    <geom class="robot" type="cylinder" pos="-0.12 0 0.16" size="0.2 0.16" rgba="{dark}"/>
    <geom class="robot" type="box" pos="-0.16 0 0.75" size="0.07 0.09 0.45" rgba="{white}"/>
    <geom class="robot" type="capsule" fromto="-0.14 -0.02 {SHOULDER[2]} {shoulder}" size="0.05"
          rgba="{grey}"/>
    <geom class="visual" type="box" pos="-0.15 0 1.42" size="0.06 0.1 0.05" rgba="{dark}"/>
    <camera name="{HEAD_CAMERA}" pos="{position}" xyaxes="{axes}" fovy="{CAMERA_FOVY}"/>
    <body name="shoulder" pos="{shoulder}" gravcomp="1">
      <joint name="arm_1" class="arm" axis="0 0 1" range="-2.8 2.8"/>
      <geom class="robot" type="sphere" size="0.06" rgba="{dark}" mass="1.0"/>
      <body name="upper_1" gravcomp="1">
        <joint name="arm_2" class="arm" axis="0 1 0" range="-2.0 2.0"/>
        <geom class="visual" type="sphere" size="0.03" mass="0.3"/>
        <body name="upper_2" gravcomp="1">
          <joint name="arm_3" class="arm" axis="1 0 0" range="-3.0 3.0"/>
          {_link(0.05, UPPER_ARM, white)}
          <body name="elbow" pos="{UPPER_ARM} 0 0" gravcomp="1">
            <joint name="arm_4" class="arm" axis="0 1 0" range="-0.1 2.7"/>
            <geom class="robot" type="sphere" size="0.052" rgba="{dark}" mass="0.5"/>
            <body name="forearm" gravcomp="1">
              <joint name="arm_5" class="arm" axis="1 0 0" range="-3.1 3.1"/>
              {_link(0.042, FOREARM, white)}
              <body name="wrist" pos="{FOREARM} 0 0" gravcomp="1">
                <joint name="arm_6" class="wrist" axis="0 1 0" range="-2.2 2.2"/>
                <geom class="robot" type="sphere" size="0.042" rgba="{dark}" mass="0.3"/>
                <body name="hand" gravcomp="1">
                  <joint name="arm_7" class="wrist" axis="1 0 0" range="-3.6 3.6"/>
                  <geom class="robot" type="box" pos="0.035 0 0" size="0.03 0.06 0.025"
                        rgba="{grey}" mass="0.4"/>
                  <site name="tool" pos="{HAND - 0.015} 0 0" zaxis="1 0 0" size="0.005"
                        rgba="0 0 0 0"/>
                  {_finger("left", 1)}
                  {_finger("right", -1)}
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </body>"""


DEFAULTS_XML = """
  <default>
    <geom friction="0.9 0.01 0.002" condim="4"/>
    <default class="robot">
      <geom contype="2" conaffinity="1" friction="0.6 0.01 0.001" density="0" condim="3"/>
    </default>
    <default class="visual">
      <geom contype="0" conaffinity="0" density="0"/>
    </default>
    <default class="pad">
      <geom contype="2" conaffinity="1" friction="1.6 0.05 0.002" condim="4" mass="0.05"
            rgba="0.16 0.16 0.18 1" solref="0.006 1"/>
    </default>
    <default class="arm">
      <joint damping="8" armature="0.6"/>
    </default>
    <default class="wrist">
      <joint damping="3" armature="0.15"/>
    </default>
  </default>"""


def actuators_xml() -> str:
    """Stiff position servos for the arm, force-limited ones for the fingers."""
    gains = [(4000, 160)] * 2 + [(3000, 120)] * 2 + [(1500, 50)] + [(1200, 35)] * 2
    rows = [
        f'<position joint="{j}" name="{j}" kp="{kp}" kv="{kv}" forcerange="-200 200"/>'
        for j, (kp, kv) in zip(ARM_JOINTS, gains, strict=True)
    ]
    rows += [
        f'<position joint="{j}" name="{j}" kp="1500" kv="60" forcerange="-35 35" '
        f'ctrlrange="0 {FINGER_TRAVEL}"/>'
        for j in FINGER_JOINTS
    ]
    return "<actuator>" + "\n".join(rows) + "</actuator>"
