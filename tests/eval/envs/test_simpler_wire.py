"""The pipe to the simulator's interpreter, against a small stand-in for SIMPLER's scene."""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from eval.envs.simpler import Simpler, vulkan, wire
from eval.envs.simpler.client import RemoteEnv, SimulatorError
from eval.envs.simpler.scene import Scene
from eval.envs.tasks import TASKS
from eval.policies.scripted import RandomPolicy
from eval.rollout.episode import run_episode
from eval.simpler import main


@pytest.fixture(autouse=True)
def fake_simulator(monkeypatch):
    """Children serve tests/eval/fake_simpler.py in place of the real scene."""
    monkeypatch.setenv("SELFFLOW_WM_SIMPLER_SCENE", "fake_simpler:FakeScene")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


@pytest.fixture
def env():
    made = RemoteEnv("open_drawer_place", "vm", sys.executable, timeouts={"step": 20.0})
    yield made
    made.close()


def test_a_message_comes_back_as_it_was_sent():
    down, up = os.pipe()
    arrays = {
        "image": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
        "pose": np.linspace(0, 1, 7, dtype=">f4"),
        "none": np.zeros((0, 3)),
        "flag": np.array(True),
    }
    wire.send(up, {"op": "x", "words": ["é", None, 1.5]}, arrays)
    header, found = wire.receive(down, 5.0)
    assert header == {"op": "x", "words": ["é", None, 1.5]}
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_a_large_message_does_not_need_the_pipe_to_hold_it():
    down, up = os.pipe()
    picture = np.random.default_rng(0).integers(0, 256, (512, 640, 4), dtype=np.uint8)
    writer = threading.Thread(target=wire.send, args=(up, {}, {"picture": picture}))
    writer.start()
    _, found = wire.receive(down, 20.0)
    writer.join()
    np.testing.assert_array_equal(found["picture"], picture)


def test_objects_never_travel():
    with pytest.raises(ValueError, match="arrays of numbers"):
        wire.encode({}, {"x": np.array([{}], dtype=object)})
    text = b'{"arrays": [{"name": "x", "dtype": "|O", "shape": [1]}]}'
    with pytest.raises(ValueError, match="bytes of numbers"):
        wire.decode(text, b"\0" * 8)


def test_broken_messages_are_named():
    with pytest.raises(ValueError, match="expected 8 bytes"):
        wire.decode(b'{"arrays": [{"name": "x", "dtype": "<f8", "shape": [1]}]}', b"\0" * 4)
    with pytest.raises(ValueError, match="expected 0 bytes"):
        wire.decode(b"{}", b"extra")
    down, up = os.pipe()
    os.write(up, struct.pack("!II", 1 << 31, 0))
    with pytest.raises(ValueError, match="at most"):
        wire.receive(down, 1.0)
    with pytest.raises(wire.TimedOut):
        wire.receive(down, 0.05)
    os.close(up)
    with pytest.raises(wire.Closed):
        wire.receive(down, 1.0)


def test_the_contract_holds_across_the_pipe(env):
    observation, info = env.reset(seed=3)
    assert observation["tool_pose"].shape == (7,) and observation["tool_pose"].dtype == np.float32
    assert observation["gripper_closed"].shape == (1,)
    assert info["instruction"] == "open top drawer" and info["elapsed_steps"] == 0
    assert env.cell == "a0 apple -0.05,-0.02 plain"
    assert not env.is_final_subtask
    assert env.advance_to_next_subtask() == "place apple into top drawer"
    assert env.is_final_subtask
    _, reward, terminated, truncated, info = env.step(np.zeros(7, np.float32))
    assert (reward, terminated, truncated, info["elapsed_steps"]) == (0.0, False, False, 1)
    assert env.camera_image().shape == (256, 320, 3)


@pytest.mark.parametrize("bad", [np.zeros(6), np.full(7, np.nan), np.full(7, np.inf)])
def test_malformed_actions_are_refused_and_the_simulator_lives_on(env, bad):
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"finite action of shape \(7,\)"):
        env.step(bad)
    assert env.step(np.zeros(7))[4]["elapsed_steps"] == 1


