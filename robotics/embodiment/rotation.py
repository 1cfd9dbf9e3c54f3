"""Rotation conventions: the only place that converts or canonicalises rotations.

Roll-pitch-yaw means rotations about the fixed x, then y, then z axis (scipy's "xyz", the "sxyz" of
transforms3d that SIMPLER's policies use). Quaternions are xyzw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation


def rpy_to_axis_angle(rpy: ArrayLike) -> np.ndarray:
    """Roll-pitch-yaw (..., 3) rad -> axis times angle (..., 3) rad, float32, angle in [0, pi]."""
    values = _last_axis(rpy, 3, "roll-pitch-yaw")
    rotation = Rotation.from_euler("xyz", values.reshape(-1, 3))
    return rotation.as_rotvec().reshape(values.shape).astype(np.float32)


def axis_angle_to_rpy(axis_angle: ArrayLike) -> np.ndarray:
    """Axis times angle (..., 3) rad -> roll-pitch-yaw (..., 3) rad, float32.

    Pitch lies in [-pi/2, pi/2], roll and yaw in [-pi, pi].
    """
    values = _last_axis(axis_angle, 3, "axis-angle")
    rotation = Rotation.from_rotvec(values.reshape(-1, 3))
    return rotation.as_euler("xyz").reshape(values.shape).astype(np.float32)


def as_quaternion(values: ArrayLike, kind: str) -> np.ndarray:
    """Rotations of any kind -> unit quaternions xyzw (..., 4), float64.

    Args:
        values: (..., 3) "euler_xyz" (roll-pitch-yaw) or "axis_angle", rad; (..., 4)
            "quaternion_xyzw" or "quaternion_wxyz", of any length but zero.
        kind: convention of `values`.

    Raises:
        ValueError: another kind or shape, NaN or infinity, a quaternion of zero length.
    """
    if kind == "euler_xyz":
        array = _last_axis(values, 3, "roll-pitch-yaw")
        rotation = Rotation.from_euler("xyz", array.reshape(-1, 3))
    elif kind == "axis_angle":
        array = _last_axis(values, 3, "axis-angle")
        rotation = Rotation.from_rotvec(array.reshape(-1, 3))
    elif kind in ("quaternion_xyzw", "quaternion_wxyz"):
        array = _last_axis(values, 4, "quaternion")
        ordered = array if kind == "quaternion_xyzw" else np.roll(array, -1, axis=-1)
        if not (np.abs(ordered).max(axis=-1) > 1e-6).all():
            raise ValueError("expected quaternions of length 1, got one of length 0.")
        rotation = Rotation.from_quat(ordered.reshape(-1, 4))
    else:
        raise ValueError(
            "expected euler_xyz, axis_angle, quaternion_xyzw or quaternion_wxyz as the kind of a "
            f"rotation, got {kind!r}."
        )
    return rotation.as_quat().reshape(*array.shape[:-1], 4)


def rpy_between(start: ArrayLike, end: ArrayLike) -> np.ndarray:
    """The rotation (n, 3) roll-pitch-yaw rad, float32, about the fixed base axes that turns
    quaternions xyzw `start` (n, 4) into `end` (n, 4)."""
    turn = Rotation.from_quat(np.asarray(end)) * Rotation.from_quat(np.asarray(start)).inv()
    return turn.as_euler("xyz").astype(np.float32)


def canonical_quaternion(quaternion: ArrayLike) -> np.ndarray:
    """The one of q and -q (the same rotation) with x + y >= 0; xyzw (..., 4) -> float32 (..., 4).

    That is the half space around the tool pointing straight down, (1, 1, 0, 0) / sqrt(2), where a
    manipulator's tool lives. The usual rule w >= 0 has its seam exactly there: a small tilt would
    flip every sign. On the seam the last non-zero of w, z, y, x is made positive, so that the
    choice is unique. Not normalised: a zero quaternion (an absent measurement) stays zero.
    """
    values = _last_axis(quaternion, 4, "quaternion")
    sign = np.sign(values[..., 0] + values[..., 1])
    for component in (3, 2, 1, 0):
        sign = np.where(sign == 0, np.sign(values[..., component]), sign)
    # + 0.0 turns the -0.0 of a flipped zero into 0.0.
    return (values * np.where(sign < 0, -1.0, 1.0)[..., None] + 0.0).astype(np.float32)


def _last_axis(values: ArrayLike, size: int, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != size or not np.isfinite(array).all():
        raise ValueError(
            f"expected finite {name} values of shape (..., {size}), got shape {array.shape} with "
            f"{int((~np.isfinite(array)).sum())} non-finite; check the source of the rotation."
        )
    return array
