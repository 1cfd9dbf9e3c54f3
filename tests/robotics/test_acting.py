"""`Policy`: any robot's own frames and state in, its recordings' own actions out."""

from __future__ import annotations

import numpy as np
import pytest
from fake_world import SIZE, TABLES, FakeRobot, FakeWorld, episode, frames, look, robot

from robotics.data.images import resize_image
from robotics.embodiment.rotation import as_quaternion
from robotics.embodiment.tables import TABLES as SHIPPED
from robotics.model.policy import Policy

NAMES = [*TABLES, *sorted(file.stem for file in SHIPPED.glob("*.yaml") if file.stem != "template")]


def started(world, *args, **options):
    policy = Policy(world, *args, **options)
    policy.reset("go", seed=1)
    return policy


@pytest.mark.parametrize("name", NAMES)
def test_recorded_actions_come_back_as_recorded(name):
    table = robot(name)
    if not table.action:
        pytest.skip("a table without actions")
    states, actions = episode(table)
    model = FakeRobot(table)
    now = [0]

    def replay(model, samples):
        chunk = actions[now[0] : now[0] + model.horizon]
        state = samples.get("state_recorded", np.zeros((1, 0)))[0]
        return model.coder.chunk(chunk, state, np.arange(len(chunk)) == 1)

    policy = started(FakeWorld(model, answer=replay), execute=3)
    for step in range(9):
        now[0] = step
        looks = policy.needs_observation
        assert looks == (step % 3 == 0)
        action = policy.act(look(table, states[step], step) if looks else None)
        assert action.dtype == np.float32 and action.shape == (table.action_width,)
        same(table, action, actions[step])
        assert policy.terminated == (table.terminate is not None and step % 3 == 1)


def same(table, got, expected):
    for part in table.action:
        place = table.slices("action")[part.name]
        if part.kind == "rotation":
            turn = [as_quaternion(values[place], part.form) for values in (got, expected)]
            assert abs(turn[0] @ turn[1]) == pytest.approx(1, abs=1e-6)
        else:
            scale = max(1.0, float(np.abs(expected[place]).max()))
            np.testing.assert_allclose(got[place] / scale, expected[place] / scale, atol=1e-5)


def test_frames_of_any_size_are_turned_and_resized_as_in_training():
    table = robot("velocities")
    model = FakeRobot(table)
    policy = started(FakeWorld(model))
    seen = look(table, np.zeros(8)) | {"side": np.full((123, 77, 3), 9, np.uint8)}
    policy.act(seen)
    samples = model.asked[0]
    assert (samples["image/side"] == 9).all() and samples["image/side"].shape == (1, *SIZE, 3)
    turned = np.ascontiguousarray(seen["wrist"][::-1, ::-1])
    np.testing.assert_array_equal(samples["image/wrist"][0], resize_image(turned, SIZE))
    assert samples["camera_valid/wrist"].tolist() == [True]
    assert "camera_valid/side" not in samples and samples["instruction"] == ["go"]
    del seen["wrist"]  # one that an episode may lack
    policy.reset("go")
    policy.act(seen)
    assert not model.asked[1]["image/wrist"].any()
    assert model.asked[1]["camera_valid/wrist"].tolist() == [False]


def test_the_state_is_a_vector_or_its_parts():
    table = robot("two_arms")
    state = np.arange(14, dtype=np.float32) / 10
    parts = {f"state.{name}": state[place] for name, place in table.slices("state").items()}
    parts["state.left_gripper"] = float(state[6])
    rows = []
    for given in ({"state": state.astype(np.float64)}, parts):
        policy = started(FakeWorld(FakeRobot(table)))
        rows.append(policy.act(frames(table) | given))
    np.testing.assert_array_equal(*rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda seen: seen.pop("high"), "no high"),
        (lambda seen: seen.pop("state"), "no state"),
        (lambda seen: seen.update(top=seen.pop("high")), "unknown top and no high"),
        (lambda seen: seen.update(state=np.zeros(7)), r"shape \(14,\).*left_arm \(6\)"),
        (lambda seen: seen.update(state=np.full(14, np.nan)), "finite"),
        (lambda seen: seen.update(state=np.eye(14)[6] * 100), "state.left_gripper in .*open and"),
        (lambda seen: seen.update(high=seen["high"] / 255.0), "255 \\* image"),
        (lambda seen: seen.update(high=seen["high"].transpose(2, 0, 1)), "transpose"),
        (lambda seen: seen.update(high=seen["high"][None]), "image\\[0\\]"),
        (lambda seen: seen.update({"state.left_arm": np.zeros(6)}), "both 'state' and"),
        (
            lambda seen: (seen.pop("state"), seen.update({"state.left_arm": np.zeros(6)})),
            "no state.left_gripper, state.right_arm",
        ),
        (lambda seen: seen.update({"state.hand": 0}), "'state.left_arm' \\(6,\\)"),
    ],
)
def test_wrong_observations_are_answered_with_the_tables_keys(change, words):
    table = robot("two_arms")
    policy = started(FakeWorld(FakeRobot(table)))
    seen = look(table, np.zeros(14))
    change(seen)
    with pytest.raises(ValueError, match=words):
        policy.act(seen)


