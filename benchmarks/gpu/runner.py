"""Runs the stages as processes with deadlines and keeps results.json up to date."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.record import write_json
from benchmarks.gpu.report import not_reached, summary, write_report
from benchmarks.gpu.stages import Stage, budgets

ROOT = Path(__file__).resolve().parents[2]
GRACE = 5.0
"""s that a stage has between SIGTERM and SIGKILL."""
CLOSING = 3.0
"""s for the report at the end."""
LINE_EVERY = 15.0
"""s between lines of progress."""
LOG_LIMIT = 2 << 20
"""Bytes of log.txt; what a stage prints beyond it is dropped."""
WRITTEN = ("results.json", "report.md", "log.txt", "trace.json.gz", "train-*.tar")
"""Patterns of the files that a run leaves in its directory."""
SETTINGS = {
    # Without it cuBLAS may choose another algorithm for the same product.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "MUJOCO_GL": "egl",
    "PYTHONUNBUFFERED": "1",
    "WANDB_MODE": "disabled",
    "HF_HUB_OFFLINE": "1",
    "NO_COLOR": "1",
}


@dataclass
class Runner:
    """Runs `stages` within `minutes`; `results` is what results.json holds."""

    out: Path
    minutes: float
    stages: Sequence[Stage]
    settings: dict[str, Any]
    path: str = ""
    """Of further packages, before PYTHONPATH."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Stages that cannot run, with the packages they lack."""
    began: float = field(default_factory=time.time)
    """s since the epoch, from which the minutes count."""

    def __post_init__(self) -> None:
        self.ends = self.began + 60 * self.minutes
        self.stopped: int | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.results: dict[str, Any] = {
            "command": "python -m benchmarks.gpu " + shlex.join(sys.argv[1:]),
            "began": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.began)),
            "minutes": self.minutes,
            "settings": self.settings,
            "status": "running",
            "process": os.getpid(),
            "stages": {
                stage.name: {"status": "not reached", "question": stage.question}
                for stage in self.stages
            },
        }

    # ---------------------------------------------------------------- the whole

    def run(self) -> int:
        """Run all stages; the exit status: 0 all done and every check passed, 1 otherwise, 130 or
        143 when stopped. ValueError where its directory cannot be made."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"out: expected a place for a directory, got {self.out} ({error.strerror}); "
                "choose another"
            ) from None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        self.flush()
        left = [stage for stage in self.stages if stage.name not in self.skipped]
        for name, packages in self.skipped.items():
            entry = self.results["stages"][name]
            entry |= {"status": "skipped", "why": "missing " + ", ".join(packages)}
        with tempfile.TemporaryDirectory(
            prefix="selfflow-gpu-", ignore_cleanup_errors=True
        ) as work:
            while left and self.stopped is None:
                remaining = self.ends - time.time() - CLOSING
                budget = budgets(left, remaining)[left[0].name]
                stage = left.pop(0)
                if budget > GRACE + 1:
                    number = len(self.stages) - len(self.skipped) - len(left)
                    self._run_stage(stage, budget, Path(work), number)
                self.flush()
            return self._close()  # before gigabytes are removed

    def _close(self) -> int:
        entries = self.results["stages"].values()
        whole = all(entry["status"] == "done" and _sound(entry) for entry in entries)
        self.results["status"] = "stopped" if self.stopped else "complete" if whole else "partial"
        self.results["seconds"] = round(time.time() - self.began, 1)
        self.flush()
        print("\n" + summary(self.results), flush=True)
        print(f"results: {self.out / 'results.json'}, {self.out / 'report.md'}", flush=True)
        if self.stopped:
            return 128 + self.stopped
        return 0 if whole else 1

    def flush(self) -> None:
        """Write results.json and report.md as far as things are known."""
        write_json(self.out / "results.json", self.results)
        write_report(self.out / "report.md", self.results)

    def _stop(self, number: int, _frame: Any) -> None:
        self.stopped = number
        if self.child is not None:
            _signal_group(self.child, signal.SIGTERM)

    # ---------------------------------------------------------------- one stage

    def _run_stage(self, stage: Stage, budget: float, work: Path, number: int) -> None:
        begun = time.time()
        cut = begun + budget - GRACE
        entry = self.results["stages"][stage.name]
        entry |= {"status": "running", "budget_s": round(budget, 1)}
        ends = time.strftime("%H:%M:%S", time.localtime(self.ends))
        print(
            f"[{number}/{len(self.stages) - len(self.skipped)}] {stage.name}: {stage.question}; "
            f"up to {budget:.0f} s, all ends by {ends}",
            flush=True,
        )
        path = work / f"{stage.name}.json"
        log = self.out / "log.txt"
        with log.open("ab") as file:
            file.write(f"==== {stage.name}\n".encode())
            file.flush()  # before the stage writes to it
            if self.stopped is None:
                self.child = self._start(stage, work, path, cut, file)
                code = self._watch(entry, path, cut)
                _signal_group(self.child, signal.SIGKILL)  # what the stage may have left running
                self.child = None
            else:
                code = None
        _merge(entry, path)
        _trim(log)
        entry["seconds"] = round(time.time() - begun, 1)
        entry["status"] = _status(code, self.stopped is not None)
        if entry["status"] == "done" and (entry["failed"] or not_reached(entry)):
            entry["status"] = "partial"
        if entry["status"] in ("failed", "died", "killed"):
            entry["log"] = log.read_bytes()[-4000:].decode(errors="replace")
        print(f"      {entry['status']} after {entry['seconds']:.0f} s{_counts(entry)}", flush=True)

    def _start(
        self, stage: Stage, work: Path, results: Path, cut: float, log: Any
    ) -> subprocess.Popen[bytes]:
        job = work / f"{stage.name}.job"
        write_json(
            job,
            {
                "results": str(results), "out": str(self.out.resolve()), "deadline": cut,
                "settings": self.settings, "before": self.results["stages"], "module": stage.path,
                "parent": os.getpid(),
            },
        )  # fmt: skip
        paths = [str(ROOT), self.path, os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        for name, value in SETTINGS.items():
            environment.setdefault(name, value)
        environment["TMPDIR"] = str(work)
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.worker", str(job)],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, process_group=0,
        )  # fmt: skip

    def _watch(self, entry: dict[str, Any], path: Path, cut: float) -> int | None:
        """The exit status of the child; None when it had to be killed."""
        assert self.child is not None
        told, printed, seen = 0.0, time.time(), 0.0
        while True:
            try:
                return self.child.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                pass
            now = time.time()
            if not told and (now >= cut or self.stopped is not None):
                told = now
                _signal_group(self.child, signal.SIGTERM)
            if told and now - told >= GRACE:
                _signal_group(self.child, signal.SIGKILL)
                self.child.wait()
                return None
            changed = path.stat().st_mtime if path.exists() else 0.0
            if changed != seen and now - printed > 1:
                seen = changed
                _merge(entry, path)
                self.flush()
            if now - printed >= LINE_EVERY:
                printed = now
                print(
                    f"      {max(0, cut - now):.0f} s left for it, {max(0, self.ends - now):.0f} s "
                    f"for all{_counts(entry)}",
                    flush=True,
                )


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _merge(entry: dict[str, Any], path: Path) -> None:
    try:
        entry |= json.loads(path.read_text())
    except (OSError, ValueError):
        return


def _status(code: int | None, stopped: bool) -> str:
    if code == 0:
        return "done"
    if stopped:
        return "stopped"
    if code is None:
        return "killed"
    return {1: "failed", 3: "cut"}.get(code, "died")


def _sound(entry: dict[str, Any]) -> bool:
    """Whether every check passed."""
    return all(check["verdict"] == "ok" for check in entry.get("checks", []))


def _counts(entry: dict[str, Any]) -> str:
    if not entry.get("planned"):
        return ""
    text = f"; {len(entry['done'])} of {len(entry['planned'])} parts"
    return text + (f", {len(entry['failed'])} failed" if entry["failed"] else "")


def _trim(log: Path) -> None:
    """Keep the end of the log."""
    if log.stat().st_size > LOG_LIMIT:
        log.write_bytes(log.read_bytes()[-LOG_LIMIT // 2 :])
