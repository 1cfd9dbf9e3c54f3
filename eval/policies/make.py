"""Build the policy that a `PolicySpec` describes, in the process that will use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.policies.scripted import ExpertPolicy, RandomPolicy, ReplayPolicy
from eval.policies.spec import CLIENTS, PolicySpec
from robotics.embodiment.control import Policy


def make_policy(spec: PolicySpec, embodiment: str) -> Policy:
    """Build the policy for environments of `embodiment`; a mismatch raises `ValueError`."""
    if spec.kind == "checkpoint":
        from robotics.model.policy import CheckpointPolicy

        world: Any = spec.path
        if spec.address:
            from eval.policies.inference import SharedWorld

            world = SharedWorld(spec.address)
        return CheckpointPolicy(world, embodiment=embodiment, threads=1, **spec.options)
    if spec.kind == "remote":
        client = CLIENTS.load(spec.path.partition(":")[0])
        return client(spec.path, embodiment=embodiment, **spec.options)
    if spec.kind == "random":
        return RandomPolicy(**spec.options)
    if spec.kind == "replay":
        return ReplayPolicy(Path(spec.path), embodiment)
    return ExpertPolicy()
