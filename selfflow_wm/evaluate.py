"""`python -m selfflow_wm.evaluate [SUBCOMMAND] ...`: measure checkpoints and media."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

SUBCOMMANDS = {
    "checkpoints": "words, limbs, sound against picture, Fréchet distances (the default)",
    "curves": "learning curves of trainings side by side",
    "distance": "FID, FVD or FAD of any two sets of pictures, videos or sounds",
    "probe": "what frozen layers know of a label",
    "labelled": "labelled latents of the toy world, for probe",
    "reconstruct": "pictures through a codec and back, with their PSNR",
    "toy": "look at the toy world, or time it",
    "recogniser": "train the reader of signs that checkpoints are measured with",
    "sizes": "parameters of the model presets, beside the published ones",
}
"""Name -> what it answers; each is a module of `selfflow_wm.commands`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sub-command that the first word names, else `checkpoints`; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = words.pop(0) if words and words[0] in SUBCOMMANDS else "checkpoints"
    return import_module(f"selfflow_wm.commands.{name}").main(words)


if __name__ == "__main__":
    raise SystemExit(main())
