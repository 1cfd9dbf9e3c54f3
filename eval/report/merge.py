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

    console = Console(soft_wrap=True)  # paths stay whole where the output is piped
    if _all_collections(shares):
        kept, missing = merge_collections(out, shares)
        for task, count in kept.items():
            console.print(f"{task}: {count} episodes", highlight=False)
        if missing:
            console.print(
                f"{missing} attempts are missing: to collect them and write the data set, rerun "
                f"the command without --shard and with --out {out}",
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


def _all_collections(shares: Sequence[Path]) -> bool:
    """Whether `shares` are collections; False: evaluations. `ValueError` for both at once."""
    collections = [path for path in shares if is_collection(path)]
    runs = [path for path in shares if (path / "run.json").is_file()]
    if collections and runs:
        raise ValueError(
            f"merge: expected shares of one kind, got the collection {collections[0]} and the "
            f"evaluation {runs[0]}; merge each kind on its own"
        )
    return bool(collections) and collections[0] == shares[0]
