"""Progress of long work where there is no terminal: lines, not too many, with rate and rest."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from selfflow_wm import cli


def run(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> list[str]:
    now = [0.0]
    monkeypatch.setattr(cli.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, get_time=lambda: now[0])
    progress = cli.progress_bar(console)
    progress.live.auto_refresh = False
    bar = progress.add_task("collecting", total=100, note="")
    progress.start()
    progress.update(bar, completed=40, note="continued")
    for _ in range(50):
        now[0] += 6.0
        progress.update(bar, advance=1, note="0 failed")
    said = out.getvalue().splitlines()
    progress.stop()
    return said


def test_a_log_file_gets_a_line_now_and_then(monkeypatch):
    said = run(monkeypatch, terminal=False)
    assert len(said) == 10  # 50 updates in 300 s
    found = re.fullmatch(r"collecting 85/100, 10\.0/min, (\d) min left, 0 failed", said[8])
    assert found and found[1] in "12"  # 15 more at 10 a minute


def test_a_terminal_gets_the_bar_alone(monkeypatch):
    assert not any(line.startswith("collecting 85/100") for line in run(monkeypatch, True))
