import json
import os
import subprocess
import sys
from pathlib import Path

import fake_env
import numpy as np
import pytest
from eval_runs import FAKE, NOISE, contents, gather, run_here, words

from eval.collect import build_parser, main
from eval.envs.contract import Limits
from eval.envs.registry import choose_simulator, find_simulator
from eval.envs.simpler import Simpler
from eval.envs.tasks import TASKS
from eval.merge import main as merge
from eval.policies.scripted import ReplayPolicy, replay_seeds
from eval.report.collection import parse_counts
from eval.report.comparison import compare_runs
from eval.rollout.demonstrations import (
    MAX_DELAYS,
    CollectSetup,
    Perturbation,
    PerturbedExpert,
)
from eval.rollout.episode import run_episode
from robotics.data.rlds import EpisodeReader
from robotics.embodiment.control import Action


def rows(out):
    return json.loads((out / "collection-train.json").read_text())["episodes"]


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    out = tmp_path_factory.mktemp("demos") / "set"
    return out, gather(out, {"open_drawer_place": 4, "move_near": 3})


def test_it_keeps_the_first_successes_and_counts_the_failures(collected):
    out, schedule = collected
    # The fake expert can't do seeds 2, 6, ...
    assert schedule.kept == {"open_drawer_place": 4, "move_near": 3}
    assert schedule.failed == {"open_drawer_place": 1, "move_near": 1}
    seeds = [row["seed"] for row in rows(out).values() if row["task"] == "open_drawer_place"]
    assert sorted(seeds) == [0, 1, 3, 4] == replay_seeds(out, "open_drawer_place")
    assert all(row["success"] for row in rows(out).values())


def test_recorded_actions_are_the_experts_at_the_states_the_executed_ones_led_to(collected):
    out, _ = collected
    task = TASKS["move_near"]
    env = fake_env.make(task)
    policy = PerturbedExpert(NOISE)
    policy.attach(env, task, FAKE)
    labels = []

    class Watcher:
        needs_image = False

        def step(self, observation, action, instruction, info):
            labels.append((policy.intended, action))

        def end(self, observation, info):
            pass

    run_episode(env, policy, task, 1, [Watcher()])
    with np.load(out / "executed" / "move_near-1.npz") as executed:
        assert np.array_equal(executed["control"], [a.control for _, a in labels])
        assert np.array_equal(executed["terminate"], [a.terminate for _, a in labels])
        assert not np.array_equal(executed["control"], [m.control for m, _ in labels])
    (episode,) = [
        e for e in EpisodeReader(out)
        if e.instructions[0] == (task.subtasks[0],)
        and np.array_equal(e.part("action.position"), [m.control[:3] for m, _ in labels])
    ]  # fmt: skip
    assert np.array_equal(episode.terminate, [m.terminate for m, _ in labels])


def test_rotations_are_recorded_as_roll_pitch_yaw(collected):
    from scipy.spatial.transform import Rotation

    episode = EpisodeReader(collected[0])[0]
    expected = Rotation.from_rotvec([0.1, 0.2, -0.3]).as_euler("xyz")
    turns = episode.part("action.rotation")
    np.testing.assert_allclose(turns, [expected] * len(episode), atol=1e-6)


def test_a_replay_repeats_a_demonstration_exactly(collected):
    out, _ = collected
    task = TASKS["open_drawer_place"]
    for seed in replay_seeds(out, task.name):
        env = fake_env.make(task)
        policy = ReplayPolicy(out, "embedded")
        policy.attach(env, task, FAKE)
        result = run_episode(env, policy, task, seed)
        steps = rows(out)[f"{task.name}-{seed}"]["steps"]
        assert result.success and result.terminated
        assert result.steps == steps
    wrong = ReplayPolicy(out, "google_robot")
    with pytest.raises(ValueError, match="expected an episode of embodiment google_robot"):
        wrong.attach(env, task, FAKE)


def test_terminate_is_held_back_at_most_three_times_in_a_row():
    class Done:
        def reset(self):
            pass

        def act(self):
            return Action(np.zeros(7, np.float32), True)

    policy = PerturbedExpert(Perturbation(terminate_delay=1.0))
    policy._expert = Done()
    policy.reset("", 0)
    executed = [policy.act(None).terminate for _ in range(8)]
    assert executed == ([False] * MAX_DELAYS + [True]) * 2
    assert policy.intended.terminate
    never = PerturbedExpert(Perturbation(terminate_delay=0.0))
    never._expert = Done()
    never.reset("", 0)
    assert never.act(None).terminate


