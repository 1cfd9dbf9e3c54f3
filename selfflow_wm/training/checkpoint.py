"""Directories that appear whole or not at all, holding safetensors and JSON (never pickle)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from selfflow_wm.files import atomic_directory as atomic_directory
from selfflow_wm.files import atomic_file as atomic_file
from selfflow_wm.files import read_json as read_json
from selfflow_wm.files import recover as recover
from selfflow_wm.files import write_json as write_json


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to one safetensors file (contiguous copies, on the CPU)."""
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, path)
    Path(path).chmod(0o644)  # safetensors makes files for their owner alone


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; ValueError names the file when it is missing or broken."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; is this a complete checkpoint?")
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own type and OSError for damage
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None


Place = Callable[[Tensor, Tensor], Tensor]


def as_it_is(value: Tensor, like: Tensor) -> Tensor:
    """The `Place` of one process."""
    return value


def load_strict(
    module: nn.Module, tensors: dict[str, Tensor], source: Path | str, place: Place = as_it_is
) -> None:
    """Load `tensors` into `module`; any missing, unknown or differently shaped key refuses.

    place: `(value, like)` lays a whole tensor out as the module's own is."""
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    shapes = [
        f"{k} (expected {tuple(expected[k].shape)}, got {tuple(tensors[k].shape)})"
        for k in sorted(expected.keys() & tensors.keys())
        if expected[k].shape != tensors[k].shape
    ]
    if missing or unknown or shapes:
        raise ValueError(
            f"{source}: the weights do not fit the model. Missing: {missing[:5] or 'none'}; "
            f"unknown: {unknown[:5] or 'none'}; other shapes: {shapes[:5] or 'none'}. "
            "Load it with the configuration it was saved with."
        )
    module.load_state_dict({k: place(v, expected[k]) for k, v in tensors.items()}, strict=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments and counters as `index.key` tensors."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": value for i, slots in state.items() for key, value in slots.items()}


def load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], place: Place = as_it_is
) -> None:
    """Put `optimizer_tensors` back; rates and decays come from the optimiser as built. place: as
    of `load_strict`."""
    target = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        if int(index) >= len(parameters):
            raise ValueError(
                f"optimizer state: expected at most {len(parameters)} parameters, got index "
                f"{index}; resume with the model the state was saved from"
            )
        if key != "step":  # a counter; the moments are laid out as their parameter
            value = place(value, parameters[int(index)])
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": target["param_groups"]})


STATE_PREFIX = "step_"


def step_directory(root: Path, step: int) -> Path:
    """`root/step_00001234`."""
    return Path(root) / f"{STATE_PREFIX}{step:08d}"


def latest_step(root: Path) -> Path | None:
    """The complete state directory of the largest step under `root`, or None."""
    found = sorted(Path(root).glob(f"{STATE_PREFIX}[0-9]*"))
    return found[-1] if found else None


def remove_older(root: Path, keep: int) -> None:
    """Delete all but the newest `keep` step directories, and what crashed writers left."""
    for old in sorted(Path(root).glob(f"{STATE_PREFIX}[0-9]*"))[: -max(1, keep)]:
        shutil.rmtree(old, ignore_errors=True)
    for stale in Path(root).glob(f".{STATE_PREFIX}*.tmp-*"):
        shutil.rmtree(stale, ignore_errors=True)
