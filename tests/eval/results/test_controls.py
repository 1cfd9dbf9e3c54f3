import json
import sys

import pytest

from eval.envs.mujoco import Mujoco
from eval.envs.registry import RecordedSimulator
from eval.envs.simpler import Simpler
from eval.results import controls
from eval.simpler import main

MUJOCO = Mujoco()


def results(kind, **counts):
    tasks = {task: {"success_last_step": {"count": n, "of": 5}} for task, n in counts.items()}
    return {"policy": {"kind": kind}, "tasks": tasks, "written": "2026-01-01T00:00:00"}


def test_a_zero_is_doubted_until_a_control_of_that_task_has_passed(cache):
    zero = results("checkpoint", move_near=0, open_drawer=2)
    (line,) = controls.check(zero, MUJOCO)
    assert line.startswith("move_near: 0%")
    command = "python -m eval.simpler --task move_near --policy expert --backend mujoco"
    assert command in line
    assert controls.check(results("expert", open_drawer=5), MUJOCO) == []
    assert len(controls.check(zero, MUJOCO)) == 1  # another task's control
    assert controls.check(results("replay", move_near=1), MUJOCO) == []
    assert controls.check(zero, MUJOCO) == []
    stored = json.loads((cache / "selfflow_wm" / "controls.json").read_text())
    assert stored["schema_version"] == 1
    (known,) = stored["installations"].values()
    assert set(known) == {"open_drawer", "move_near"}


def test_a_control_that_fails_is_said_to_fail_and_not_remembered(cache):
    (line,) = controls.check(results("expert", move_near=0), MUJOCO)
    assert "control itself never succeeded" in line
    assert not controls.path().exists()


def test_controls_hold_for_one_simulator_and_its_versions(monkeypatch):
    controls.check(results("expert", move_near=5), MUJOCO)
    zero = results("checkpoint", move_near=0)
    assert controls.check(zero, RecordedSimulator("a:b"))
    monkeypatch.setattr(Mujoco, "versions", lambda self: {"mujoco": "another"})
    assert controls.check(zero, MUJOCO)


def test_simpler_is_known_by_its_interpreter_and_gives_its_own_command():
    there = Simpler(protocol="va", python=sys.executable)
    where = there.installation()
    assert sys.executable in where and "numpy=" in where
    assert Simpler(python="/no/such/python").installation() != where
    zero = results("checkpoint", open_drawer=0)
    (line,) = controls.check(zero, there)
    assert f"--protocol va --simpler-python {sys.executable}" in line
    # There is no expert for WidowX: the drawers' one vouches for the way there.
    spoon = results("checkpoint", put_spoon_on_towel=0)
    (line,) = controls.check(spoon, there)
    assert "no expert for this task" in line and "--task open_drawer " in line
    controls.check(results("expert", close_drawer=3), there)
    assert controls.check(spoon, there) == []
    assert controls.check(zero, there)


@pytest.mark.parametrize("content", ["", "[]", '{"schema_version": 9}', "\x00"])
def test_a_damaged_cache_holds_nothing_and_is_written_anew(content):
    controls.path().parent.mkdir(parents=True)
    controls.path().write_text(content)
    assert controls.check(results("checkpoint", move_near=0), MUJOCO)
    assert controls.check(results("expert", move_near=5), MUJOCO) == []
    assert controls.check(results("checkpoint", move_near=0), MUJOCO) == []


def test_a_cache_that_can_not_be_written_does_not_fail_the_run(cache):
    (cache / "selfflow_wm").write_text("in the way")
    (line,) = controls.check(results("expert", move_near=5), MUJOCO)
    assert "not remembered" in line


def test_a_relative_cache_home_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert controls.path() == tmp_path / ".cache" / "selfflow_wm" / "controls.json"


def test_the_command_warns_then_believes(tmp_path, capsys):
    def run(policy, name):
        arguments = ["--task", "move_near", "--policy", policy, "--backend", "fake_env:make",
                     "--episodes", "3", "--video", "0", "--workers", "1"]  # fmt: skip
        assert main([*arguments, "--out", str(tmp_path / name)]) == 0
        return capsys.readouterr().out

    assert "no positive control has passed" in run("random", "first")
    assert "warning" not in run("expert", "control")
    assert "warning" not in run("random", "second")