def test_the_noise_has_the_stated_size_and_leaves_the_gripper_alone():
    class Still:
        def reset(self):
            pass

        def act(self):
            return Action(np.array([0, 0, 0, 0, 0, 0, 1], np.float32), False)

    policy = PerturbedExpert(Perturbation(0.008, 0.04, noise_probability=1.0))
    policy._expert = Still()
    policy.reset("", 5)
    control = np.stack([policy.act(None).control for _ in range(4000)])
    np.testing.assert_allclose(control[:, :3].std(0), 0.008, rtol=0.06)
    np.testing.assert_allclose(control[:, 3:6].std(0), 0.04, rtol=0.06)
    assert (control[:, 6] == 1).all()


def test_workers_and_interruptions_do_not_change_the_dataset(collected, tmp_path):
    out, _ = collected
    wanted = {"open_drawer_place": 4, "move_near": 3}
    gather(tmp_path / "two", wanted, workers=2)
    assert contents(tmp_path / "two") == contents(out)

    def stop(schedule):
        if sum(schedule.kept.values()) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gather(tmp_path / "cut", wanted, on_attempt=stop)
    schedule = gather(tmp_path / "cut", wanted)
    assert schedule.resumed == 6  # five kept, one failed
    assert contents(tmp_path / "cut") == contents(out)


def test_a_collection_grows_but_not_under_other_settings(tmp_path):
    gather(tmp_path / "a", {"move_near": 1})
    gather(tmp_path / "a", {"move_near": 3})
    assert len(EpisodeReader(tmp_path / "a")) == 3
    with pytest.raises(ValueError, match="provenance"):
        gather(tmp_path / "a", {"move_near": 4}, perturbation=Perturbation())
    assert len(EpisodeReader(tmp_path / "a")) == 3


def test_a_crash_is_an_error_and_a_hopeless_task_is_given_up(tmp_path, monkeypatch):
    crashing = find_simulator("fake_env:make_crashing")
    schedule = gather(tmp_path / "a", {"move_near": 3}, simulator=crashing)
    assert schedule.kept["move_near"] == 3
    assert len(schedule.errors) == 1
    assert "move_near seed 3: RuntimeError" in schedule.errors[0]

    monkeypatch.setattr("eval.rollout.collect.MAX_FAILURES", (2, 1))
    schedule = gather(
        tmp_path / "b", {"move_near": 3}, perturbation=Perturbation(0.5, noise_probability=1.0)
    )
    assert schedule.short == ["move_near"]
    assert schedule.failed["move_near"] == 5


def test_a_crash_or_hang_is_tried_again_and_changes_no_episode(collected, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_ENV_MARK", str(tmp_path / "mark"))
    wanted = {"open_drawer_place": 4, "move_near": 3}
    for name, backend in (("died", "make_dying_once"), ("hung", "make_hanging_once")):
        (tmp_path / "mark").unlink(missing_ok=True)
        schedule = gather(
            tmp_path / name, wanted, 2, simulator=find_simulator(f"fake_env:{backend}"),
            retries=1, limits=Limits(step=8.0),
        )  # fmt: skip
        assert (tmp_path / "mark").exists() and not schedule.errors
        assert contents(tmp_path / name) == contents(collected[0])


def test_an_attempt_that_was_written_down_is_not_made_again(tmp_path):
    gather(tmp_path / "set", {"move_near": 2})
    provenance = json.loads((tmp_path / "set/collection-train.json").read_text())["provenance"]
    setup = CollectSetup(str(tmp_path / "set"), "fake_env:make", NOISE, provenance, "move_near")
    attempt = setup()
    assert [attempt(("move_near", seed), lambda: None) for seed in (0, 1)] == [{"kept": True}] * 2
    attempt.close()


@pytest.mark.parametrize("count", [2, 3])
def test_merged_shares_are_the_undivided_set(collected, tmp_path, count):
    out, _ = collected
    wanted = {"open_drawer_place": 4, "move_near": 3}
    parts = [tmp_path / f"part{number}" for number in range(1, count + 1)]
    kept = dict.fromkeys(wanted, 0)
    for number, part in enumerate(parts, start=1):
        schedule = gather(part, wanted, shard=(number, count))
        assert gather(part, wanted, shard=(number, count)).resumed > 0
        kept = {task: kept[task] + schedule.kept[task] for task in wanted}
    assert kept == wanted
    merged = tmp_path / "all"
    # Attempts that no share made, because another one succeeded more often, are made now.
    if merge([str(merged), *map(str, parts)]):
        gather(merged, wanted)
    assert contents(merged) == contents(out)
    assert rows(merged) == rows(out)
    assert replay_seeds(merged, "move_near") == replay_seeds(out, "move_near")
    with pytest.raises(ValueError, match="provenance"):
        gather(parts[0], wanted, shard=(2, count))


def test_shares_of_other_collections_are_refused_and_nothing_is_left(tmp_path):
    one, other, whole = tmp_path / "one", tmp_path / "other", tmp_path / "whole"
    gather(one, {"move_near": 2}, shard=(1, 2))
    gather(other, {"move_near": 4}, shard=(2, 2))
    gather(whole, {"move_near": 2})
    for paths in ([one, one], [one, other], [one, whole], [whole, one]):
        with pytest.raises(ValueError, match="expected .*, got "):
            merge([str(tmp_path / "out"), *map(str, paths)])
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="new or empty"):
        merge([str(whole), str(one)])


