"""Whose a run's directory is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from selfflow_wm.training.run import claim

PLAIN = {"resume": True}
HOLD = """
import os, sys, time
from pathlib import Path
from selfflow_wm.files import hold
assert hold(Path(sys.argv[1]) / ".lock") is None
if os.fork() == 0:  # a worker, as those of a data loader, which may outlive the run
    print(os.getpid(), flush=True)
    time.sleep(60)
time.sleep(60)
"""


def test_two_runs_do_not_write_into_one_directory(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        worker = int(other.stdout.readline())
        try:
            for resume in (True, False):
                with pytest.raises(ValueError, match=rf"process {other.pid} .*; .*out="):
                    claim(tmp_path, {"resume": resume})
            assert not (tmp_path / "run.json").exists()
            other.send_signal(signal.SIGKILL)
            other.wait()
            assert claim(tmp_path, PLAIN) is False
            assert claim(tmp_path, PLAIN) is False, "the same process may build a run again"
        finally:
            os.kill(worker, signal.SIGKILL)
            other.kill()


def test_a_disk_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    assert claim(tmp_path, PLAIN) is False
    assert (tmp_path / "run.json").is_file()


@pytest.mark.parametrize("out", ["/etc/passwd", "/proc/no_such", "/etc/passwd/inner"])
def test_a_place_that_cannot_be_written_is_named(out):
    with pytest.raises(ValueError, match=rf"out={out}: expected .*, got .*; choose another out="):
        claim(Path(out), PLAIN)