def test_the_only_camera_may_be_called_image():
    table = robot("blind_cart")
    policy = started(FakeWorld(FakeRobot(table)))
    picture = frames(table)["front"]
    first = policy.act({"image": picture})
    assert first.shape == (2,)
    policy.reset("go", seed=1)
    np.testing.assert_array_equal(policy.act({"front": picture}), first)
    policy.reset()
    with pytest.raises(ValueError, match="same camera"):
        policy.act({"front": picture, "image": picture})
    with pytest.raises(ValueError, match="unknown state"):
        policy.act({"front": picture, "state": np.zeros(0)})


def test_a_robot_without_language_needs_no_instruction():
    model = FakeRobot(robot("blind_cart"))
    policy = Policy(FakeWorld(model))
    with pytest.raises(ValueError, match="reset"):
        policy.act(frames(model.robot))
    policy.reset()
    policy.act(frames(model.robot))
    assert model.asked[0]["instruction"] == [""]
    with pytest.raises(ValueError, match="expected an instruction"):
        policy.reset(None)
    told = Policy(FakeWorld(FakeRobot(robot("velocities"))))
    with pytest.warns(UserWarning, match="which recordings of velocities have"):
        told.reset()
    told.act(look(told.robot, np.zeros(8)))


def test_past_frames_of_every_camera_are_shown():
    table = robot("velocities")
    model = FakeRobot(table, history_offsets=(3, 1))
    policy = started(FakeWorld(model), execute=2)
    seen = [look(table, np.zeros(8), step) for step in range(5)]
    for step in range(5):
        assert policy.needs_observation
        policy.act(seen[step] if step != 1 else {k: v for k, v in seen[1].items() if k != "wrist"})
    first, second, third = model.asked
    assert first["history_valid"].tolist() == [[False, False]]
    assert second["history_valid"].tolist() == [[False, True]]
    assert third["history_valid"].tolist() == [[True, True]]
    for row, step in enumerate((1, 3)):
        shown = resize_image(seen[step]["side"], SIZE)
        np.testing.assert_array_equal(third["history/side"][0, row], shown)
    assert not third["history/wrist"][0, 0].any() and third["history/wrist"][0, 1].any()


def test_the_last_command_is_carried_into_the_next_chunk():
    table = robot("pose_wxyz")  # records a target of the gripper, its model gives pulses
    model = FakeRobot(table)
    state = episode(table)[0][0].copy()
    state[7] = 1.0  # measured open
    pulses = iter([[0, 0.9, 0, 0], [0, 0, 0, 0], [0, 0, 0, -0.8]])

    def answer(model, samples):
        values = np.zeros((4, model.coder.action_width))
        values[:, model.coder.slices("action")["gripper"].start] = next(pulses)
        return values

    policy = started(FakeWorld(model, answer=answer), execute=4)
    commands = [policy.act(look(table, state, step))[-1] for step in range(12)]
    # open (1) until it is closed (0), in the next chunk, too
    assert commands == [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]


def test_a_caller_that_executes_a_chunk_itself_says_how_far():
    table = robot("pose_wxyz")
    model = FakeRobot(table)
    state = episode(table)[0][0].copy()
    state[7] = 1.0
    pulses = iter([[0, 0, 0.9, 0], [0, 0, 0, 0]] * 3)

    def answer(model, samples):
        values = np.zeros((4, model.coder.action_width))
        values[:, model.coder.slices("action")["gripper"].start] = next(pulses)
        return values

    for executed, carried in ((2, 1), (3, 0), (None, 1)):
        policy = started(FakeWorld(model, answer=answer), execute=2)
        assert policy.chunk(look(table, state))[:, -1].tolist() == [1, 1, 0, 0]
        if executed:
            policy.executed(executed)
        assert policy.chunk(look(table, state))[0, -1] == carried


def test_a_quaternion_keeps_the_side_of_the_step_before():
    table = robot("pose_wxyz")
    model = FakeRobot(table)
    policy = started(FakeWorld(model), execute=1)
    state = episode(table)[0][0]
    for sign in (1, -1, -1, 1):
        turned = state.copy()
        turned[3:7] *= sign
        policy.act(look(table, turned))
    shown = np.stack([samples["state"][0] for samples in model.asked])
    np.testing.assert_allclose(shown, shown[:1].repeat(4, 0), atol=1e-7)


def test_one_of_several_robots_is_named():
    tables = [robot("two_arms"), robot("velocities")]
    world = FakeWorld(*map(FakeRobot, tables))
    with pytest.raises(ValueError, match="two_arms, velocities"):
        Policy(world)
    with pytest.raises(ValueError, match="got panda"):
        Policy(world, "panda")
    for table in tables:
        policy = started(world, table.name)
        action = policy.act(look(table, np.zeros(table.state_width)))
        assert action.shape == (table.action_width,) and policy.robot is table
        assert len(world.robots[table.name].asked) == 1


def test_a_robot_without_actions_does_not_act():
    content = {"name": "watcher", **TABLES["blind_cart"], "action": None}
    from robotics.embodiment.tables import load_robot

    with pytest.raises(ValueError, match="expected a robot with actions"):
        Policy(FakeWorld(FakeRobot(load_robot(content))))


def test_half_of_a_chunk_is_executed_unless_stated():
    world = FakeWorld(FakeRobot(robot("blind_cart"), horizon=10))
    assert Policy(world).execute == 5
    with pytest.raises(ValueError, match="1..10"):
        Policy(world, execute=11)
