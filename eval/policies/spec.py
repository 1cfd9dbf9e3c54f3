"""Which policy to run, as strings and numbers that can be sent to workers and recorded.

A checkpoint, the simulator's expert, random actions, a replay, or a client of a policy server.
`policies.make` builds it in the worker. Options come from `configs/eval.yaml`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eval.policies.foreign import check_client, named_errors
from eval.policies.scripted import EXECUTED
from robotics.embodiment.control import acting_mode
from selfflow_wm import checkpoints
from selfflow_wm.checkpoints import find_checkpoint
from selfflow_wm.plugins import BUILT_IN, Plugins

DEFAULT_REPLAY = Path("data/embedded")
CLIENTS = Plugins(
    "selfflow_wm.policy_clients",
    dict.fromkeys(("ws", "wss"), "eval.policies.remote.policy:RemotePolicy"),
    "policy",
    check_client,
)
"""Scheme of an address -> a `Policy` built as `client(address, embodiment=NAME, **options)`.

It may have `options_group`, the group of configs/eval.yaml with its options (default: no options),
and a function `served_sha256(address, options)`: the hash of the served checkpoint, or None."""

_NOT_THE_TRAINING = {"step", "trainer", "resume", "device", "log"}
"""Keys of a checkpoint's training configuration that may differ within one training."""


@dataclass(frozen=True)
class PolicySpec:
    """Which policy to run, as strings and numbers."""

    kind: Literal["checkpoint", "expert", "random", "replay", "remote"]
    path: str = ""
    """Directory of the checkpoint or of the replayed dataset, address of the server."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the policy, from `configs/eval.yaml`."""
    address: str = ""
    """Of the process that holds the model for all workers, see `eval.policies.inference`; empty:
    every worker loads the model."""


def parse_policy(
    words: str,
    checkpoint: str | None,
    options: dict[str, dict[str, Any]],
    shipped: str = "self_flow",
) -> PolicySpec:
    """The spec for `--policy WORDS`; checks that the files it needs exist.

    Args:
        words: `checkpoint`, `expert`, `random`, `replay`, `replay:DIR` or a server's address, such
            as `ws://HOST:PORT`; its scheme is one of `CLIENTS`.
        checkpoint: path or name of a checkpoint; None is `shipped`.
        options: groups of `configs/eval.yaml`.
        shipped: name in `checkpoints/` of the policy for the simulator.
    """
    kind, _, rest = words.partition(":")
    if checkpoint is not None and kind != "checkpoint":
        raise ValueError(
            f"policy: expected --checkpoint only with --policy checkpoint, got --policy {words}; "
            "leave one of them out"
        )
    if kind == "checkpoint" and not rest:
        path = find_checkpoint(checkpoint or shipped)
        # The mode that "auto" stands for is recorded in the run's settings.
        mode = _acting_mode(path, options["policy"]["mode_name"])
        given = {**options["policy"], "mode_name": mode}
        return PolicySpec("checkpoint", str(path), {k: v for k, v in given.items() if v != ""})
    if kind == "expert" and not rest:
        return PolicySpec("expert")
    if kind == "random" and not rest:
        return PolicySpec("random", options=options["random"])
    if kind == "replay":
        directory = Path(rest) if rest else DEFAULT_REPLAY
        if not (directory / EXECUTED).is_dir():
            raise ValueError(
                f"policy: expected a dataset made by eval.collect, with a folder {EXECUTED}/, "
                f"got {directory}; give it as replay:DIR, or collect one with "
                "python -m eval.collect"
            )
        return PolicySpec("replay", str(directory))
    if rest.startswith("//"):
        group = getattr(CLIENTS.load(kind), "options_group", None)
        return PolicySpec("remote", words, options[group] if group else {})
    servers = ", ".join(f"{scheme}://ADDRESS" for scheme in CLIENTS.names())
    raise ValueError(
        f"policy: expected checkpoint, expert, random, replay[:DIR] or {servers}, got "
        f"{words!r}; choose one of these"
    )


def _acting_mode(path: Path, asked: str) -> str:
    """The mode that `policy.mode_name` means for the checkpoint at `path`; `ValueError` for another
    kind of checkpoint, and if it has no actions or was not trained in that mode."""
    try:
        config = json.loads((path / "config.json").read_text())
    except ValueError:
        config = None
    robot = config.get("robot", config) if isinstance(config, dict) else None  # schema 2, or 1
    if not robot or "modes" not in robot:
        raise ValueError(
            f"checkpoint: expected one of python -m robotics.finetune, got {path} without its modes"
            "; fine-tune with init= if it is of selfflow_wm.pretrain"
        )
    robots = robot.get("robots", {})
    if robots and not any(row["table"].get("action") for row in robots.values()):
        raise ValueError(
            f"checkpoint: expected a robot with actions, got {', '.join(robots)} of {path}, whose "
            "recordings have none: it was trained on video alone; choose a checkpoint that was "
            "trained on a robot's actions"
        )
    try:
        return acting_mode(asked, robot["modes"])
    except ValueError as error:
        raise ValueError(f"policy.{error} ({path})") from None


def options_group(spec: PolicySpec) -> str | None:
    """The group of configs/eval.yaml that the policy reads; None: it has no options."""
    if spec.kind == "remote":
        return getattr(CLIENTS.load(spec.path.partition(":")[0]), "options_group", None)
    return {"checkpoint": "policy", "random": "random"}.get(spec.kind)


def fingerprint(spec: PolicySpec) -> str | None:
    """SHA-256 over the names and contents of a checkpoint's files; None for other policies.

    A server is asked for it; servers of other projects report none.
    """
    if spec.kind == "remote":
        scheme = spec.path.partition(":")[0]
        served = getattr(CLIENTS.load(scheme), "served_sha256", None)
        if served is None or (origin := CLIENTS.listing()[scheme]) == BUILT_IN:
            return served(spec.path, spec.options) if served else None
        with named_errors(scheme, origin, "to say what it serves"):
            return served(spec.path, spec.options)
    if spec.kind != "checkpoint":
        return None
    return checkpoints.fingerprint(spec.path)


def trained(spec: PolicySpec) -> dict[str, Any] | None:
    """How a checkpoint was trained, from its config.json; None for other policies.

    {"step" (None if it was not recorded), "objective", "run" (directory of the training),
    "seed", "data", "id"}; checkpoints of one training share the `id`.
    """
    if spec.kind != "checkpoint":
        return None
    config = json.loads(Path(spec.path, "config.json").read_text()).get("training") or {}
    named = re.search(r"step_(\d+)$", Path(spec.path).name)
    step = config.get("step", int(named[1]) if named else None)
    same = {key: value for key, value in config.items() if key not in _NOT_THE_TRAINING}
    objective = config.get("objective") or {}
    return {
        "step": step,
        "objective": objective.get("_target_", "").rpartition(".")[2] or None,
        "run": config.get("out"),
        "seed": config.get("seed"),
        "data": config.get("data"),
        "id": hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16],
    }
