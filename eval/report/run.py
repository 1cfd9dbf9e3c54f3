"""The report of a run: tables in the terminal and one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eval.envs.registry import find_task
from eval.report.video import VideoWatcher
from eval.results import controls
from eval.results.records import EpisodeLog, Record
from eval.results.results import policy_line, write_results
from eval.rollout.plan import EpisodePlan
from eval.rollout.run import evaluate
from selfflow_wm import pages
from selfflow_wm.files import write_file
from selfflow_wm.progress import Progress

VIDEOS_PER_OUTCOME = 2
"""Videos shown per task and outcome; all of them are in `videos/`."""


def run_plan(plan: EpisodePlan, why: str) -> int:
    """Run the remaining episodes of a plan, write its results and report, and print them.

    why: a line on the choice of simulator.

    Returns:
        The exit code: 0, 1 if episodes are errors, 130 when interrupted.
    """
    from rich.console import Console

    log = EpisodeLog(plan.out, plan.settings())
    console = Console(soft_wrap=True)  # paths stay whole where the output is piped
    console.print(f"{why}\nwriting to {plan.out}", highlight=False)
    if log.continued:
        console.print(f"continuing: {log.continued} episodes are already done")
    total = sum(not log.done(job.task, job.seed) for job in plan.jobs())
    progress = Progress(total, description="episodes", unit="episode", console=Console())
    seen = {"success": 0, "failure": 0, "error": 0}

    def show(record: Record) -> None:
        seen[record["status"]] += 1
        note = f"{record['task']}, {seen['success']} succeeded"
        progress.add(note=note + f", {seen['error']} crashed" * (seen["error"] > 0))

    code = 0
    try:
        evaluate(plan, log, partial(VideoWatcher, fps=plan.config["video"]["fps"]), show)
    except KeyboardInterrupt:
        code = 130
    finally:
        progress.close()
        log.close()
    if code and not log.records:
        console.print("interrupted before the first episode")
        return code
    found = write_results(plan.out, plan.describe(), log.records)
    report = write_report(plan.out, found, log.records)
    print_tables(console, found)
    if code:
        console.print(f"interrupted; add --out {plan.out} to the same command to continue")
        return code
    console.print(f"report: {report}", highlight=False)
    for line in controls.check(found, plan.simulator):
        console.print(f"warning: {line}", style="yellow", highlight=False, markup=False,
                      soft_wrap=True)  # fmt: skip
    print_errors(console, log.records.values())
    return 1 if found["errors"] else 0


def rate(share: dict[str, Any]) -> str:
    """`72% 18/25`: rate and counts."""
    if share["rate"] is None:
        return "–"
    return f"{100 * share['rate']:.0f}% {share['count']}/{share['of']}"


def interval(share: dict[str, Any]) -> str:
    """`52–86`: Wilson's 95% interval in percent."""
    if share["rate"] is None:
        return "–"
    return f"{100 * share['low']:.0f}–{100 * share['high']:.0f}"


def percent(share: dict[str, Any]) -> str:
    """`72% 18/25 [52–86]`: both."""
    return "–" if share["rate"] is None else f"{rate(share)} [{interval(share)}]"


def milliseconds(latency: dict[str, Any]) -> str:
    """`41.0/58.2`: median and 95th percentile."""
    return f"{latency['p50']:.1f}/{latency['p95']:.1f}" if latency["calls"] else "–"


def simulator_line(results: dict[str, Any]) -> str:
    """The simulator and its caveat."""
    note = results["simulator_note"]
    return results["simulator"] + (f" — {note}" if note else "")


def stand_in_lines(results: dict[str, Any]) -> list[str]:
    """One sentence for each task that was run with stand-ins."""
    return [
        f"{task}: a stand-in for {', '.join(summary['stand_ins'])}, which this installation of "
        "SIMPLER lacks: numbers are close to SIMPLER's, but not the same"
        for task, summary in results["tasks"].items()
        if summary.get("stand_ins")
    ]


