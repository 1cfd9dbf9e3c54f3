"""What the names of columns, and of their values, say that they hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

FLAGS = re.compile(
    r"(^|/)(is_first|is_last|is_terminal|reward|next\.reward|discount|done|next\.done|success|"
    r"next\.success|frame_index|episode_index|index|task_index|step|terminal|truncated)$"
)
TIME = re.compile(r"time_?stamp|(^|[/._])time$|_ns$")
COMMAND = re.compile(
    r"(^|[/._])(action|actions|command|commands|control|target|targets)([/._]|$)|action"
)
TERMINATE = re.compile(r"terminate|(^|[/._])done$|is_terminal$")
DERIVED = re.compile(
    r"to_go|_box$|bounds|embedding|(^|[/._])src_|orientation_start|height_to|latent|"
    r"(^|/)observation.*command"
)
"""Beside the robot's measurements: goals, limits and features of them."""
KINDS = (
    ("velocity", r"qvel|velocity|velocities|(^|[/._])(vel|qd|twist)([/._]|$)|_vel$|qdot"),
    ("force", r"effort|torque|force|wrench|current|tactile"),
    ("gripper", r"gripper|grasp|finger|closedness|jaw|hand_open|aperture"),
    ("joints", r"joint|qpos|(^|[/._])q($|[/._\d])|motor|servo|arm_pos"),
    ("base", r"(^|[/._])(base|mobile_base|wheels?|mobile|chassis|odom\w*|torso)([/._]|$)"
     r"(?!.*(tool|tcp|ee))"),
    ("rotation", r"rotation|orientation|rpy|euler|quat|axis_angle|rotvec|rot6d|rot($|[/._])"),
    ("position", r"world_vector|translation|position|xyz|(^|[/._])pos($|[/._])|_pos$"),
    ("pose", r"cartesian|pose|eef|(^|[/._])ee([/._]|$)|ee_|_ee|tcp|end_effector|effector|ur_tool"),
)  # fmt: skip
_ARM = re.compile(r"(?:^|[/._])(left|right|arm_?\d|robot_?\d|l|r)(?=[/._]|$)|^(left|right)")


def kind(key: str) -> str:
    """What a column's name says: "joints", "pose", "position", "rotation", "gripper", "base",
    "velocity", "force", "flag", "time", "derived"; "" for nothing, such as "state"."""
    name = key.removeprefix("steps/").lower()
    if FLAGS.search(name) or TERMINATE.search(name):
        return "flag"
    if TIME.search(name):
        return "time"
    if DERIVED.search(name):
        return "derived"
    found = [word for word, pattern in KINDS if re.search(pattern, name.rsplit("/", 1)[-1])]
    if not found:
        found = [word for word, pattern in KINDS if re.search(pattern, name)]
    return (found or [""])[0]


def is_command(key: str) -> bool:
    """Whether a column is, by its name, commanded rather than measured."""
    name = key.removeprefix("steps/").lower()
    if name.startswith(("observation", "next.")):
        return False
    return bool(COMMAND.search(name))


def is_velocity(key: str) -> bool:
    """Whether a column's name says that its values are rates."""
    return re.search(KINDS[0][1], key.lower()) is not None


@dataclass(frozen=True)
class Named:
    """What the name of one value says."""

    kind: str
    """"x", "rotation", "quaternion", "gripper", "joint", "base", "terminate" or ""."""
    arm: str = ""


def value(name: str) -> Named:
    """What the name of one value says: "left_shoulder_pan.pos", "x", "qw", "gripper" ..."""
    text = name.lower().strip()
    found = _ARM.search(text)
    arm = next((word for word in found.groups() if word), "") if found else ""
    bare = re.sub(r"\.(pos|value)$", "", text)
    rules = (
        ("terminate", r"terminate|done"),
        ("gripper", r"gripper|finger|jaw|closed|grasp"),
        ("velocity", r"(\.|_)vel$|velocity"),
        ("quaternion", r"(^|[_.])q[xyzw]$|quat"),
        ("rotation", r"roll|pitch|yaw|(^|[_.])[rw][xyz]$|rot(vec)?[_.]?\w$|euler|axis_angle"),
        ("base", r"base|wheel|theta$"),
        ("joint", r"joint|shoulder|elbow|wrist|waist|forearm|hip|motor|servo|(^|[_.])[jq]_?\d+$"),
        ("x", r"(^|[_.])(d?[xyz]|delta_[xyz]|pos_?[xyz])$"),
    )  # fmt: skip
    for word, pattern in rules:
        # "wrist_roll" is a joint: it has the name of a place on the arm in it.
        if word == "rotation" and re.search(r"shoulder|elbow|wrist|waist|forearm|joint", bare):
            continue
        if re.search(pattern, bare):
            return Named(word, arm)
    return Named("joint" if text.endswith(".pos") else "", arm)


def quaternion_form(names: Sequence[str]) -> str:
    """Order of four named values; "" where the names do not tell."""
    last = "".join(name.lower()[-1:] for name in names)
    return {"xyzw": "quaternion_xyzw", "wxyz": "quaternion_wxyz"}.get(last, "")


def opens(key: str) -> int:
    """+1 where a gripper's name says that larger values are more open, -1 more closed, else 0."""
    name = key.lower()
    if re.search(r"clos", name):
        return -1
    return 1 if re.search(r"open|width|aperture", name) else 0