def test_an_episode_runs_and_the_expert_acts_beside_the_simulator():
    task = TASKS["open_drawer_place"]
    simulator = Simpler(python=sys.executable)
    env = simulator.make_env(task)
    try:
        result = run_episode(env, RandomPolicy(), task, seed=1)
        assert result.steps == 200 and not result.terminated
        assert [text for _, text in result.instructions] == list(task.subtasks)
        env.reset(seed=0)
        action = simulator.make_expert(env).act()
        np.testing.assert_allclose(action.control, np.full(7, 0.25))
        assert action.terminate
    finally:
        env.close()


def test_what_had_to_be_replaced_stands_beside_the_numbers(tmp_path, capsys):
    def results(out: Path, task: str) -> dict:
        words = ["--task", task, "--policy", "random", "--backend", "simpler", "--episodes", "1"]
        words += ["--simpler-python", sys.executable, "--video", "0", "--workers", "1"]
        assert main([*words, "--out", str(out)]) == 0
        found = json.loads((out / "results.json").read_text())
        assert found["versions"]["simulator's numpy"] == np.__version__  # of that interpreter
        assert "simulator's numpy" not in json.loads((out / "run.json").read_text())["versions"]
        return found["tasks"][task]

    assert results(tmp_path / "near", "move_near")["stand_ins"] == ["stage table"]
    assert "a stand-in for stage table" in " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "near" / "report.html").read_text()
    assert "a stand-in for stage table" in page
    assert "<td>0 plain</td>" in page  # the cell's name in the list of episodes
    assert "<summary>1 variants</summary>" in page
    assert "stand_ins" not in results(tmp_path / "drawer", "open_drawer")
    assert "stand-in" not in capsys.readouterr().out


def test_a_simulator_that_dies_is_one_clear_error_and_is_started_again(env):
    env.reset(seed=0)
    with pytest.raises(SimulatorError, match=r"died during step: exit code 9.*a screw came loose"):
        env.step(np.array([0.9, 0, 0, 0, 0, 0, 0]))
    assert env.reset(seed=0)[1]["elapsed_steps"] == 0


def test_a_simulator_that_hangs_is_ended():
    env = RemoteEnv("open_drawer", "vm", sys.executable, timeouts={"step": 0.5})
    env.reset(seed=0)
    child = env._child
    with pytest.raises(SimulatorError, match="no answer to step in 0.5 s"):
        env.step(np.array([0.8, 0, 0, 0, 0, 0, 0]))
    assert child._process.poll() is not None
    with pytest.raises(SimulatorError, match="reset the environment"):
        env.step(np.zeros(7))


def test_errors_inside_the_simulator_keep_their_message(env):
    env.reset(seed=0)
    with pytest.raises(SimulatorError, match="failed during step: RuntimeError: lost contact"):
        env.step(np.array([0.7, 0, 0, 0, 0, 0, 0]))


def test_a_bad_interpreter_path_is_an_error_in_the_input():
    with pytest.raises(ValueError, match="expected an interpreter"):
        RemoteEnv("open_drawer", "vm", "/no/such/python").reset(seed=0)
    with pytest.raises(SimulatorError, match="died during open.*eval.doctor --simpler-python"):
        RemoteEnv("open_drawer", "vm", "/bin/false").reset(seed=0)


def test_a_simulator_that_cannot_start_ends_the_run_and_not_every_episode(tmp_path):
    words = ["--task", "open_drawer", "--policy", "random", "--backend", "simpler"]
    words += ["--simpler-python", "/bin/false", "--episodes", "2", "--video", "0", "--retries", "0"]
    with pytest.raises(ValueError, match=r"could not start.*eval\.doctor"):
        main([*words, "--workers", "1", "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_ray_tracing_is_refused_where_no_device_can(monkeypatch):
    plain = vulkan.Device("llvmpipe", "Mesa 22.3.6", frozenset())
    monkeypatch.setattr(vulkan, "devices", lambda: [plain])
    with pytest.raises(ValueError, match="expected a Vulkan device with .*, got llvmpipe; "):
        Scene("ray_traced")
    able = vulkan.Device("a GPU", "a driver", frozenset({vulkan.RAY_TRACING}))
    monkeypatch.setattr(vulkan, "devices", lambda: [plain, able])
    vulkan.require_ray_tracing()
