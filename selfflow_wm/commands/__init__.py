"""The commands: a table of all that a user meets, and the command lines of this package.

A command line is read before torch, hydra or matplotlib is imported, so that --help is quick; the
modules here import them only once they are told to work.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

COMMANDS = {
    "pretrain": ("selfflow_wm.pretrain", "train on images, video, audio and video with sound"),
    "finetune": ("robotics.finetune", "train a policy and world model on demonstrations"),
    "sample": ("selfflow_wm.sample", "make images, video and audio with a checkpoint"),
    "evaluate": (
        "selfflow_wm.evaluate",
        "measure checkpoints and media: words, FID, probes, curves",
    ),
    "imagine": ("robotics.imagine", "imagine a robot's future frames and actions, and score them"),
    "inspect": ("robotics.inspect", "examine a data set of demonstrations, and propose its spec"),
    "data": ("robotics.data", "edit a data set into a new one: delete, merge, relabel, trim"),
    "encode": ("robotics.encode", "store a data set's latents, to train from them"),
    "convert": ("robotics.convert", "convert demonstrations between RLDS and LeRobot"),
    "collect": ("eval.collect", "collect demonstrations in a simulator"),
    "eval": ("eval.simpler", "evaluate a policy in closed loop: success rates, videos, a report"),
    "compare": ("eval.compare", "compare evaluations episode by episode"),
    "merge": ("eval.merge", "put the shares of an evaluation together"),
    "serve": ("eval.serve", "serve a policy to robots and simulators elsewhere"),
    "doctor": ("eval.doctor", "check a simulator, and how to install what is missing"),
}
"""Name -> the module that `python -m` runs, and what it is for. `selfflow-NAME` runs it too."""


def script() -> None:
    """What every console script runs: `selfflow-NAME` the command NAME, `selfflow` the first word.

    Unlike `python -m`, a script doesn't look for modules in the current directory first, so that a
    file called eval.py there does no harm.
    """
    name = Path(sys.argv[0]).stem.removeprefix("selfflow").removeprefix("-")
    run(name or None)


def run(name: str | None = None) -> None:
    """Run a command with the words of `sys.argv`; None: the one that the first word names."""
    from selfflow_wm.cli import Parser, unknown_word

    if name is None:
        rows = "\n".join(f"  {name:<10}{what}" for name, (_, what) in COMMANDS.items())
        parser = Parser(
            prog="selfflow",
            usage="selfflow COMMAND ...",
            description="Self-Flow: pretrain, fine-tune, sample and evaluate.",
            epilog=f"commands:\n{rows}\n\nselfflow COMMAND --help for more; selfflow-COMMAND and "
            "python -m MODULE are the same.",
        )
        parser.add_argument("command", metavar="COMMAND", help="see below")
        name = str(parser.parse_args(sys.argv[1:2] or ["--help"]).command)
        if name not in COMMANDS:
            parser.error(unknown_word("a command", name, COMMANDS))
        sys.argv[0:2] = [f"selfflow-{name}"]
    runpy.run_module(COMMANDS[str(name)][0], run_name="__main__", alter_sys=True)
