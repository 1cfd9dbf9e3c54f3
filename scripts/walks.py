"""Which files of this project a path runs through: `python scripts/walks.py [WALK ...]`.

A newcomer who follows a path reads the files in which its code runs. Each walk does one thing and
prints these files; with --most N it fails where there are more. What counts: a file counts once a
function of it is called (`sys.setprofile`, in every thread and child process). What modules do
while they are imported does not count.

    loss      RLDS bytes to loss, warm: the second Trainer.train_step of experiment=embedded,
              objective=self_flow, mode joint (which has every modality), until its backward pass
              begins; the optimiser and the average come after the loss. Needs --data
    action    observation to action, warm: CheckpointPolicy.act, once an earlier call is over
    report    command to report: python -m eval.simpler with the shipped checkpoint in the embedded
              simulator, from its words to report.html, one episode with its video. The folder of
              the simulator and the policy's files in robotics/, which the user chooses, are counted
              apart
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("selfflow_wm", "robotics", "eval")
NOTE = "SELFFLOW_WM_WALK"
"""Environment variable: the file to which processes of a walk add the files they run through."""
SMALL = (
    "experiment=embedded", "objective=self_flow", "modes=joint_only", "modes.joint.batch_size=2",
    "model.width=24", "model.heads=2", "codec.fit_frames=32", "codec.fit_windows=16",
    "trainer.validation_batches=1", "log.wandb=disabled", "device=cpu",
    'dataset.train_split="train[:2]"', 'dataset.validation_split="train[2:]"',
)  # fmt: skip
"""Configuration of the walk `loss`."""
SITE = f"""
import os, sys, threading
if os.environ.get({NOTE!r}):
    sys.path.insert(0, {str(ROOT / "scripts")!r})
    import walks
    walks.trace(os.environ[{NOTE!r}])
"""


def trace(note: str) -> None:
    """From now on append each file of this project that runs to `note`, once a process."""
    import threading

    prefix, seen = str(ROOT) + os.sep, set()
    # An environment in the checkout, such as .venv, is not the project.
    counted = tuple(prefix + package + os.sep for package in PACKAGES)

    def profile(frame, event, argument) -> None:
        name = frame.f_code.co_filename
        if event != "call" or name in seen or not name.startswith(counted):
            return
        if frame.f_code.co_name == "<module>" or _importing(frame):
            return
        seen.add(name)
        # A thread that outlives its walk finds no file any more.
        with contextlib.suppress(FileNotFoundError):
            file = os.open(note, os.O_WRONLY | os.O_APPEND)
            os.write(file, f"{name[len(prefix) :]}\n".encode())
            os.close(file)

    threading.setprofile(profile)
    sys.setprofile(profile)


def _importing(frame) -> bool:
    """Whether the frame, or one that called it, is a module or a class being made."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
            return True
        if not frame.f_code.co_flags & 1 and frame.f_code.co_name != "<module>":
            return True  # a class body: its code has no fast locals
        frame = frame.f_back
    return False


def files_of(work: Callable[[], object]) -> list[str]:
    """Files of this project whose functions run in `work`, in this process and its children."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder, "walk")
        note.touch()
        trace(str(note))
        try:
            work()
        finally:
            sys.setprofile(None)
        this = str(Path(__file__).resolve().relative_to(ROOT))
        return sorted(set(note.read_text().splitlines()) - {this})


def loss(data: str) -> list[str]:
    """One training step from the data set `data` (three episodes or more) to its loss."""
    import torch

    from robotics.training.build import build, compose_config

    with tempfile.TemporaryDirectory() as out:
        trainer = build(compose_config([*SMALL, f"data={data}", f"out={out}"])).trainer
        trainer.train_step()
        backward = torch.Tensor.backward

        def stop(*given, **named) -> None:
            sys.setprofile(None)
            backward(*given, **named)

        torch.Tensor.backward = stop
        try:
            return files_of(trainer.train_step)
        finally:
            torch.Tensor.backward = backward


def action() -> list[str]:
    """One call of the shipped policy that predicts a chunk, after one that warmed up."""
    import numpy as np

    from robotics.embodiment.control import Observation
    from robotics.model.policy import CheckpointPolicy

    policy = CheckpointPolicy(ROOT / "checkpoints" / "self_flow", execute=1)
    policy.reset("open top drawer", seed=0)
    observation: Observation = {
        "image": np.zeros((*(policy.bridge.harness.cameras[0].size or ()), 3), np.uint8),
        "tool_pose": np.array([0.4, 0.0, 0.3, 0.0, 0.0, 0.0, 1.0], np.float32),
        "gripper_closed": np.zeros(1, np.float32),
    }
    policy.act(observation)
    return files_of(lambda: policy.act(observation))


def report() -> list[str]:
    """`python -m eval.simpler` in a process of its own, so that imports begin anew."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(SITE)
        note = Path(folder, "walk")
        note.touch()
        words = "-m eval.simpler --backend mujoco --task open_drawer_place --episodes 1"
        subprocess.run(
            [sys.executable, *words.split(), "--video", "1", "--out", str(Path(folder, "run"))],
            check=True, stdout=subprocess.DEVNULL, cwd=ROOT,
            env={**os.environ, NOTE: str(note),
                 "PYTHONPATH": os.pathsep.join([folder, str(ROOT)])},
        )  # fmt: skip
        assert Path(folder, "run", "report.html").is_file()
        found = set(note.read_text().splitlines())
    return sorted(f for f in found if f.startswith(("eval/", "robotics/")))


WALKS: dict[str, Callable[..., list[str]]] = {"loss": loss, "action": action, "report": report}
APART = {"report": {"of the simulator": "eval/envs/mujoco/", "of the policy": "robotics/"}}
"""Walk -> what is counted apart: its name -> how paths of its files begin."""


def main() -> int:
    """Print walks; 1 where one is longer than it may be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("walks", nargs="*", metavar="WALK", help=f"of {', '.join(WALKS)}")
    parser.add_argument("--data", metavar="DIR", help="RLDS data set of the walk loss")
    parser.add_argument("--most", type=int, metavar="N", help="fail where a walk has more files")
    args = parser.parse_args()
    if unknown := [name for name in args.walks if name not in WALKS]:
        parser.error(f"expected {', '.join(WALKS)}, got {', '.join(unknown)}; name these")
    if "loss" in args.walks and not args.data:
        parser.error("loss: expected --data DIR, got none; remedy: add --data data/embedded")
    sys.path.insert(0, str(ROOT))
    long = False
    for name in args.walks or [name for name in WALKS if name != "loss" or args.data]:
        files = loss(args.data) if name == "loss" else WALKS[name]()
        apart = {
            title: [file for file in files if file.startswith(start)]
            for title, start in APART.get(name, {}).items()
        }
        rest = [file for file in files if file not in sum(apart.values(), [])]
        counts = [f"{len(rest)} files", *(f"{len(f)} {title}" for title, f in apart.items())]
        print(f"{name}: {', '.join(counts)}")
        for file in [*rest, *sum(apart.values(), [])]:
            print(f"  {file}")
        long |= args.most is not None and len(rest) > args.most
    return int(long)


if __name__ == "__main__":
    sys.exit(main())
