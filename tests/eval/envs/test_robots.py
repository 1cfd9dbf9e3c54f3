"""Environments state their robot; others than arms moved by their tool act, too."""

from __future__ import annotations

from types import SimpleNamespace

import fake_env
import gymnasium
import numpy as np
import pytest
from fake_world import FakeRobot, FakeWorld, frames, robot
from gymnasium import spaces

from eval.envs.contract import Simulator
from eval.envs.robots import robot_of
from eval.envs.tasks import TASKS, Task
from eval.policies.scripted import RandomPolicy
from eval.rollout.episode import observe, run_episode
from robotics.embodiment.control import takes_tool_control, tool_robot
from robotics.embodiment.tables import load_robot
from robotics.model.policy import CheckpointPolicy

TASK = Task("hold", 6, ("hold still",), ("held",), "always", robot="velocities")


class Joints(gymnasium.Env):
    """Seven joints and a hand, two cameras: `velocities` of `fake_world`."""

    robot = robot("velocities")
    is_final_subtask, instruction, horizon = True, "hold still", 6

    def __init__(self, task=TASK):
        self.action_space = spaces.Box(-0.5, 2.0, (8,), np.float32)

    def advance_to_next_subtask(self):
        return self.instruction

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.joints, self.taken = np.zeros(7, np.float32), []
        return self.observation(), self.info()

    def step(self, action):
        assert action.shape == (8,) and action.dtype == np.float32
        self.joints = self.joints + action[:7]
        self.taken.append(action)
        info = self.info()
        return self.observation(), 0.0, False, len(self.taken) >= self.horizon, info

    def camera_images(self):
        pictures = frames(self.robot, len(self.taken))
        return {row.path: pictures[row.name] for row in self.robot.cameras}

    def observation(self):
        gripper = np.zeros(1, np.float32)
        return {
            "observation/joint_position": self.joints,
            "observation/gripper_position": gripper,
        }

    def info(self):
        return {"instruction": self.instruction, "subtask": 0, "success": True,
                "stages": {"held": True}, "elapsed_steps": len(self.taken)}  # fmt: skip


def test_an_environment_of_any_robot_is_acted_in():
    env, model = Joints(), FakeRobot(Joints.robot)
    policy = CheckpointPolicy(FakeWorld(model), robot=robot_of(env), execute=2)
    result = run_episode(env, policy, TASK, seed=3)
    assert result.success and result.steps == 6 and len(model.asked) == 3
    first = model.asked[0]
    assert {"image/side", "image/wrist", "state"} <= set(first)
    assert first["instruction"] == ["hold still"]
    np.testing.assert_allclose(model.asked[1]["state"][0, :7], sum(env.taken[:2])[:7], rtol=1e-6)
    again = CheckpointPolicy(FakeWorld(FakeRobot(Joints.robot)), robot=robot_of(env), execute=2)
    before = np.stack(env.taken)
    run_episode(env, again, TASK, seed=3)
    np.testing.assert_array_equal(np.stack(env.taken), before)


def test_who_watches_sees_the_first_camera():
    env = Joints()
    state, _ = env.reset(seed=0)
    seen = observe(env, state, image=True)
    np.testing.assert_array_equal(seen["image"], seen["observation/exterior"])
    assert "image" not in observe(env, state, image=False)


def test_random_actions_fill_the_space_of_another_robot():
    env, policy = Joints(), RandomPolicy()
    policy.attach(env, TASK, Simulator())
    policy.reset("go", seed=0)
    drawn = np.stack([policy.act(None).control for _ in range(200)])
    assert drawn.shape == (200, 8) and drawn.dtype == np.float32
    assert -0.5 <= drawn.min() < -0.4 and 1.9 < drawn.max() <= 2.0
    env.action_space = spaces.Box(-np.inf, np.inf, (8,), np.float32)
    with pytest.raises(ValueError, match="with bounds"):
        policy.attach(env, TASK, Simulator())


def test_another_robot_is_refused_before_the_first_step():
    env = Joints()
    for name in ("two_arms", "embedded"):
        world = FakeWorld(FakeRobot(robot(name)))
        with pytest.raises(ValueError, match=f"for 'velocities', got one for '{name}'"):
            CheckpointPolicy(world, robot=robot_of(env))
    content = robot("two_arms").to_dict() | {"embodiment": "velocities"}
    world = FakeWorld(FakeRobot(load_robot(content)))
    with pytest.raises(ValueError, match="rate: 15 Hz against 50 Hz.*cameras.high"):
        CheckpointPolicy(world, robot=robot_of(env))


def test_of_several_robots_the_environments_acts():
    world = FakeWorld(*(FakeRobot(robot(name)) for name in ("two_arms", "velocities")))
    policy = CheckpointPolicy(world, robot=Joints.robot)
    assert policy.policy.name == "velocities"
    twin = load_robot(robot("velocities").to_dict() | {"name": "twin"})
    world = FakeWorld(FakeRobot(robot("velocities")), FakeRobot(twin))
    twin_policy = CheckpointPolicy(
        world, robot=load_robot(twin.to_dict() | {"embodiment": "velocities"}), name="twin"
    )
    assert twin_policy.policy.robot is twin
    with pytest.raises(ValueError, match="write policy.robot=velocities"):
        CheckpointPolicy(world, robot=Joints.robot)
    with pytest.raises(ValueError, match="got nobody"):
        CheckpointPolicy(world, robot=Joints.robot, name="nobody")


def test_a_name_of_a_shipped_table_will_do():
    env = fake_env.make(TASKS["move_near"])
    assert robot_of(env) == tool_robot("embedded", 3.0, (256, 320))
    env.embodiment = "widowx"
    found = robot_of(env)
    assert (found.embodiment, found.rate, found.cameras[0].size) == ("widowx", 5, (240, 320))
    assert takes_tool_control(found) and not takes_tool_control(Joints.robot)
    for wrong in ("nobody", None):
        env.embodiment = wrong
        with pytest.raises(ValueError, match="states its robot"):
            robot_of(env)
    assert robot_of(SimpleNamespace(unwrapped=Joints())) is Joints.robot