def test_unlike_shares_are_told_apart_by_what_differs(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    gather(one, {"move_near": 2}, shard=(1, 2))
    gather(other, {"move_near": 4}, shard=(2, 2), perturbation=Perturbation(0.004, 0.02))
    with pytest.raises(ValueError, match=r"wanted.move_near=2.*wanted.move_near=4") as refused:
        merge([str(tmp_path / "out"), str(one), str(other)])
    assert "noise_probability=1.0" in str(refused.value) and "versions" not in str(refused.value)
    run_here(words(tmp_path / "run", task="move_near"))
    for paths in ([one, tmp_path / "run"], [tmp_path / "run", one]):
        with pytest.raises(ValueError, match="one kind.*one.*run; "):
            merge([str(tmp_path / "out"), *map(str, paths)])
    assert not (tmp_path / "out").exists()


def test_only_one_run_collects_into_a_directory_and_a_killed_one_blocks_nobody(tmp_path):
    out = tmp_path / "set"
    code = (
        "import sys, time, pathlib, eval_runs\n"
        "eval_runs.gather(pathlib.Path(sys.argv[1]), {'move_near': 2},\n"
        "    on_attempt=lambda s: (print('begun', flush=True), time.sleep(600)))"
    )
    path = ":".join([str(Path(__file__).parents[1]), str(Path(__file__).parents[3])])
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    try:
        assert first.stdout and first.stdout.readline() == b"begun\n"
        with pytest.raises(ValueError, match="no other run is writing"):
            gather(out, {"move_near": 2})
    finally:
        first.kill()
        first.wait()
    assert gather(out, {"move_near": 2}).kept == {"move_near": 2}


def test_a_place_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "inside", Path("/proc/nowhere")):
        with pytest.raises(ValueError, match="out: expected a directory.*, got.*; choose"):
            gather(out, {"move_near": 1})
        with pytest.raises(ValueError, match="out: expected a directory.*, got.*; choose"):
            run_here(words(out))
        with pytest.raises(ValueError, match="out: expected a directory.*, got.*; choose"):
            compare_runs([tmp_path], out)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_counts():
    assert parse_counts(FAKE, "open_drawer,move_near", 5, None) == {
        "open_drawer": 5, "move_near": 5
    }  # fmt: skip
    more = parse_counts(FAKE, "all", 5, "move_near=0,open_drawer_place=9")
    assert more["open_drawer_place"] == 9
    assert "move_near" not in more
    for counts in ("move_near", "move_near=x", "nothing=3", "move_near=0", "open_drawer=2"):
        with pytest.raises(ValueError, match="expected .*, got "):
            parse_counts(FAKE, "move_near", 5, counts)
    with pytest.raises(ValueError, match="got widowx_stack_cube"):  # no expert can do it
        parse_counts(Simpler(), "widowx_stack_cube", 5, None)


def test_on_simpler_only_training_starts_are_collected(tmp_path):
    with pytest.raises(ValueError, match="expected training starts"):
        gather(tmp_path / "set", {"move_near": 1}, simulator=Simpler(python="/p"))
    assert not (tmp_path / "set").exists()

    def chosen(*words):
        return choose_simulator(build_parser().parse_args([*words]), training=True)[0]

    found = chosen("--backend", "simpler", "--simpler-python", "/p")
    assert found.protocol == "train" and "5 to 15 mm" in found.training_starts
    assert chosen("--simpler-python", "/p").backend == found.backend
    assert chosen("--backend", "fake_env:make").backend == "fake_env:make"
    with pytest.raises(ValueError, match="--backend simpler"):
        chosen("--backend", "mujoco", "--simpler-python", "/p")


def test_a_simulator_that_cannot_start_is_no_failed_attempt(tmp_path):
    simulator = Simpler(python="/no/such/python", protocol="train")
    with pytest.raises(ValueError, match="expected an interpreter"):
        gather(tmp_path / "set", {"move_near": 1}, simulator=simulator)


def test_command_line(tmp_path, capsys):
    out = tmp_path / "set"
    words = ["--task", "move_near", "--episodes", "2", "--out", str(out), "--workers", "1"]
    assert main([*words, "--backend", "fake_env:make"]) == 0
    assert "2 episodes" in capsys.readouterr().out
    for bad in (["--episodes", "0"], ["--terminate-delay", "2"], ["--position-noise", "nan"]):
        with pytest.raises(SystemExit) as stopped:
            main(bad)
        assert stopped.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
