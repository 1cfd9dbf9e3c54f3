"""Rotation conventions: the only place that converts or canonicalises rotations.

Roll-pitch-yaw means rotations about the fixed x, then y, then z axis (scipy's "xyz", the "sxyz" of
transforms3d that SIMPLER's policies use). Quaternions are xyzw.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from robotics.embodiment.parts import rotation_width

DOWNWARD = (1.0, 1.0, 0.0, 0.0)
"""Quaternion xyzw, of any length, of a tool that points straight down."""
_TINY = 1e-6


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


def as_quaternion(values: ArrayLike, form: str) -> np.ndarray:
    """Rotations of any form -> unit quaternions xyzw (..., 4), float64.

    Args:
        values: (..., n) of the form's width, see `robotics.embodiment.parts.rotation_width`; angles
            in rad, quaternions of any length but zero. The columns of rot6d are made orthogonal by
            Gram-Schmidt, those of matrix by the nearest rotation.
        form: convention of `values`.

    Raises:
        ValueError: another form or shape, NaN or infinity, a quaternion or column of zero length.
    """
    width = rotation_width(form)
    array = _last_axis(values, width, form)
    flat = array.reshape(-1, width)
    if form.startswith("euler_"):
        rotation = Rotation.from_euler(form.removeprefix("euler_"), flat)
    elif form == "axis_angle":
        rotation = Rotation.from_rotvec(flat)
    elif form in ("quaternion_xyzw", "quaternion_wxyz"):
        ordered = flat if form == "quaternion_xyzw" else np.roll(flat, -1, axis=-1)
        if not (np.abs(ordered).max(axis=-1) > _TINY).all():
            raise ValueError("expected quaternions of length 1, got one of length 0.")
        rotation = Rotation.from_quat(ordered)
    elif form == "rot6d":
        rotation = Rotation.from_matrix(_orthonormal(flat))
    elif form.startswith("homogeneous"):
        square = flat.reshape(-1, 4, 4)
        square = square.transpose(0, 2, 1) if form == "homogeneous_columns" else square
        rotation = Rotation.from_matrix(square[:, :3, :3])
    else:
        rotation = Rotation.from_matrix(flat.reshape(-1, 3, 3))
    return rotation.as_quat().reshape(*array.shape[:-1], 4)


def from_quaternion(quaternion: ArrayLike, form: str) -> np.ndarray:
    """Unit quaternions xyzw (..., 4) -> the rotations in `form` (..., n), float64.

    A form of one axis keeps the turn about it and drops the rest.
    Quaternions come with the sign they have, axis_angle with an angle in [0, pi], Euler angles with
    the second in [-pi/2, pi/2], homogeneous without a translation.
    """
    array = _last_axis(quaternion, 4, "quaternion")
    if form == "quaternion_xyzw":
        return array
    if form == "quaternion_wxyz":
        return np.roll(array, 1, axis=-1)
    rotation = Rotation.from_quat(array.reshape(-1, 4))
    if form == "axis_angle":
        values = rotation.as_rotvec()
    elif form == "rot6d":
        values = rotation.as_matrix()[:, :, :2].transpose(0, 2, 1)
    elif form == "matrix":
        values = rotation.as_matrix()
    elif form.startswith("homogeneous"):
        values = np.tile(np.eye(4), (len(rotation), 1, 1))
        turns = rotation.as_matrix()
        values[:, :3, :3] = turns.transpose(0, 2, 1) if form == "homogeneous_columns" else turns
    elif rotation_width(form) == 1:
        # The part of the turn that is about the axis.
        twist = array.reshape(-1, 4)[:, ["xyz".index(form[-1]), 3]]
        values = 2.0 * np.arctan2(twist[:, 0], twist[:, 1])
        values = values - 2 * np.pi * np.round(values / (2 * np.pi))
    else:
        with warnings.catch_warnings():
            # At gimbal lock the first or last angle is free; scipy's choice is as good as any.
            warnings.filterwarnings("ignore", "Gimbal lock", UserWarning)
            values = rotation.as_euler(form.removeprefix("euler_"))
    return values.reshape(*array.shape[:-1], rotation_width(form))


def compose(first: ArrayLike, then: ArrayLike) -> np.ndarray:
    """The rotation that turns by `first` and, about the fixed axes, by `then`: matrix product
    then @ first. Quaternions xyzw (..., 4), broadcast against each other, float64."""
    a, b = np.broadcast_arrays(np.asarray(then, np.float64), np.asarray(first, np.float64))
    ax, ay, az, aw = np.moveaxis(a, -1, 0)
    bx, by, bz, bw = np.moveaxis(b, -1, 0)
    parts = (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )
    return np.stack(parts, axis=-1)


def inverse(quaternion: ArrayLike) -> np.ndarray:
    """The inverse of unit quaternions xyzw (..., 4)."""
    return np.asarray(quaternion, np.float64) * np.array([-1.0, -1.0, -1.0, 1.0])


def turned(vector: ArrayLike, quaternion: ArrayLike) -> np.ndarray:
    """Vectors (..., 3) turned by unit quaternions xyzw (..., 4), float64."""
    vector, quaternion = np.asarray(vector, np.float64), np.asarray(quaternion, np.float64)
    axis, real = quaternion[..., :3], quaternion[..., 3:]
    twice = 2.0 * np.cross(axis, vector)
    return vector + real * twice + np.cross(axis, twice)


def continuous_signs(quaternion: ArrayLike, before: ArrayLike | None = None) -> np.ndarray:
    """Of q and -q, for every step the one nearer to the step before.

    A fixed half space has a seam where the sign jumps; a recording that starts on the right side of
    it and goes on without jumps has none.

    Args:
        quaternion: (..., T, 4), one after the other in time, whichever order of the components.
        before: (..., 4) the step before the first; without it the first one is left as it is.

    Returns:
        float64 (..., T, 4). Zero quaternions stay zero and are skipped.
    """
    values = _last_axis(quaternion, 4, "quaternion")
    if values.shape[-2] == 0:
        return values
    first = (
        np.zeros_like(values[..., :1, :]) if before is None else np.asarray(before)[..., None, :]
    )
    path = np.concatenate([first, values], axis=-2)
    # A step agrees with the last one that is not zero.
    present = np.abs(path).max(axis=-1) > _TINY
    steps = np.arange(path.shape[-2])
    last = np.maximum.accumulate(np.where(present, steps, 0), axis=-1)
    held = np.take_along_axis(path, last[..., None], axis=-2)
    dots = (held[..., :-1, :] * path[..., 1:, :]).sum(-1)
    sign = np.cumprod(np.where(dots < 0, -1.0, 1.0), axis=-1)
    return values * sign[..., None] + 0.0


def continuous_angles(
    values: ArrayLike, form: str, before: ArrayLike, limits: tuple[float, float] | None = None
) -> np.ndarray:
    """Of the angles that are one rotation, for every step those nearest to the step before: an arm
    at 179 degrees that is sent to -179 instead of 181 turns all the way round.

    Args:
        values: (..., T, n) rad of an Euler form or of axis_angle, one after the other in time.
        form: theirs.
        before: (..., n) the step before the first.
        limits: smallest and largest angle there is; a whole turn apart, they leave no choice.

    Returns:
        float64 (..., T, n).
    """
    found = np.array(values, np.float64)
    last = np.broadcast_to(np.asarray(before, np.float64), found[..., 0, :].shape)
    for step in range(found.shape[-2]):
        ways = _same_rotation(found[..., step, :], form, last)
        if limits is not None and form != "axis_angle":
            low, high = limits[0] - _TINY, limits[1] + _TINY
            ways = ways + 2 * np.pi * np.ceil(np.maximum(low - ways, 0) / (2 * np.pi))
            ways = ways - 2 * np.pi * np.ceil(np.maximum(ways - high, 0) / (2 * np.pi))
        far = np.linalg.norm(ways - last[..., None, :], axis=-1)
        near = far.argmin(axis=-1)[..., None, None]
        last = np.take_along_axis(ways, near, axis=-2)[..., 0, :]
        found[..., step, :] = last
    return found


def _same_rotation(values: np.ndarray, form: str, near: np.ndarray) -> np.ndarray:
    """Angles (..., k, n) of the same rotation as `values` (..., n), `near` the given ones."""
    turn = 2 * np.pi
    if form == "axis_angle":
        angle = np.linalg.norm(values, axis=-1, keepdims=True)
        axis = values / np.maximum(angle, _TINY)
        turns = np.round(((near * axis).sum(-1, keepdims=True) - angle) / turn)
        other = values + turn * turns * axis
        return np.stack([values, other], axis=-2)
    ways = [values]
    if values.shape[-1] == 3:
        # The second angle beyond a quarter turn: of three axes mirrored, of two axes negated.
        axes = form.removeprefix("euler_").lower()
        middle = np.pi - values[..., 1] if axes[0] != axes[2] else -values[..., 1]
        ways.append(np.stack([values[..., 0] + np.pi, middle, values[..., 2] + np.pi], axis=-1))
    found = np.stack(ways, axis=-2)
    return found + turn * np.round((near[..., None, :] - found) / turn)


def canonical_quaternion(
    quaternion: ArrayLike, half_space: Sequence[float] = DOWNWARD
) -> np.ndarray:
    """The one of q and -q (the same rotation) whose product with `half_space` is positive; xyzw
    (..., 4) -> float32 (..., 4).

    The default, x + y >= 0, is the half space around the tool pointing straight down, where many a
    manipulator's tool lives. The usual rule w >= 0 has its seam exactly there: a small tilt would
    flip every sign. On the seam the last non-zero of w, z, y, x is made positive, so that the
    choice is unique. Not normalised: a zero quaternion (an absent measurement) stays zero.
    """
    values = _last_axis(quaternion, 4, "quaternion")
    sign = np.sign(sum(values[..., i] * half_space[i] for i in range(4)))
    for component in (3, 2, 1, 0):
        sign = np.where(sign == 0, np.sign(values[..., component]), sign)
    # + 0.0 turns the -0.0 of a flipped zero into 0.0.
    return (values * np.where(sign < 0, -1.0, 1.0)[..., None] + 0.0).astype(np.float32)


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """Matrices (n, 3, 3) from their first two columns (n, 6), by Gram-Schmidt."""
    first, second = columns[:, :3], columns[:, 3:]
    x = first / _length(first)
    y = second - (x * second).sum(-1, keepdims=True) * x
    y = y / _length(y)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def _length(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (length > _TINY).all():
        raise ValueError("expected rot6d of two independent columns, got one of length 0.")
    return length


def _last_axis(values: ArrayLike, size: int, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != size or not np.isfinite(array).all():
        raise ValueError(
            f"expected finite {name} values of shape (..., {size}), got shape {array.shape} with "
            f"{int((~np.isfinite(array)).sum())} non-finite; check the source of the rotation."
        )
    return array
