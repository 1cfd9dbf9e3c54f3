"""`python -m selfflow_wm.evaluate [SUBCOMMAND] ...`: measure checkpoints and media."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from selfflow_wm.checkpoints import SHIPPED
from selfflow_wm.cli import unknown_word

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
    if words and name == "checkpoints" and _is_mistyped(words[0]):
        sys.stderr.write(f"error: {unknown_word('a sub-command', words[0], SUBCOMMANDS)}\n")
        return 2
    return import_module(f"selfflow_wm.commands.{name}").main(words)


def _is_mistyped(word: str) -> bool:
    """Whether `word` looks like a sub-command and is no checkpoint."""
    there = Path(word).exists() or (SHIPPED / word).exists()
    return bool(get_close_matches(word, SUBCOMMANDS, cutoff=0.75)) and not there


if __name__ == "__main__":
    raise SystemExit(main())
