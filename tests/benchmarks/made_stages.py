"""Stages that misbehave, for tests of the runner; they import no torch."""

import os
import signal
import time

from benchmarks.gpu.record import Bench


def run(bench: Bench) -> None:
    """What the first of the run's words says."""
    bench.row("first", value=1)
    {
        "fine": lambda: None,
        "raises": lambda: 1 / 0,
        "dies": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "hangs": lambda: time.sleep(60),
        "stubborn": _stubborn,
    }[bench.settings["words"][0]]()
    bench.row("last", value=2)


def _stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
