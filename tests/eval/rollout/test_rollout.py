import numpy as np
import pytest
from fake_env import FORCED_SWITCH, HORIZON, make, make_crashing

from eval.envs.tasks import TASKS
from eval.policies.spec import PolicySpec
from eval.rollout.episode import run_episode
from eval.rollout.plan import Job
from eval.rollout.run import EvalSetup
from eval.rollout.workers import Pool, WorkerSetupError
from robotics.embodiment.control import Action
from selfflow_wm.processes import error_line

PLACE, PICK = TASKS["open_drawer_place"], TASKS["pick_coke_can"]


class Script:
    """Says what it is told to and writes down what it sees; looks at every `every`-th step."""

    def __init__(self, terminate=(), move=None, every=1):
        self.terminate, self.move, self.every = set(terminate), move, every
        self.seen, self.told, self.count = [], [], 0

    def reset(self, instruction, seed=None):
        self.told.append((0, instruction))
        self.seed = seed

    def instruct(self, instruction):
        self.told.append((self.count, instruction))

    @property
    def needs_observation(self):
        return self.count % self.every == 0

    def act(self, observation):
        self.seen.append(observation)
        control = np.zeros(7, np.float32)
        if self.move is not None:
            control[:3] = self.move(self.count)
        self.count += 1
        return Action(control, self.count - 1 in self.terminate)


def test_terminate_on_the_first_subtask_advances_and_on_the_last_ends_after_its_step():
    env, policy = make(PLACE), Script(terminate={2, 5})
    result = run_episode(env, policy, PLACE, seed=1)
    first, second = PLACE.subtasks
    assert policy.told == [(0, first), (3, second)]
    assert result.instructions == [(0, first), (3, second)]
    assert result.terminated and result.steps == env.elapsed_steps == 6


def test_the_forced_switch_reaches_the_policy_and_truncation_ends():
    policy = Script()
    result = run_episode(make(PLACE), policy, PLACE, seed=1)
    assert policy.told[1:] == [(FORCED_SWITCH + 1, PLACE.subtasks[1])]
    assert result.steps == HORIZON and not result.terminated
    assert policy.seed == 1


def test_last_step_and_any_step_success_differ():
    env = make(PICK)
    env.reset(seed=4)
    goal = env.goals[0]
    there_and_away = Script(terminate={1}, move=lambda t: goal if t == 0 else np.ones(3))
    result = run_episode(env, there_and_away, PICK, seed=4)
    assert result.success_any and not result.success
    assert result.stages == {"object_grasped": True, "object_lifted": False}


def test_pictures_are_rendered_only_when_they_are_looked_at():
    env, policy = make(PICK), Script(every=3)
    result = run_episode(env, policy, PICK, seed=0)
    looks = len(range(0, HORIZON, 3))
    assert env.pictures == looks == len(result.latency_ms)
    assert [o is not None for o in policy.seen] == [t % 3 == 0 for t in range(HORIZON)]
    assert policy.seen[0]["image"].shape == (256, 320, 3)


def test_watchers_see_every_step_with_the_observation_and_instruction_before_it():
    class Watcher:
        needs_image = True
        steps = []
        ended = None

        def step(self, observation, action, instruction, info):
            self.steps.append((observation, instruction, info["elapsed_steps"]))

        def end(self, observation, info):
            self.ended = observation

    env, watcher = make(PLACE), Watcher()
    policy = Script(terminate={2}, move=lambda t: [0.01, 0, 0], every=100)
    run_episode(env, policy, PLACE, 1, [watcher])
    assert env.pictures == HORIZON + 1
    positions = [float(o["tool_pose"][0]) for o, _, _ in watcher.steps]
    np.testing.assert_allclose(positions, 0.01 * np.arange(HORIZON), atol=1e-6)
    assert [i for _, i, _ in watcher.steps] == [PLACE.subtasks[t > 2] for t in range(HORIZON)]
    assert [n for _, _, n in watcher.steps] == list(range(1, HORIZON + 1))
    assert watcher.ended["tool_pose"][0] == pytest.approx(0.01 * HORIZON)


def test_error_line_is_one_line_with_the_place():
    with pytest.raises(RuntimeError) as caught:
        run_episode(make_crashing(PICK), Script(), PICK, seed=3)
    line = error_line(caught.value)
    assert "\n" not in line
    assert "RuntimeError: the <simulator> lost a screw" in line
    assert "fake_env.py" in line


def jobs_and_setup(backend, policy="random", count=6):
    jobs = [Job(task, seed, seed, video=False) for task in ("move_near", "open_drawer_place")
            for seed in range(count)]  # fmt: skip
    return jobs, EvalSetup(PolicySpec(policy), f"fake_env:{backend}", "", tuple(jobs[:1]))


def run_pool(jobs, setup, workers):
    queue = iter(jobs)
    with Pool(setup, workers) as pool:
        return {o.job: o for o in pool.run(lambda: next(queue, None))}


def comparable(outcome):
    value = outcome.value and {
        k: v for k, v in outcome.value.items() if k not in ("wall_s", "latency_ms")
    }
    return value, outcome.error


@pytest.mark.parametrize("policy", ["random", "expert"])
def test_results_do_not_depend_on_the_number_of_workers(policy):
    jobs, setup = jobs_and_setup("make_crashing", policy)
    here = run_pool(jobs, setup, 0)
    spread = run_pool(jobs, setup, 3)
    assert {j: comparable(o) for j, o in here.items()} == {
        j: comparable(o) for j, o in spread.items()
    }
    assert [j.seed for j, o in here.items() if o.error] == [3, 3]


def test_results_do_not_depend_on_the_order_of_episodes():
    jobs, setup = jobs_and_setup("make")
    forwards, backwards = run_pool(jobs, setup, 0), run_pool(jobs[::-1], setup, 0)
    assert {j: comparable(o) for j, o in forwards.items()} == {
        j: comparable(o) for j, o in backwards.items()
    }


def test_a_worker_that_dies_loses_its_episode_only():
    jobs, setup = jobs_and_setup("make_dying", count=5)
    outcomes = run_pool(jobs, setup, 2)
    assert {j for j, o in outcomes.items() if o.error} == {j for j in jobs if j.seed == 3}
    assert len(outcomes) == len(jobs)
    assert "exit code 3" in next(o.error for o in outcomes.values() if o.error)


def test_a_worker_that_dies_while_idle_is_replaced():
    jobs, setup = jobs_and_setup("make", count=2)
    with Pool(setup, 1) as pool:
        queue = iter(jobs[:1])
        first = list(pool.run(lambda: next(queue, None)))
        for worker in pool._workers:
            worker.process.kill()
            worker.process.join()
        queue = iter(jobs[1:])
        rest = list(pool.run(lambda: next(queue, None)))
    assert [o.job for o in first + rest] == jobs
    assert not any(o.error for o in first + rest)


def test_a_setup_that_fails_is_one_error_for_the_user():
    job = Job("move_near", 0, 0, False)
    setup = EvalSetup(
        PolicySpec("random", options={"translation": 1}), "fake_env:nothing", "", (job,)
    )
    with pytest.raises(WorkerSetupError, match="expected an importable module:factory"):
        run_pool([job], setup, 1)
