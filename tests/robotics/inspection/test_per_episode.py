"""Faults of some episodes are named with their episodes, and clean sets raise no alarm."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.robots import faults as battery
from benchmarks.robots.rough import ROUGH, rough
from benchmarks.robots.sets import clean, robots, surveyed
from robotics.data.parts import Recording, idle, recording
from robotics.embodiment.parts import Part
from robotics.embodiment.tables import load_robot
from robotics.inspection import levels
from robotics.inspection.duplicates import fit as fingerprint
from robotics.inspection.groups import Origin, Place, common, drift, ranges
from robotics.inspection.readings import LAGS, fit, pairs
from robotics.inspection.robust import mode, runs
from robotics.inspection.survey import Survey


@pytest.mark.parametrize("fault", battery.FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named_with_its_episodes(fault):
    _, named, found = battery.judged(fault)
    assert named, [(row.code, row.episodes, row.text) for row in found]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_grippers_the_other_way_round_are_named(seed):
    fault = next(row for row in battery.FAULTS if row.code == "gripper.both")
    _, named, found = battery.judged(fault, seed)
    assert named, [(row.code, row.episodes, row.text) for row in found]


@pytest.mark.parametrize("name", list(robots()))
@pytest.mark.parametrize("seed", [1, 2])
def test_clean_sets_raise_no_alarm(name, seed):
    robot = robots()[name]
    found = battery.alarms(surveyed(robot, clean(name, seed)).findings())
    assert [(row.code, row.text) for row in found] == []


@pytest.mark.parametrize("name", ["normalised", "pulses"])
@pytest.mark.parametrize("kind", [row[0] for row in ROUGH])
def test_rough_sets_raise_no_alarm(name, kind):
    survey = surveyed(robots()[name], rough(name, kind, 1))
    assert [(row.code, row.text) for row in battery.alarms(survey.findings())] == []


def orders(starts, rng, first=0):
    """Episodes that `levels` names: quaternions of random sign, those of the first few episodes in
    another order."""
    part = Part("rotation", "pose", "rotation", 4, form="quaternion_wxyz")
    robot = replace(load_robot("rt1"), state=(part,), action=())
    rows = {}
    for number, start in enumerate(starts):
        turns = Rotation.from_rotvec(rng.normal(0, 0.03, (40, 3)).cumsum(0)) * start
        values = turns.as_quat()[:, [0, 1, 2, 3] if number < first else [3, 0, 1, 2]]
        values = values * rng.choice([-1, 1], (40, 1))
        episode = Recording(str(number), "", 40, {"state.rotation": values}, (), ())
        rows[number] = levels.fit(episode, robot)
    origins = [Origin(number, "", {}) for number in rows]
    return [row.episodes for row in levels.findings(rows, robot, len(rows), origins, Place("x"))]


@pytest.mark.parametrize("seed", range(12))
def test_tools_that_begin_turned_have_quaternions_of_one_order(seed):
    rng = np.random.default_rng(seed)
    assert orders(Rotation.random(8, random_state=rng), rng) == []


def test_quaternions_in_another_order_are_named_whatever_their_signs():
    rng = np.random.default_rng(0)
    assert orders([Rotation.from_euler("x", 0.5)] * 12, rng, first=3) == [(0, 1, 2)]


def test_the_order_of_reading_does_not_matter():
    robot = robots()["deltas"]
    fault = next(row for row in battery.FAULTS if row.code == "episodes.late")
    raws = battery.faulty(fault)
    forward, backward = Survey(robot, Place("x")), Survey(robot, Place("x"))
    rows = [recording(raw, robot, f"train:{n}") for n, raw in enumerate(raws)]
    for row in rows:
        forward.add(row, {})
    for row in rows[::-1]:
        backward.add(row, {})
    kept = [[(f.code, sorted(f.episodes)) for f in s.findings()] for s in (forward, backward)]
    assert kept[0] == kept[1] != []


def test_a_fault_of_a_shard_is_said_to_be_one():
    robot = robots()["deltas"]
    raws = [copy.deepcopy(raw) for raw in clean("deltas")]
    change = battery.values("action.gripper", to=lambda v: 1 - v)
    for number in range(5):
        change(raws[number], robot)
    survey = Survey(robot, Place("x"))
    for number, raw in enumerate(raws):
        survey.add(recording(raw, robot, f"train:{number}", "first" if number < 5 else "rest"), {})
    (finding,) = battery.alarms(survey.findings())
    assert finding.episodes == (0, 1, 2, 3, 4)
    assert "all of shard first" in finding.text
    assert finding.line.endswith("--delete train:0-4")


def test_what_is_kept_of_an_episode_is_small():
    robot = robots()["arms"]
    raw = clean("arms")[0]
    episode = recording(raw, robot, "train:0")
    motion = fit(episode, pairs(robot)[0])
    sizes = [value.nbytes for value in vars(motion).values() if isinstance(value, np.ndarray)]
    print_ = fingerprint(episode, {})
    assert sum(sizes) < 1000
    assert print_.rows.nbytes <= 8 * raw.steps
    assert print_.signature.nbytes < 2000


def test_a_late_action_is_found_at_its_lag():
    robot = robots()["deltas"]
    raw = copy.deepcopy(clean("deltas")[0])
    battery._late(1)(raw, robot)
    motion = fit(recording(raw, robot, "train:0"), pairs(robot)[0])
    assert LAGS[int(motion.explained[0].argmax())] == 1
    assert motion.explained[0].max() > 0.95


def test_two_habits_of_equal_size_have_a_mode_and_no_mean():
    values = np.concatenate([np.full(10, 1.0), np.full(10, 2.0)]) + np.linspace(0, 0.01, 20)
    assert mode(values, near=1.0)[0] == pytest.approx(1.0, abs=0.02)
    assert mode(values, near=2.0)[0] == pytest.approx(2.0, abs=0.02)
    assert np.isnan(mode(np.array([np.nan]))[0])


def test_ranges_and_runs_are_each_others_inverse():
    flags = np.array([1, 1, 0, 1, 0, 0, 1, 1, 1], bool)
    assert ranges(np.flatnonzero(flags).tolist()) == "0-1,3,6-8"
    assert runs(flags) == [(0, 2), (3, 4), (6, 9)]


def test_episodes_in_common_are_a_folder_a_fact_or_a_stretch():
    origins = [
        Origin(n, "", {"file": f"/lab/{'ab'[n % 2]}/{n}.h5", "who": float(n // 10)})
        for n in range(20)
    ]
    assert "file beginning with /lab/b/" in common(range(1, 20, 2), origins)
    assert "who 1" in common(range(10, 20), origins)
    assert common([0, 1, 2, 3], origins) == "they are the beginning of the recording"
    assert common([1, 4, 13], origins) == ""
    assert common(range(20), origins) == ""


def test_a_drift_is_steady_and_not_a_step_or_noise():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.02, 40)
    steady = np.linspace(0, 0.5, 40) + noise
    assert drift(range(40), steady, 0.2) == pytest.approx(0.5, abs=0.05)
    assert drift(range(40), noise, 0.2) is None
    assert drift(range(40), np.repeat([0.0, 0.5], 20) + noise, 0.2) is None


def test_nothing_is_idle_while_something_moves_or_is_asked_to():
    robot = robots()["deltas"]
    raw = clean("deltas")[0]
    parts = dict(recording(raw, robot, "train:0").parts)
    assert not idle(parts, robot).any()
    still = {name: np.repeat(values[:1], 12, axis=0) for name, values in parts.items()}
    for name in ("action.position", "action.rotation"):
        still[name] = np.zeros((12, 3))
    assert idle(still, robot).all()
    still["action.gripper"] = still["action.gripper"].copy()
    still["action.gripper"][6:] = 1 - still["action.gripper"][6:]
    assert np.flatnonzero(~idle(still, robot)).tolist() == [6]
