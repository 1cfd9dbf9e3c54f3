"""Build the policy that a `PolicySpec` describes, in the process that will use it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from eval.policies.foreign import ForeignPolicy, named_errors
from eval.policies.scripted import ExpertPolicy, RandomPolicy, ReplayPolicy
from eval.policies.spec import CLIENTS, PolicySpec
from robotics.embodiment.control import Policy
from robotics.embodiment.robot import Robot
from selfflow_wm.plugins import BUILT_IN

_SAID: set[tuple[str, ...]] = set()
"""What this process has told of bridges."""


def make_policy(spec: PolicySpec, robot: Robot) -> Policy:
    """Build the policy for environments of `robot`; a mismatch raises `ValueError`."""
    if spec.kind == "checkpoint":
        from robotics.model.policy import CheckpointPolicy

        world: Any = spec.path
        if spec.address:
            from eval.policies.inference import SharedWorld

            world = SharedWorld(spec.address)
        options = {**spec.options, "name": spec.options.get("robot"), "robot": robot}
        return _told(CheckpointPolicy(world, threads=1, **options))
    if spec.kind == "remote":
        scheme = spec.path.partition(":")[0]
        client, origin = CLIENTS.load(scheme), CLIENTS.listing()[scheme]
        if origin == BUILT_IN:
            return _told(client(spec.path, robot=robot, **spec.options))
        with named_errors(scheme, origin, "to be made"):
            policy = client(spec.path, embodiment=robot.embodiment, **spec.options)
        return ForeignPolicy(policy, scheme, origin)
    if spec.kind == "random":
        return RandomPolicy(**spec.options)
    if spec.kind == "replay":
        return ReplayPolicy(Path(spec.path), robot.embodiment)
    return ExpertPolicy()


def _told(policy: Any) -> Any:
    """The policy, once its bridge has said what it converts between environment and recordings."""
    notes = policy.bridge.notes if policy.bridge is not None else ()
    if notes and notes not in _SAID:
        _SAID.add(notes)
        print(f"policy: {'; '.join(notes)}", file=sys.stderr, flush=True)
    return policy
