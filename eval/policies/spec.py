"""Which policy to run: a checkpoint, an expert, random actions, a replay or a server, as strings
and numbers, which travel to worker processes and into records. `eval.policies.make` builds it
there.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from robotics.embodiment.control import acting_mode
from selfflow_wm.files import newest_checkpoint

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = ROOT / "checkpoints"
SHIPPED = {"mujoco": "self_flow", "simpler": "simpler_self_flow"}
"""Name in `CHECKPOINTS` of the policy trained in each simulator; in the embedded one for others."""
DEFAULT_REPLAY = Path("data/embedded")
EXECUTED = "executed"
"""Folder beside a collected dataset that holds, per episode, what was really executed."""

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
    """Where a process holds the checkpoint's model for all workers, see `eval.policies.inference`;
    empty where each has its own."""


def parse_policy(
    words: str,
    checkpoint: str | None,
    options: dict[str, dict[str, Any]],
    backend: str = "mujoco",
) -> PolicySpec:
    """The spec for `--policy words`; checks that the files it needs exist.

    Args:
        words: `checkpoint`, `expert`, `random`, `replay`, `replay:DIR` or `ws://HOST:PORT`.
        checkpoint: path or name of a checkpoint; None is the one shipped for the simulator.
        options: groups `policy`, `random` and `remote` of `configs/eval.yaml`.
        backend: name of the simulator, see `eval.envs.contract`.
    """
    kind, _, rest = words.partition(":")
    if checkpoint is not None and kind != "checkpoint":
        raise ValueError(
            f"policy: expected --checkpoint only with --policy checkpoint; got --policy {words}; "
            "remedy: leave one of them out"
        )
    if kind == "checkpoint" and not rest:
        path = find_checkpoint(checkpoint, backend)
        # What "auto" stands for is part of a run's settings, by its name.
        mode = _acting_mode(path, options["policy"]["mode_name"])
        return PolicySpec("checkpoint", str(path), {**options["policy"], "mode_name": mode})
    if kind == "expert" and not rest:
        return PolicySpec("expert")
    if kind == "random" and not rest:
        return PolicySpec("random", options=options["random"])
    if kind == "replay":
        directory = Path(rest) if rest else DEFAULT_REPLAY
        if not (directory / EXECUTED).is_dir():
            raise ValueError(
                f"policy: expected a dataset made by eval.collect, with a folder {EXECUTED}/; "
                f"got {directory}; remedy: give it as replay:DIR, or collect one with "
                "python -m eval.collect"
            )
        return PolicySpec("replay", str(directory))
    if kind in ("ws", "wss") and rest.startswith("//"):
        return PolicySpec("remote", words, options["remote"])
    raise ValueError(
        f"policy: expected checkpoint, expert, random, replay[:DIR] or ws://HOST:PORT; got "
        f"{words!r}; remedy: choose one of these"
    )


def find_checkpoint(name: str | None, backend: str = "mujoco") -> Path:
    """The checkpoint directory for a path, its own or a run's, a name in `checkpoints/`, or None
    (the simulator's)."""
    wanted = name or SHIPPED.get(backend.partition("?")[0], SHIPPED["mujoco"])
    candidates = [CHECKPOINTS / wanted]
    if name is not None:
        candidates.insert(0, newest_checkpoint(Path(wanted)))
    for path in candidates:
        if (path / "model.safetensors").is_file() and (path / "config.json").is_file():
            return path
    known = sorted(path.parent.name for path in CHECKPOINTS.glob("*/model.safetensors"))
    raise ValueError(
        "checkpoint: expected a directory with model.safetensors and config.json; got "
        f"{' or '.join(map(str, dict.fromkeys(candidates)))}; remedy: train one with "
        "python -m robotics.finetune, "
        + (f"or name one of: {', '.join(known)}" if known else "or run --policy expert")
    )


def _acting_mode(path: Path, asked: str) -> str:
    """What `policy.mode_name` means for the checkpoint at `path`; `ValueError` for a checkpoint
    of another sort, and where it was not trained in that mode."""
    try:
        config = json.loads((path / "config.json").read_text())
    except ValueError:
        config = None
    robot = config.get("robot", config) if isinstance(config, dict) else None  # schema 2, or 1
    if not robot or "modes" not in robot:
        raise ValueError(
            f"checkpoint: expected one of python -m robotics.finetune; got {path} without its modes"
            "; remedy: fine-tune with init= if it is of selfflow_wm.pretrain"
        )
    try:
        return acting_mode(asked, robot["modes"])
    except ValueError as error:
        raise ValueError(f"policy.{error} ({path})") from None


def fingerprint(spec: PolicySpec) -> str | None:
    """SHA-256 over the names and contents of a checkpoint's files; None for other policies.

    A server is asked for it; one that is not ours names none.
    """
    if spec.kind == "remote":
        from eval.policies.remote.policy import served_sha256

        return served_sha256(spec.path, spec.options)
    if spec.kind != "checkpoint":
        return None
    digest = hashlib.sha256()
    for path in sorted(p for p in Path(spec.path).iterdir() if p.is_file()):
        if path.suffix in (".safetensors", ".json"):
            digest.update(path.name.encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def trained(spec: PolicySpec) -> dict[str, Any] | None:
    """How a checkpoint came about, as its config.json has it; None for other policies.

    {"step" (None where it was not recorded), "objective", "run" (directory of the training),
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
