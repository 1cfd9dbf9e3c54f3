"""Against the real SIMPLER: `SIMPLER_PYTHON=PATH pytest -m simpler -n0`; minutes on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.simpler import CHUNKS, SERIAL, Bench, Side, summarise
from eval.envs.simpler import Simpler
from eval.envs.simpler.client import RemoteEnv
from eval.envs.simpler.interpreter import check_interpreter
from eval.envs.simpler.protocols import cell_at
from eval.envs.tasks import TASKS
from eval.policies.scripted import (
    ExpertPolicy,
    RandomPolicy,
    ReplayPolicy,
    executed_path,
    replay_seeds,
)
from eval.rollout.collect import collect
from eval.rollout.demonstrations import Perturbation
from eval.rollout.episode import run_episode
from robotics.data.rlds import EpisodeReader

PYTHON = os.environ.get("SIMPLER_PYTHON", "")
pytestmark = [
    pytest.mark.simpler,
    pytest.mark.skipif(
        not Simpler(python=PYTHON or "").available()[0],
        reason="set SIMPLER_PYTHON to the python that SIMPLER is installed in; see eval.doctor",
    ),
]


@pytest.fixture(scope="module")
def env():
    made = RemoteEnv("open_drawer_place", "vm", PYTHON or sys.executable)
    yield made
    made.close()


def test_the_doctor_finds_nothing_missing():
    rows = check_interpreter(PYTHON)
    assert [row for row in rows if not row["ok"] and not row["note"]] == []


def test_a_cell_does_not_remember_the_ones_before(env):
    actions = np.random.default_rng(0).uniform(-0.05, 0.05, (6, 7)).astype(np.float32)

    def path(seed: int) -> np.ndarray:
        env.reset(seed=seed)
        return np.stack([env.step(action)[0]["tool_pose"] for action in actions])

    first, other, again = path(0), path(13), path(0)
    np.testing.assert_array_equal(first, again)
    # The same arm in its base frame, wherever the robot stands: free motion hardly differs.
    np.testing.assert_allclose(first, other, atol=1e-3)


def test_a_small_action_moves_the_tool_where_it_says(env):
    before = env.reset(seed=0)[0]["tool_pose"][:3]
    for _ in range(6):
        after = env.step(np.array([0, 0, 0.02, 0, 0, 0, 0], np.float32))[0]["tool_pose"][:3]
    moved = after - before
    assert moved[2] > 0.02 and abs(moved[2]) > 3 * np.abs(moved[:2]).max()


def test_the_gripper_closes_and_opens_with_the_contracts_sense(env):
    env.reset(seed=0)
    closing = [env.step(np.array([0] * 6 + [g], np.float32))[0] for g in (1, 0, 0, 0)]
    assert closing[-1]["gripper_closed"][0] > 0.8
    opening = [env.step(np.array([0] * 6 + [g], np.float32))[0] for g in (-1, 0, 0, 0)]
    assert opening[-1]["gripper_closed"][0] < 0.2


def test_the_expert_solves_a_cell_and_random_does_not(env):
    task = TASKS["open_drawer_place"]
    expert = ExpertPolicy()
    expert.attach(env, task, Simpler())
    done = run_episode(env, expert, task, seed=13)
    assert done.success and done.terminated and all(done.stages.values())
    lost = run_episode(env, RandomPolicy(), task, seed=13)
    assert not lost.success and lost.steps == task.horizon


@pytest.mark.parametrize(
    ("task", "cell"),
    [("open_drawer", 20), ("close_drawer", 47), ("pick_coke_can", 37), ("move_near", 40)],
)
def test_the_expert_solves_every_task(task, cell):
    made = RemoteEnv(task, "vm", PYTHON or sys.executable)
    expert = ExpertPolicy()
    expert.attach(made, TASKS[task], Simpler())
    try:
        done = run_episode(made, expert, TASKS[task], seed=cell)
    finally:
        made.close()
    assert done.success and done.terminated and all(done.stages.values())


class ToolPath:
    """Watches where the tool goes."""

    needs_image = False

    def __init__(self):
        self.poses = []

    def step(self, observation, action, instruction, info):
        self.poses.append(observation["tool_pose"])

    def end(self, observation, info):
        pass


def test_a_replay_of_a_demonstration_repeats_its_path(tmp_path):
    name, python = "pick_coke_can", PYTHON or sys.executable
    simulator = Simpler(protocol="train", python=python)
    schedule = collect(
        {name: 1}, tmp_path, simulator=simulator, perturbation=Perturbation(), workers=0
    )
    assert schedule.kept == {name: 1} and not schedule.errors
    (episode,) = EpisodeReader(tmp_path)
    (seed,) = replay_seeds(tmp_path, name)
    made = RemoteEnv(name, "train", python)
    policy, path = ReplayPolicy(tmp_path, "google_robot"), ToolPath()
    policy.attach(made, TASKS[name], simulator)
    try:
        again = run_episode(made, policy, TASKS[name], seed, [path])
    finally:
        made.close()
    assert again.success and again.steps == len(episode)
    pose = episode.state[:, :7]  # position and quaternion of the tool
    np.testing.assert_allclose(np.stack(path.poses), pose, atol=1e-5)
    # What was executed is not what the expert meant.
    with np.load(executed_path(tmp_path, name, seed)) as executed:
        assert np.abs(executed["control"][:, :3] - episode.action[:, :3]).max() > 5e-3
    assert episode.terminate[-1] and not episode.terminate[0]


def test_a_picture_shows_the_photo_and_the_robot(env):
    env.reset(seed=0)
    picture = env.camera_image()
    assert picture.shape == (256, 320, 3) and picture.dtype == np.uint8
    assert picture.std() > 20


COMPARED = """
import json, sys
import numpy as np
from eval.envs.simpler.scene import Scene

scene = Scene("rasterised")
for cell in json.load(sys.stdin):
    scene.reset(cell)
    scene.step(np.array([0.02, 0, -0.02, 0, 0, 0.1, -1.0]))
    ours = scene.image()
    env, camera = scene.env, scene.adapter.row.camera
    env._obs_mode = "image"
    theirs = np.asarray(env.get_obs()["image"][camera]["Color"])
    print("differing", int((scene.adapter.image(theirs) != ours).sum()), "of", ours.std())
"""


def test_pictures_are_upstreams_own():
    cells = [
        cell_at(*one).to_json()
        for one in (
            ("open_drawer_place", "vm", 30),  # with a photo behind
            ("move_near", "va", 5),  # without
            ("open_drawer", "prepackaged", 3),  # its photo is chosen at reset
            ("widowx_put_eggplant_in_basket", "vm", 0),  # another robot
        )
    ]
    done = subprocess.run(
        [PYTHON or sys.executable, "-c", COMPARED],
        input=json.dumps(cells),
        text=True,
        capture_output=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    found = [line.split() for line in done.stdout.splitlines() if line.startswith("differing")]
    assert [line[1] for line in found] == ["0"] * len(cells), done.stdout + done.stderr[-2000:]
    assert all(float(line[3]) > 20 for line in found)


def test_final_states_are_those_of_upstreams_own_loop():
    bench = Bench(PYTHON or sys.executable, "open_drawer", [0], steps=5, workers=[1])
    try:
        found = summarise([{side: bench.run(side) for side in (SERIAL, *map(Side, CHUNKS))}])
    finally:
        bench.close()
    assert {row["largest_difference"] for row in found.values()} == {0.0}
    assert all(row["same_outcomes"] and row["steps"] == 6 for row in found.values())
