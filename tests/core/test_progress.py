"""Progress of long work: a bar on a terminal, elsewhere lines, not too many, with rate and rest."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from selfflow_wm import progress as module
from selfflow_wm.progress import Progress, clock


@pytest.fixture
def now(monkeypatch):
    """The time in s, to be set."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def work(now, terminal: bool, **options) -> list[str]:
    """What 50 of 100 units of 6 s each say, after 40 that an earlier run did."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, get_time=lambda: now[0])
    with Progress(100, 40, description="collecting", unit="episode", console=console,
                  **options) as progress:  # fmt: skip
        for _ in range(50):
            now[0] += 6.0
            progress.add(note="0 failed")
    return out.getvalue().splitlines()


def test_a_log_file_gets_a_line_now_and_then(now):
    said = work(now, terminal=False)
    assert len(said) == 10  # 50 updates in 300 s
    found = re.fullmatch(r"collecting  85/100  1:30 left  10\.0 episode/min  0 failed", said[8])
    assert found, said[8]  # 15 more at 10 a minute


def test_a_terminal_gets_the_bar_alone(now):
    said = "\n".join(work(now, terminal=True))
    assert "collecting  85/100" not in said and "90/100" in said


@pytest.mark.parametrize("options", [{"quiet": True}, {"transient": True}])
def test_who_is_not_to_speak_says_nothing_in_a_log(now, options):
    assert not work(now, terminal=False, **options)


def test_short_work_leaves_no_line_and_long_work_its_end(now, capsys):
    with Progress(3, description="sampling") as progress:
        for _ in range(3):
            progress.add()
    assert not capsys.readouterr().out
    with Progress(3, description="sampling") as progress:
        for seconds in (31, 31, 1):
            now[0] += seconds
            progress.add()
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
        "1/3",
        "2/3",
        "3/3",
    ]


def test_a_report_is_said_at_once_and_once(now, capsys):
    with Progress(10) as progress:
        now[0] += 40
        progress.report(4, {"loss": 0.5, "wrong": float("nan")})
        assert progress.rate() == pytest.approx(0.1)
    [line] = capsys.readouterr().out.splitlines()
    assert "4/10" in line and "loss 0.5" in line and "wrong" not in line


def test_times_are_read_like_a_clock():
    assert [clock(seconds) for seconds in (5, 125, 3723)] == ["0:05", "2:05", "1:02:03"]
