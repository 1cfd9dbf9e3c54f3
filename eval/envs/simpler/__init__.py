"""SIMPLER behind the environment contract; the only package that imports SIMPLER or SAPIEN.

The simulator's pins are old (Python 3.11, numpy < 2), so it always runs in a child process, in a
separate interpreter or, if SIMPLER is installed in this environment, in the same one:

    harness: RemoteEnv (client) --pipes (wire)--> server -> Scene -> ManiSkill2_real2sim

`tasks` holds the tasks, `cells` the grids, `training` the start states of demonstrations,
`adapters` the conversions, `expert` the privileged controller (with `motions`, and its plans in
`drawers` and `objects`), `interpreter` and `probe` check an installation.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.envs.contract import Cell, Flag, Limits, Row, Simulator, check_drawing, train_seed
from eval.envs.simpler.interpreter import check_interpreter, installed_versions
from eval.envs.simpler.tasks import GROUPS, SIMPLER_TASKS
from eval.envs.tasks import ALL, Task


class Simpler(Simulator):
    """SIMPLER with a grid of start states, an interpreter and a shader."""

    name = "simpler"
    title = "SIMPLER"
    advice = (
        "give --simpler-python PATH (python -m eval.doctor says what is missing there), or "
        "--backend mujoco"
    )
    defaults = {"protocol": "vm", "python": "", "shader": "rasterised"}
    flags = {
        "--simpler-python": Flag(
            "python", "interpreter SIMPLER is installed in (default: the current one)"
        ),
        "--ray-tracing": Flag(
            "shader",
            "SIMPLER: render as for the published drawer numbers; needs a GPU with ray tracing",
            "ray_traced",
        ),
    }
    labels = {
        "simpler-rasterised": {"shader": "rasterised"},
        "simpler-ray-traced": {"shader": "ray_traced"},
    }
    tasks = SIMPLER_TASKS
    groups = GROUPS
    expert_tasks = ALL
    checkpoint = "simpler_self_flow"

    def __init__(self, **settings: str) -> None:
        super().__init__(**settings)
        if (shader := self.settings["shader"]) not in ("rasterised", "ray_traced"):
            raise ValueError(
                f"shader: expected rasterised or ray_traced, got {shader!r}; choose one of these"
            )
        self.note = f"protocol {self.protocol}, {shader.replace('_', ' ')}"
        if shader == "rasterised":
            self.note += "; published drawer numbers are ray traced"
        if self.protocol == "train":
            from eval.envs.simpler.training import STARTS

            self.note += "; where demonstrations start, not a test"
            self.training_starts = STARTS

    @property
    def python(self) -> str:
        """The interpreter that SIMPLER is installed in."""
        return self.settings["python"] or sys.executable

    def available(self) -> tuple[bool, str]:
        if self.settings["python"]:
            return True, f"in {self.settings['python']}"
        if importlib.util.find_spec("mani_skill2_real2sim") is None:
            return False, "SIMPLER is not installed in this interpreter"
        return True, "SIMPLER is installed"

    def training(self) -> Simulator:
        return self.with_protocol("train")

    # --- start states --------------------------------------------------------------------------
    def seeds(self, task: str, episodes: int | None, seed: int) -> list[int]:
        """Numbers of the grid's cells, or seeds for a protocol that draws its cells."""
        from eval.envs.simpler.cells import SEEDED, cells

        protocol = self.settings["protocol"]
        if protocol == "train":
            return [train_seed(seed, i) for i in range(len(super().seeds(task, episodes, seed)))]
        if protocol in SEEDED:
            return super().seeds(task, episodes, seed)
        if seed:
            raise ValueError(
                f"seed: expected none with the grid {protocol}, whose cells and sampling noise are "
                f"fixed, got {seed}; leave --seed out, or draw starts "
                "with --protocol prepackaged"
            )
        return list(range(len(cells(task, protocol))))[:episodes]

    def cell(self, task: str, number: int) -> Cell | None:
        from eval.envs.simpler.protocols import cell_at

        protocol = self.settings["protocol"]
        return None if protocol == "prepackaged" else cell_at(task, protocol, number)

    def describe_start(self, task: str, number: int) -> str:
        """Number, name, environment, its arguments and the reset's options."""
        import json

        from eval.envs.simpler.protocols import cell_at

        cell = cell_at(task, self.settings["protocol"], number)
        words = [
            str(number),
            cell.name,
            cell.env_id,
            json.dumps(cell.build),
            json.dumps(cell.reset),
        ]
        return "\t".join(words)

    def start(self, record: Mapping[str, Any]) -> tuple[str, str]:
        return ("cell", record["cell"]) if "cell" in record else super().start(record)

    # --- running -------------------------------------------------------------------------------
    def make_env(self, task: Task, limits: Limits | None = None) -> Any:
        """The environment of `task`; its `reset(seed=...)` takes a cell's number."""
        from eval.envs.simpler.client import RemoteEnv, timeouts

        self.require()
        seconds = timeouts(limits) if limits else None
        protocol, shader = self.settings["protocol"], self.settings["shader"]
        return RemoteEnv(task.name, protocol, self.python, shader, seconds)

    def make_expert(self, env: Any) -> Any:
        from eval.envs.simpler.client import Expert

        return Expert(env)

    def simulator_versions(self) -> dict[str, str]:
        found = installed_versions(self.python)
        return {f"simulator's {name}": version for name, version in found.items()}

    def installation(self) -> str:
        versions = installed_versions(self.python).items()
        found = " ".join(f"{name}={text}" for name, text in versions)
        return f"{self.label} {Path(self.python).absolute()} {found or 'versions unknown'}"

    def check(self, render: bool = False) -> list[Row]:
        rows = check_interpreter(self.python)
        if render and all(each["ok"] or each["note"] for each in rows):
            rows += check_drawing(self, "open_drawer_place", "first fix what is missing above")
        return rows
