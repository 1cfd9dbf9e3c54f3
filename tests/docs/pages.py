"""The Markdown pages, and the blocks of code in them that are run as tests.

A comment before a block of bash or python says what becomes of it:

    <!-- test -->                    it is run as it stands
    <!-- test                        it is run after these replacements, each of which has to occur:
    --episodes 450 => --episodes 2   what a reader runs for hours has a size for seconds
    -->
    <!-- file: NAME -->              it is not run but written to this file
    <!-- no test: WHY -->            it is not run, for this reason
    <!-- setup                       bash that readers do not see
    mkdir data
    -->

The blocks of a page run in order in one directory, which has the repository's checkpoints/ and
configs/, `python` and `selfflow_wm` as in the repository, and nothing else.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RUN = ("bash", "python")
_PIECES = re.compile(
    r"^<!-- setup\n(?P<setup>.*?)^-->$"
    r"|(?:^ *<!-- (?P<word>test|file|no test)(?P<rest>:[^\n]*?|\n.*?)? ?-->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: Path
    line: int
    language: str
    code: str
    """What is run: replacements are made."""
    tested: bool
    reason: str | None = None
    """Why it is not tested; None where the page does not say."""
    file: str | None = None
    """Where it is written instead of being run."""


def pages() -> list[Path]:
    """README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks and hidden setup of a page, in order; ValueError for a replacement that
    does not occur."""
    found = []
    text = page.read_text()
    for match in _PIECES.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["setup"] is not None:
            found.append(Block(page, line, "bash", match["setup"], True))
            continue
        code, rest = textwrap.dedent(match["code"]), (match["rest"] or "").strip()
        if match["word"] == "test":
            for replacement in filter(None, map(str.strip, rest.splitlines())):
                old, _, new = (part.strip() for part in replacement.partition("=>"))
                if old not in code:
                    raise ValueError(
                        f"{page.name}:{line}: expected {old!r} in the block, got none; change the "
                        "replacement above it as the block was changed"
                    )
                code = code.replace(old, new)
        said = {match["word"]: rest.removeprefix(":").strip()}
        tested = match["word"] in ("test", "file")
        reason, file = said.get("no test"), said.get("file")
        found.append(Block(page, line, match["language"], code, tested, reason, file))
    return found
