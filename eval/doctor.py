"""`python -m eval.doctor`: what the simulators lack on this machine, and the line that mends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from eval.envs.simpler import ROOT, search_path
from selfflow_wm.cli import Parser, run_main

Row = dict[str, Any]
PROBE = ROOT / "eval" / "envs" / "simpler" / "probe.py"


def build_parser() -> Parser:
    """The command line of `python -m eval.doctor`."""
    parser = Parser(
        prog="python -m eval.doctor",
        description="Say what the simulators lack on this machine and how to mend it.",
        epilog="""examples:
  python -m eval.doctor
  python -m eval.doctor --simpler-python .venv-simpler/bin/python --render

Exit codes: 0 nothing is missing, 1 something is, 2 bad input.""",
    )
    parser.add_argument(
        "--simpler-python", metavar="PATH", help="the python that SIMPLER is installed in"
    )
    parser.add_argument(
        "--render", action="store_true", help="also start SIMPLER and draw one picture (a minute)"
    )
    parser.add_argument(
        "--only", choices=("mujoco", "simpler"), help="look at one simulator (default: both)"
    )
    return parser


def check_embedded() -> list[Row]:
    """The embedded simulator: its packages, and one rendered picture."""
    try:
        from eval.envs.registry import make_env, prepare_rendering
        from eval.envs.tasks import get_task

        prepare_rendering("mujoco")
        env = make_env("mujoco", get_task("move_near"))
        env.reset(seed=0)
        picture = env.unwrapped.camera_image()
        env.close()
    except ImportError as error:
        remedy = f"{sys.executable} -m pip install -e ."
        return [_row("embedded simulator", False, str(error), remedy)]
    except Exception as error:
        # Whatever it is, the other checks are still worth making.
        words = f"{type(error).__name__}: {error}"
        return [
            _row("embedded simulator", False, words, "see the message; MUJOCO_GL=egl or osmesa")
        ]
    return [_row("embedded simulator", True, f"draws {picture.shape[1]} x {picture.shape[0]}")]


def check_simpler(python: str) -> list[Row]:
    """What `python` has of what SIMPLER needs; `ValueError` when it is not an interpreter."""
    environment = {**os.environ, "PYTHONPATH": search_path()}
    try:
        done = subprocess.run(
            [python, str(PROBE)], capture_output=True, text=True, timeout=120, env=environment
        )
    except OSError as error:
        raise ValueError(
            f"simpler-python: expected an interpreter; got {python} ({error.strerror}); "
            "remedy: give the path of the python that SIMPLER is installed in"
        ) from None
    except subprocess.TimeoutExpired:
        return [
            _row("interpreter", False, f"{python} gave no answer in 120 s", "look at it by hand")
        ]
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        words = f"{python} ended with code {done.returncode}: {last}"
        return [_row("interpreter", False, words, "use Python 3.8 to 3.11")]


def check_rendering(python: str) -> list[Row]:
    """Start SIMPLER, reset a drawer cell and draw it."""
    from eval.envs.simpler.client import RemoteEnv, SimulatorError

    env = RemoteEnv("open_drawer_place", "vm", python)
    try:
        env.reset(seed=0)
        picture = env.camera_image()
        label = env.current_label()
    except (SimulatorError, ValueError) as error:
        return [_row("SIMPLER draws", False, str(error), "mend what is missing above first")]
    finally:
        env.close()
    words = f"{picture.shape[1]} x {picture.shape[0]}, {label['rendering']}"
    return [_row("SIMPLER draws", int(picture.std()) > 0, words, "the picture is one colour")]


def _row(name: str, ok: bool, found: str, remedy: str = "") -> Row:
    return {"name": name, "ok": ok, "found": found, "remedy": "" if ok else remedy, "note": False}


def show(title: str, rows: Sequence[Row]) -> bool:
    """Print a section; returns whether nothing is missing."""
    print(title)
    for row in rows:
        mark = "ok     " if row["ok"] else "note   " if row["note"] else "MISSING"
        print(f"  {mark} {row['name']}: {row['found']}")
        if row["remedy"]:
            print(f"          mend: {row['remedy']}")
    return all(row["ok"] or row["note"] for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m eval.doctor`; returns the exit code."""
    args = build_parser().parse_args(argv)
    well = True
    if args.only != "simpler":
        well &= show("embedded simulator (MuJoCo)", check_embedded())
    if args.only != "mujoco":
        python = args.simpler_python or sys.executable
        rows = check_simpler(python)
        if args.render and all(row["ok"] or row["note"] for row in rows):
            rows += check_rendering(python)
        well &= show(f"SIMPLER in {python}", rows)
    print("nothing is missing" if well else "something is missing; see the lines above")
    return 0 if well else 1


if __name__ == "__main__":
    run_main(main)
