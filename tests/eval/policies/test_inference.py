"""One process that holds the model for all workers."""

import os
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_world import episode, look, robot
from tiny_world import tiny_world

from eval.policies.inference import Batcher, SharedWorld, shared
from eval.policies.spec import PolicySpec
from eval.rollout.plan import make_plan
from eval.simpler import build_parser
from robotics.model.policy import CheckpointPolicy, Policy
from robotics.model.world_model import WorldModel

CHECKPOINT = Path(__file__).resolve().parents[3] / "checkpoints" / "self_flow"
pytestmark = pytest.mark.skipif(
    not (CHECKPOINT / "model.safetensors").is_file(), reason="needs checkpoints/self_flow"
)
SPEC = PolicySpec("checkpoint", str(CHECKPOINT), {"steps": 2, "device": "cpu"})


@pytest.fixture(scope="module")
def world():
    torch.set_num_threads(1)
    return WorldModel.load(CHECKPOINT)


def request(world, seed):
    rng = np.random.default_rng(seed)
    (model,) = world.robots.values()
    ((camera, (height, width)),) = model.image_sizes.items()
    return {
        "robot": model.robot.name, "mode": "policy", "steps": 2, "shift": 1.0,
        "instruction": f"open drawer {seed}",
        "arrays": {
            f"image/{camera}": rng.integers(0, 256, (height, width, 3), np.uint8),
            "state": rng.normal(size=model.coder.state_width).astype(np.float32),
        },
        "noise": torch.Generator().manual_seed(seed).get_state().numpy(),
    }  # fmt: skip


def observation(world, seed):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (256, 320, 3), np.uint8),
        "tool_pose": np.array([0.4, 0.0, 0.3, 0, 0, 0, 1], np.float32),
        "gripper_closed": np.zeros(1, np.float32),
    }


def test_a_prediction_depends_on_its_own_request_up_to_rounding(world):
    asked = [request(world, seed) for seed in range(4)]
    batcher = Batcher(world, 4)
    together = batcher.predict(asked)
    for order in ([2, 0, 3, 1], [1], [3, 0]):
        for row, found in zip(order, batcher.predict([asked[i] for i in order]), strict=True):
            np.testing.assert_allclose(found["action"], together[row]["action"], atol=1e-5)
            np.testing.assert_array_equal(found["noise"], together[row]["noise"])
    assert not np.array_equal(together[0]["action"], together[1]["action"])


@pytest.mark.parametrize(
    ("size", "compare"),
    [(1, np.testing.assert_array_equal), (3, partial(np.testing.assert_allclose, atol=1e-5))],
)
def test_workers_that_ask_together_get_what_they_would_get_alone(world, size, compare):
    def act(address: str, seed: int, out: dict) -> None:
        policy = CheckpointPolicy(SharedWorld(address), steps=2, execute=1)
        policy.reset("open top drawer", seed=seed)
        out[seed] = [policy.act(observation(world, 10 * seed + i)).control for i in range(2)]

    with shared(SPEC, size) as spec:
        alone: dict = {}
        for seed in range(3):
            act(spec.address, seed, alone)
        together: dict = {}
        threads = [threading.Thread(target=act, args=(spec.address, s, together)) for s in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not Path(spec.address).exists()
    for seed in range(3):
        compare(alone[seed], together[seed])


def test_one_sample_a_call_is_a_model_of_ones_own_bit_for_bit(world):
    def act(policy) -> list:
        policy.reset("open top drawer", seed=5)
        return [policy.act(observation(world, i)).control for i in range(2)]

    options = {"steps": 2, "execute": 1, "clip": True}
    with shared(SPEC, 1) as spec:
        far = act(CheckpointPolicy(SharedWorld(spec.address), **options))
        with pytest.raises(ValueError, match="embodiment|expected a model for"):
            CheckpointPolicy(SharedWorld(spec.address), embodiment="google_robot")
        # A request that the model refuses costs nobody else theirs.
        policy = CheckpointPolicy(SharedWorld(spec.address), steps=1, execute=1)
        policy.policy.steps = 0
        policy.reset("open top drawer", seed=5)
        with pytest.raises(ValueError):
            policy.act(observation(world, 0))
        assert np.array_equal(act(CheckpointPolicy(SharedWorld(spec.address), **options)), far)
    np.testing.assert_array_equal(far, act(CheckpointPolicy(world, **options)))
    with pytest.raises(ValueError, match="inference process, got none"):
        SharedWorld(spec.address)


def test_robots_of_several_cameras_share_a_model_bit_for_bit(tmp_path):
    names = ("two_arms", "velocities", "blind_cart")
    model = tiny_world(*map(robot, names), history=(2, 1))
    model.save(tmp_path / "saved")

    def act(source, name) -> np.ndarray:
        table = robot(name)
        states, _ = episode(table)
        policy = Policy(source, name, steps=1, execute=2, clip=name != "two_arms")
        policy.reset("go", seed=4)
        seen = [look(table, states[i], i) for i in range(4)]
        seen[2].pop("wrist", None)
        return np.stack([policy.act(row) for row in seen])

    with shared(PolicySpec("checkpoint", str(tmp_path / "saved"), {}), 1) as spec:
        far = SharedWorld(spec.address)
        assert list(far.robots) == list(names)
        for name in names:
            assert far.robots[name].robot == robot(name)
            np.testing.assert_array_equal(act(far, name), act(model, name))


def test_a_checkpoint_that_is_not_there_is_an_error_in_the_input(tmp_path):
    with pytest.raises(ValueError), shared(PolicySpec("checkpoint", str(tmp_path)), 1):
        pass
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("more", [["--policy", "random"], ["--executor", "ray"]])
def test_there_has_to_be_a_model_to_share_and_workers_nearby(more):
    words = ["--task", "move_near", "--backend", "mujoco", "--batch-inference", "4", *more]
    with pytest.raises(ValueError, match="batch-inference: expected"):
        make_plan(build_parser().parse_args(words), "")
