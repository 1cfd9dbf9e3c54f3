"""Build the policy that a `PolicySpec` describes, in the process that will use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.policies.foreign import ForeignPolicy, named_errors
from eval.policies.scripted import ExpertPolicy, RandomPolicy, ReplayPolicy
from eval.policies.spec import CLIENTS, PolicySpec
from robotics.embodiment.control import Policy
from selfflow_wm.plugins import BUILT_IN


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
        scheme = spec.path.partition(":")[0]
        client, origin = CLIENTS.load(scheme), CLIENTS.listing()[scheme]
        if origin == BUILT_IN:
            return client(spec.path, embodiment=embodiment, **spec.options)
        with named_errors(scheme, origin, "to be made"):
            policy = client(spec.path, embodiment=embodiment, **spec.options)
        return ForeignPolicy(policy, scheme, origin)
    if spec.kind == "random":
        return RandomPolicy(**spec.options)
    if spec.kind == "replay":
        return ReplayPolicy(Path(spec.path), embodiment)
    return ExpertPolicy()