def print_tables(console: Any, results: dict[str, Any]) -> None:
    """Print the results of a run."""
    from rich.table import Table

    console.print(f"\nsimulator: [bold]{simulator_line(results)}[/]", highlight=False)
    console.print(f"policy: {policy_line(results)}", highlight=False, markup=False)
    for line in stand_in_lines(results):
        console.print(line, style="yellow", highlight=False, markup=False)
    table = Table(
        title="success", title_justify="left", box=None, padding=(0, 1, 0, 0),
        caption="95%: Wilson interval in percent; ms per model call",
    )  # fmt: skip
    for heading in ("task", "last step", "95%", "any step", "steps", "ms p50/p95", "errors"):
        named = heading == "task"  # long names take two lines before a number loses its end
        table.add_column(heading, justify="left" if named else "right", no_wrap=not named)
    for task, summary in results["tasks"].items():
        last, errors = summary["success_last_step"], summary["errors"]
        table.add_row(
            task,
            f"[bold]{rate(last)}[/]",
            interval(last),
            rate(summary["success_any_step"]),
            "–" if summary["mean_steps"] is None else f"{summary['mean_steps']:.1f}",
            milliseconds(summary["policy_latency_ms"]),
            f"[red]{errors}[/]" if errors else "0",
        )
    for number, mean in enumerate(results["means"].values()):
        if not number:
            table.add_section()
        last, ever = mean["success_last_step"], mean["success_any_step"]
        table.add_row(
            mean["name"],
            f"[bold]{100 * last['rate']:.1f}%[/]",
            interval(last),
            f"{100 * ever['rate']:.1f}%",
        )
    console.print(table, soft_wrap=False)
    if results["errors"]:
        console.print(
            f"[red]{results['errors']} episodes are errors[/]: they crashed or hung and are "
            "neither failures\nnor part of any rate",
            highlight=False,
        )
    if results.get("retries"):
        console.print(f"{results['retries']} tries crashed or hung and were retried")
    stages = Table("task", "stage reached", "rate", box=None, padding=(0, 2, 0, 0))
    for task, summary in results["tasks"].items():
        for number, (stage, share) in enumerate(summary["stages"].items()):
            stages.add_row("" if number else task, stage, percent(share))
    console.print(stages, soft_wrap=False)
    for task, summary in results["tasks"].items():
        for name, value in summary.get("metrics", {}).items():
            console.print(f"{task}: {name} {value:g}", highlight=False, markup=False)


def print_errors(console: Any, records: Iterable[Record]) -> None:
    """Print one line for each episode that is an error."""
    for record in records:
        if record["status"] == "error":
            tries = f" ({record['retries'] + 1} tries)" if record.get("retries") else ""
            console.print(
                f"error in {record['task']} seed {record['seed']}{tries}: {record['error']}",
                style="red", highlight=False, markup=False,
            )  # fmt: skip


def funnel(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a task's funnel plot, from the first stage to success."""
    names = {"success_any_step": "success, any step", "success_last_step": "success, last step"}
    rows = [
        {"label": stage.replace("_", " "), **share} for stage, share in summary["stages"].items()
    ]
    rows += [{"label": label, **summary[name]} for name, label in names.items()]
    return [{**row, "text": percent(row)} for row in rows if row["rate"] is not None]


def pick_videos(out: Path, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Some videos of successes and some of failures, embedded as base64, successes first."""
    videos = []
    for status in ("success", "failure"):
        those = [r for r in records if r["status"] == status and r.get("video")]
        for record in those[:VIDEOS_PER_OUTCOME]:
            if data := pages.embedded(out / record["video"]):
                videos.append({**record, "data": data})
    return videos


def write_report(
    out: Path, results: dict[str, Any], records: Mapping[tuple[str, int], Record]
) -> Path:
    """Write the self-contained page `report.html` into `out`.

    Args:
        out: directory of the run, with its `videos/`.
        results: as in `results.json`.
        records: the run's episodes by task and seed; others are ignored.
    """
    tasks = []
    for name, summary in results["tasks"].items():
        found = [records.get((name, seed)) for seed in results["seeds"][name]]
        those = [record for record in found if record]
        tasks.append(
            {
                "name": name,
                "task": find_task(name),
                "summary": summary,
                "funnel": funnel(summary),
                "videos": pick_videos(out, those),
                "records": sorted(those, key=lambda record: record["index"]),
            }
        )
    path = out / "report.html"
    page = render(
        "run.html.j2",
        results=results,
        tasks=tasks,
        simulator=simulator_line(results),
        stand_ins=stand_in_lines(results),
        policy=policy_line(results),
    )
    write_file(path, page)
    return path


def render(template: str, **values: Any) -> str:
    """A page from a template beside this file; see `selfflow_wm.pages.render`."""
    filters = {"percent": percent, "milliseconds": milliseconds, "interval": interval}
    return pages.render(Path(__file__).with_name(template), filters, **values)
