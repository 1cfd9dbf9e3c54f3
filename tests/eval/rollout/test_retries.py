"""Workers and simulators that crash or hang: started again, the episode repeated and counted."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from eval_runs import lines, plain, run_here, words

from eval.envs.contract import Limits
from eval.policies.spec import PolicySpec
from eval.report.video import VideoWatcher
from eval.rollout import workers
from eval.rollout.plan import Job
from eval.rollout.run import EvalSetup
from eval.rollout.workers import Heartbeat, Pool, WorkerSetupError
from eval.simpler import main
from selfflow_wm.processes import kill_tree

VIDEO = partial(VideoWatcher, fps=6.0)


def results(out):
    return json.loads((out / "results.json").read_text())


@pytest.mark.parametrize(("workers", "backend", "why"), [
    ("1", "make_dying_once", "exit code 3"),
    ("2", "make_dying_once", "exit code 3"),
    ("2", "make_hanging_once", "the step after 5 steps took more than 8 s"),
])  # fmt: skip
def test_a_crash_or_hang_is_repeated_and_changes_nothing_but_the_count(
    tmp_path, monkeypatch, capsys, workers, backend, why
):
    monkeypatch.setenv("FAKE_ENV_MARK", str(tmp_path / "mark"))
    out = tmp_path / "run"
    more = ("--workers", workers, "--step-timeout", "8")
    assert main(words(out, *more, backend=backend, task="move_near", policy="random")) == 0
    run_here(words(tmp_path / "quiet", task="move_near", policy="random"))
    assert plain(lines(out)) == plain(lines(tmp_path / "quiet"))
    retried = {r["seed"]: r["retry_errors"] for r in lines(out) if r["retries"]}
    assert list(retried) == [1_000_003]
    assert len(retried[1_000_003]) == 1 and why in retried[1_000_003][0]
    found = results(out)
    assert found["retries"] == found["tasks"]["move_near"]["retries"] == 1
    assert found["errors"] == 0
    assert "1 tries crashed or hung and were retried" in capsys.readouterr().out


def test_after_the_last_try_it_is_an_error_and_continuing_tries_it_again(tmp_path, monkeypatch):
    mark, out = tmp_path / "mark", tmp_path / "run"
    monkeypatch.setenv("FAKE_ENV_MARK", str(mark))
    changes = {"backend": "make_dying_until", "task": "move_near", "policy": "random"}
    arguments = words(out, "--retries", "1", **changes)
    assert main(arguments) == 1
    (lost,) = [r for r in lines(out) if r["status"] == "error"]
    assert (lost["seed"], lost["retries"]) == (1_000_003, 1)
    assert "exit code 3" in lost["error"]
    found = results(out)
    assert found["errors"] == 1 and found["complete"]
    assert found["tasks"]["move_near"]["success_last_step"]["of"] == 5
    mark.touch()  # fixed
    assert main(arguments) == 0
    assert len(lines(out)) == 7
    assert results(out)["tasks"]["move_near"]["success_last_step"]["of"] == 6


def test_one_bad_start_state_does_not_keep_workers_from_starting():
    jobs = [Job("move_near", seed, seed, video=False) for seed in (0, 1)]
    first = tuple(Job("move_near", seed, seed, video=True) for seed in (0, 1))
    setup = EvalSetup(PolicySpec("random"), "fake_env:make_bad_start", "", first, VIDEO)
    queue = iter(jobs)
    with Pool(setup, 1, retries=1) as pool:
        outcomes = {o.job.seed: o for o in pool.run(lambda: next(queue, None))}
    assert "exit code 4" in outcomes[0].error
    assert len(outcomes[0].retried) == 1
    assert outcomes[1].error is None
    with pytest.raises(WorkerSetupError, match="exit code 4"), Pool(setup, 1):
        pass


@pytest.mark.parametrize(("does", "why"), [
    ("die", "died during step: exit code 9"), ("hang", "no answer to step in 8 s"),
])  # fmt: skip
def test_a_simulator_in_its_own_interpreter_is_started_again(tmp_path, monkeypatch, does, why):
    monkeypatch.setenv("SELFFLOW_WM_SIMPLER_SCENE", "fake_simpler:FakeScene")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setenv("FAKE_SCENE_MARK", str(tmp_path / "mark"))
    monkeypatch.setenv("FAKE_SCENE_DOES", does)
    out = tmp_path / "run"
    assert main(["--task", "pick_coke_can", "--policy", "random", "--backend", "simpler",
                 "--simpler-python", sys.executable, "--episodes", "2", "--video", "0",
                 "--workers", "1", "--step-timeout", "10", "--out", str(out)]) == 0  # fmt: skip
    first, second = sorted(lines(out), key=lambda record: record["index"])
    assert (first["retries"], second["retries"]) == (1, 0)
    assert why in first["retry_errors"][0]
    assert first["steps"] == second["steps"] == 80


def test_a_heart_that_stops_is_noticed_and_named(monkeypatch):
    class Here:
        RawArray = staticmethod(lambda kind, size: [0.0] * size)

    now = [0.0]
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    heart = Heartbeat(Here, Limits(reset=100.0, step=10.0))
    assert heart.left() == 100
    assert "first step took more than 100 s" in heart.reason()
    heart.beat()
    now[0] += 11
    assert heart.left() == -1
    assert "after 1 steps took more than 10 s" in heart.reason()
    heart.begin()
    assert heart.left() == 100


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_process_is_killed_with_what_it_started():
    words = [sys.executable, "-c", "import subprocess as s, time\n"
             "print(s.Popen(['sleep', '60'], start_new_session=True).pid, flush=True)\n"
             "time.sleep(60)"]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        grandchild = int(process.stdout.readline())
        kill_tree(process.pid)
        assert process.wait(60) == -9
    assert_ends(grandchild)


def assert_ends(number: int) -> None:
    for _ in range(600):
        state = Path(f"/proc/{number}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    os.kill(number, 9)
    pytest.fail(f"process {number} lives on")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_and_simulators_end_with_a_parent_that_is_killed(tmp_path, how):
    note = tmp_path / "note"
    words = [sys.executable, "-c", "from sleeping_job import Setup\n"
             "from eval.rollout.workers import Pool\n"
             "if __name__ == '__main__':\n"
             "    jobs = iter([1])\n"
             f"    with Pool(Setup({str(note)!r}), 1) as pool:\n"
             "        list(pool.run(lambda: next(jobs, None)))"]  # fmt: skip
    paths = [str(Path(__file__).parents[1]), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with subprocess.Popen(words, env=environment, start_new_session=True) as process:
        while not note.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(how)
        assert process.wait(60) == -how
    for number in map(int, note.read_text().split()):
        assert_ends(number)
