"""Reports on merging shares: their combined results and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.report.run import print_errors, print_tables, write_report
from eval.results.merge import merge_runs
from eval.rollout.collect import is_collection, merge_collections


def merge_and_report(out: Path, shares: Sequence[Path], command: str) -> int:
    """Merge runs or collections into `out` and print what is there.

    Args:
        out: must be empty or not exist yet.
        shares: what `eval.simpler --shard` or `eval.collect --shard` wrote.
        command: recorded in a merged run.

    Returns:
        The exit code: 0, 1 with errors or missing episodes.
    """
    from rich.console import Console

    console = Console()
    if is_collection(shares[0]):
        kept, missing = merge_collections(out, shares)
        for task, count in kept.items():
            console.print(f"{task}: {count} episodes", highlight=False)
        if missing:
            console.print(
                f"{missing} attempts are missing: run the shares' command without --shard and with "
                f"--out {out} to make them and pack the set",
                style="red", highlight=False,
            )  # fmt: skip
        return 1 if missing else 0
    found, records = merge_runs(out, shares, command)
    report = write_report(out, found, records)
    print_tables(console, found)
    console.print(f"report: {report}", highlight=False)
    print_errors(console, records.values())
    missing = sum(len(seeds) for seeds in found["seeds"].values()) - len(records)
    if missing:
        console.print(f"{missing} episodes are missing: a share is missing or unfinished",
                      style="red", highlight=False)  # fmt: skip
    return 1 if found["errors"] or missing else 0
