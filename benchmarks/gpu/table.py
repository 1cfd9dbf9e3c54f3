"""The table "Measured on" of docs/gpu.md, from results.json files.

    python -m benchmarks.gpu.table runs/gpu/results.json runs/gpu-train/results.json
    python -m benchmarks.gpu.table            as it is without any: every row "not measured"

It is written between the two markers of docs/gpu.md; --check only says whether it is up to date.
Results of a rehearsal (--tiny) are refused: they measure nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import markdown_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gpu.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
NOT_MEASURED = "not measured"
COMMAND = "python -m benchmarks.gpu"

ROWS: tuple[tuple[str, str, str], ...] = (
    ("bfloat16 matrix product", "machine", r"bf16 matrix product"),
    ("copy on the device", "machine", r"copy on the device"),
    ("checks against the CPU that passed", "right", ""),
    ("625M, images: FLOP use", "fast", r"MFU, 625m image compiled"),
    ("625M, video: FLOP use", "fast", r"MFU, 625m video compiled"),
    ("625M, audio: FLOP use", "fast", r"MFU, 625m audio compiled"),
    ("290M, images: FLOP use", "fast", r"MFU, 290m image compiled"),
    ("1B, images: FLOP use", "fast", r"MFU, 1b image compiled"),
    ("SiT-XL/2: FLOP use", "fast", r"MFU, sit image compiled"),
    (
        "625M, images: Self-Flow step / vanilla step",
        "fast",
        r"Self-Flow / vanilla, 625m image compiled",
    ),
    (
        "625M, video: Self-Flow step / vanilla step",
        "fast",
        r"Self-Flow / vanilla, 625m video compiled",
    ),
    (
        "625M, images: naive Self-Flow step / Self-Flow step",
        "fast",
        r"naive / Self-Flow, 625m image eager, naive too",
    ),
    (
        "625M, images: memory above the plan",
        "fast",
        r"memory against the plan, 625m image compiled",
    ),
    ("625M, video: memory above the plan", "fast", r"memory against the plan, 625m video compiled"),
    ("625M, images: GPU idle in a compiled step", "why", r"idle share of the timeline, compiled"),
    (
        "625M, images: host waits in a compiled step",
        "why",
        r"host synchronisations a step, compiled",
    ),
    ("a chunk of `self_flow`, 2 steps: eager", "robot", r"chunk, self_flow, eager.*"),
    ("a chunk of `self_flow`, 2 steps: compiled", "robot", r"chunk, self_flow, compiled, .*"),
    ("a chunk of `self_flow`, 2 steps: CUDA graph", "robot", r"chunk, self_flow, CUDA graph.*"),
    (
        "a chunk of `self_flow`, 2 steps: compiled, CUDA graph",
        "robot",
        r"chunk, self_flow, compiled CUDA graph.*",
    ),
    ("a chunk of a 625M policy, 2 steps: eager", "robot", r"chunk, 625M policy, eager.*"),
    ("a chunk of a 625M policy, 2 steps: compiled", "robot", r"chunk, 625M policy, compiled, .*"),
    ("a chunk of a 625M policy, 2 steps: CUDA graph", "robot", r"chunk, 625M policy, CUDA graph.*"),
    (
        "a chunk of a 625M policy, 2 steps: compiled, CUDA graph",
        "robot",
        r"chunk, 625M policy, compiled CUDA graph.*",
    ),
    (
        "waiting for robot data, 0 workers",
        "fed",
        r"waiting for data, robot, decoded when read, 0 workers",
    ),
    (
        "waiting for robot data, 4 workers",
        "fed",
        r"waiting for data, robot, decoded when read, 4 workers",
    ),
    ("waiting for pictures, 0 workers", "fed", r"waiting for data, pictures, 0 workers"),
    ("waiting for pictures, 12 workers", "fed", r"waiting for data, pictures, 12 workers"),
    ("success of `self_flow` trained there", "train", r"success, self_flow"),
    ("success of `flow_matching` trained there", "train", r"success, flow_matching"),
)
"""What is measured, the stage, and its figure's name."""


def load(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The results, newest first; ValueError for a rehearsal's or another file."""
    found = []
    for path in paths:
        results = json.loads(path.read_text())
        if "stages" not in results or "settings" not in results:
            raise ValueError(f"{path}: expected results.json of {COMMAND}, got another file")
        if results["settings"]["tiny"] or results["settings"]["device"] != "cuda":
            raise ValueError(
                f"{path}: expected results of a GPU, got a rehearsal's; give another file"
            )
        found.append(results)
    return sorted(found, key=lambda results: results["began"], reverse=True)


def rows(results: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The table's rows, each from the newest results that have its figure."""
    table = []
    for what, stage, pattern in ROWS:
        row = dict.fromkeys(("what", "figure", "bar", "card", "date", "command"), "")
        row |= {"what": what, "figure": NOT_MEASURED}
        for result in results:
            entry = result["stages"].get(stage, {})
            value = _passed(entry) if not pattern else _figure(entry, pattern)
            if value is None:
                continue
            row |= value | {
                "card": entry.get("card", "unknown"),
                "date": result["began"][:10],
                "command": f"`{_short(result['command'])}`",
            }
            break
        table.append(row)
    return table


def _passed(entry: Mapping[str, Any]) -> dict[str, str] | None:
    checks = entry.get("checks")
    if not checks:
        return None
    passed = sum(check["verdict"] == "ok" for check in checks)
    failed = [check["check"] for check in checks if check["verdict"] != "ok"]
    return {
        "figure": f"{passed} of {len(checks)}",
        "bar": f"failed: {', '.join(failed)}" * bool(failed),
    }


def _figure(entry: Mapping[str, Any], pattern: str) -> dict[str, str] | None:
    for name, figure in entry.get("figures", {}).items():
        if re.fullmatch(pattern, name):
            missed = ", MISSED" if figure["ok"] is False else ""
            value = figure["value"]
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            return {"figure": f"{text} {figure['unit']}".strip(), "bar": figure["bar"] + missed}
    return None


def _short(command: str) -> str:
    """Without where its files were."""
    return re.sub(r" --(out|wheels|resume) \S+", "", command)


def page_with(page: str, table: str) -> str:
    """The page with another table between its markers; ValueError where they are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE}: expected the markers {BEGIN} and {END}, got none; put them back")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> int:
    """Entry; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULTS.json")
    parser.add_argument("--check", action="store_true", help="change nothing; 1 where it differs")
    given = parser.parse_args()
    try:
        new = page_with(PAGE.read_text(), markdown_table(rows(load(given.results))))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.check:
        return int(new != PAGE.read_text())
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
