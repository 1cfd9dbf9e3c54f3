"""RT-1's vectors computed value by value, apart from the toolkit's tables: what they must equal."""

from __future__ import annotations

import numpy as np


def canonical_quaternion(quaternion):
    """Of q and -q the one with x + y >= 0; on the seam the last non-zero of w, z, y, x positive."""
    values = np.asarray(quaternion, np.float64)
    sign = np.sign(values[..., 0] + values[..., 1])
    for component in (3, 2, 1, 0):
        sign = np.where(sign == 0, np.sign(values[..., component]), sign)
    return (values * np.where(sign < 0, -1.0, 1.0)[..., None] + 0.0).astype(np.float32)


def states(tool_pose, gripper_closed):
    """float32 (..., 8): xyz, quaternion xyzw, closedness."""
    pose = np.asarray(tool_pose, np.float32)
    closed = np.asarray(gripper_closed, np.float32).reshape(*pose.shape[:-1], 1)
    return np.concatenate([pose[..., :3], canonical_quaternion(pose[..., 3:]), closed], axis=-1)


def actions(world_vector, rotation_delta, gripper, terminate):
    """float32 (T, 8): motion, roll-pitch-yaw, gripper, +1 where the task ends and -1 elsewhere."""
    found = np.empty((len(world_vector), 8), np.float32)
    found[:, :3] = world_vector
    found[:, 3:6] = rotation_delta
    found[:, 6] = gripper
    found[:, 7] = np.where(terminate, 1.0, -1.0)
    return found


def episode_states(episode):
    """`states` of an `Episode` read with RT-1's table."""
    return states(episode.state[:, :7], episode.state[:, 7])


def episode_actions(episode):
    """`actions` of an `Episode` read with RT-1's table."""
    action = episode.action
    return actions(action[:, :3], action[:, 3:6], action[:, 6], episode.terminate)


def texts(episode):
    """Its instructions, one a step."""
    return [text for (text,) in episode.instructions]
