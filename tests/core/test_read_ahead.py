"""Batches read ahead by threads are the stream's own, in its order, from any position."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from selfflow_wm.data.ahead import ReadAhead, reading_threads


class Squares:
    """A stream of squares whose reading takes the longer the earlier it is due."""

    def __init__(self, slow=0.0, broken=()):
        self.position, self.slow, self.broken = 0, slow, set(broken)
        self.started, self.readers = [], set()

    def __next__(self):
        draw = self.draw()
        return self.encode(self.read(draw), draw)

    def draw(self):
        self.position += 1
        return self.position - 1

    def read(self, draw):
        self.started.append(draw)
        self.readers.add(threading.current_thread())
        time.sleep(self.slow * (3 - draw % 4))
        if draw in self.broken:
            raise ValueError(f"sample {draw}: undecodable")
        return draw**2

    def encode(self, samples, draw):
        assert threading.current_thread() is threading.main_thread()
        return draw, samples

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 4), (5, 2)])
def test_the_order_is_the_streams_and_reading_stays_within_bounds(workers, ahead):
    stream = Squares(slow=0.002)
    batches = ReadAhead(stream, workers, ahead)
    for number in range(12):
        assert next(batches) == (number, number**2)
        assert batches.state_dict() == {"position": number + 1}
        assert len(stream.started) <= number + 1 + max(ahead, workers)
    assert threading.main_thread() not in stream.readers and len(stream.readers) <= workers


def test_a_step_does_not_wait_for_what_was_read_during_the_last():
    stream = Squares()
    batches = ReadAhead(stream, 2, 3)
    next(batches)
    deadline = time.monotonic() + 10
    while len(stream.started) < 4:  # three ahead, while nothing is asked for
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_it_resumes_at_what_was_used_not_at_what_was_read():
    batches = ReadAhead(Squares(), 2, 4)
    for _ in range(5):
        next(batches)
    state = batches.state_dict()
    again = ReadAhead(Squares(), 3, 1)
    next(again)
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert [next(again) for _ in range(3)] == [(5, 25), (6, 36), (7, 49)]
    serial = Squares()
    serial.load_state_dict(state)
    assert next(serial) == (5, 25)


def test_an_error_is_raised_when_its_batch_is_due_and_the_position_stays_before_it():
    batches = ReadAhead(Squares(slow=0.001, broken=[3]), 2, 4)
    for number in range(3):
        assert next(batches)[0] == number
    for _ in range(2):  # as without threads: asked again, it fails again
        with pytest.raises(ValueError, match="sample 3: undecodable"):
            next(batches)
        assert batches.state_dict() == {"position": 3}
    batches.stream.broken.clear()
    assert next(batches) == (3, 9)


def test_a_step_on_the_cpu_keeps_its_cores():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert reading_threads(None, 4, cpu) == 0
    assert 1 <= reading_threads(None, 4, gpu) <= 4
    assert reading_threads(3, 4, cpu) == 3 and reading_threads(0, 4, gpu) == 0


@pytest.mark.parametrize(("workers", "ahead"), [(-1, 4), ("many", 4), (True, 4), (2, 0), (2, 1.5)])
def test_other_numbers_are_refused_with_ones_that_work(workers, ahead):
    with pytest.raises(ValueError, match=r"(workers=2|ahead=4)$"):
        reading_threads(workers, ahead, torch.device("cpu"))


@pytest.mark.parametrize(("workers", "ahead"), [(0, 4), (2, 0)])
def test_no_threads_read_nothing_ahead(workers, ahead):
    with pytest.raises(ValueError, match="workers=0"):
        ReadAhead(Squares(), workers, ahead)


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
sys.path.insert(0, {tests!r})
from test_read_ahead import Squares
from selfflow_wm.data.ahead import ReadAhead
batches = ReadAhead(Squares(slow=0.05), 2, 4)
while True:
    next(batches)
    print("step", flush=True)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_with_all_that_it_started(sent):
    script = SCRIPT.format(tests=os.path.dirname(__file__))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(sent)
    process.communicate(timeout=20)
    assert process.returncode in (-sent, 1, 130)
    assert _ends(process.pid, 10.0), "nothing of its session is left"


def _ends(session: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
