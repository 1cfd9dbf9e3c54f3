"""Policies behind openpi's websocket protocol: messages, client, and this project's server."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from eval_runs import run_here, without_times, words
from fake_world import TABLES, FakeRobot, FakeWorld, episode, look, robot
from scipy.spatial.transform import Rotation
from tiny_world import tiny_world
from websockets.sync.client import connect
from websockets.sync.server import serve

from eval.policies.options import load_config
from eval.policies.remote import METADATA, messages
from eval.policies.remote.policy import RemoteError, RemotePolicy, fit
from eval.policies.remote.server import Server, Session, describe, serve_checkpoint
from eval.policies.spec import parse_policy
from eval.serve import build_parser as serve_parser
from eval.serve import summary
from robotics.embodiment.control import tool_robot
from robotics.embodiment.tables import load_robot
from robotics.model.policy import CheckpointPolicy, Policy
from selfflow_wm.checkpoints import SHIPPED

LOOK = {
    "image": np.full((256, 320, 3), 7, np.uint8),
    "tool_pose": np.array([0.1, 0.2, 0.3, 0, 0, np.sqrt(0.5), np.sqrt(0.5)], np.float32),
    "gripper_closed": np.array([0.25], np.float32),
}


@contextlib.contextmanager
def listening(server):
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
    finally:
        server.shutdown()
        thread.join(10)


@contextlib.contextmanager
def answering(answer, metadata=None, requests=None):
    """A foreign server; `answer(n, request)` gives the n-th answer, None closes the line."""
    count = [0]

    def handle(socket):
        socket.send(messages.pack(metadata or {}))
        for data in socket:
            if requests is not None:
                requests.append(messages.unpack(data))
            reply = answer(count[0])
            count[0] += 1
            if reply is None:
                return
            socket.send(reply if isinstance(reply, str) else messages.pack(reply))

    with listening(serve(handle, "127.0.0.1", 0, compression=None)) as url:
        yield url


def rows(count=4, width=7):
    return {"actions": np.arange(count * width, dtype=np.float32).reshape(count, width) / 100}


def test_arrays_travel_as_openpi_writes_them():
    raw = msgpack.unpackb(messages.pack({"a": np.arange(6, dtype="<i4").reshape(2, 3)}))["a"]
    assert raw == {b"__ndarray__": True, b"data": np.arange(6, dtype="<i4").tobytes(),
                   b"dtype": "<i4", b"shape": [2, 3]}  # fmt: skip
    sent = {"x": np.float32(1.5), "image": LOOK["image"], "prompt": "é", "none": np.zeros((0, 3))}
    found = messages.unpack(messages.pack(sent))
    assert found["x"] == np.float32(1.5) and found["x"].dtype == np.float32
    np.testing.assert_array_equal(found["image"], sent["image"])
    assert found["prompt"] == "é" and found["none"].shape == (0, 3)


def test_a_port_that_no_machine_has_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        serve_parser().parse_args(["--port", "65536"])
    assert stopped.value.code == 2 and "65535" in capsys.readouterr().err
    assert serve_parser().parse_args(["--port", "65535"]).port == 65535


def test_waiting_for_a_server_is_said_at_once(capsys):
    with pytest.raises(ValueError, match="policy server"):
        RemotePolicy("ws://localhost:9", connect_s=0.6)
    said = capsys.readouterr().err
    assert "ws://localhost:9" in said and "remote.connect_s=" in said and said.count("\n") == 1


def test_objects_and_broken_messages_are_refused():
    with pytest.raises(ValueError, match="array of numbers"):
        messages.pack(np.array([{}], dtype=object))
    bad = {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "|O", b"shape": [1]}
    for data in (msgpack.packb(bad), b"\xc1", msgpack.packb(1)[:0], msgpack.packb("long")[:-1]):
        with pytest.raises(ValueError, match="expected msgpack"):
            messages.unpack(data)


def test_the_documented_keys_are_sent_and_a_chunk_is_executed_in_part():
    requests = []
    with answering(lambda n: rows(), requests=requests) as url:
        policy = RemotePolicy(url, execute=3)
        policy.reset("open top drawer", seed=5)
        actions = [policy.act(LOOK if policy.needs_observation else None) for _ in range(4)]
        policy.close()
    assert len(requests) == 2
    assert sorted(requests[0]) == ["observation/image", "observation/state", "prompt"]
    np.testing.assert_array_equal(requests[0]["observation/image"], LOOK["image"])
    state = np.concatenate([LOOK["tool_pose"], LOOK["gripper_closed"]])
    np.testing.assert_array_equal(requests[0]["observation/state"], state)
    assert requests[0]["observation/state"].dtype == np.float32
    assert requests[0]["prompt"] == "open top drawer"
    np.testing.assert_array_equal(actions[2].control, rows()["actions"][2])
    np.testing.assert_array_equal(actions[3].control, rows()["actions"][0])
    assert not any(action.terminate for action in actions)


@pytest.mark.parametrize(("gripper", "given", "meant"), [
    ("close_positive", 1, 1), ("open_positive", 1, -1), ("close_unit", 1, 1),
    ("close_unit", 0, -1), ("open_unit", 1, -1), ("open_unit", 0.5, 0),
])  # fmt: skip
def test_conventions_of_a_foreign_server(gripper, given, meant):
    angles = [0.3, -0.2, 0.5]
    row = np.array([[0, 0, 0, *angles, given, 0.9]])
    requests = []
    options = {"rotation": "rpy", "gripper": gripper, "state": "axis_angle", "image_size": 64}
    with answering(lambda n: {"actions": row}, requests=requests) as url:
        policy = RemotePolicy(url, execute=0, **options)
        policy.reset("go")
        action = policy.act(LOOK)
        policy.close()
    assert action.control[6] == pytest.approx(meant) and action.terminate
    turned = Rotation.from_euler("xyz", angles).as_rotvec()
    np.testing.assert_allclose(action.control[3:6], turned, atol=1e-6)
    np.testing.assert_allclose(
        requests[0]["observation/state"], [0.1, 0.2, 0.3, 0, 0, np.pi / 2, 0.25], atol=1e-6
    )
    image = requests[0]["observation/image"]
    assert image.shape == (64, 64, 3) and not image[0].any() and image[32].all()


def test_a_picture_is_fitted_with_black_around_it():
    small = fit(np.full((256, 320, 3), 9, np.uint8), 100)
    assert small.shape == (100, 100, 3)
    assert not small[:10].any() and not small[90:].any() and (small[10:90] == 9).all()


@pytest.mark.parametrize(("answer", "error", "words_"), [
    ({"actions": np.full((2, 7), np.nan)}, ValueError, "NaN"),
    ({"actions": np.zeros(7)}, ValueError, r"got \(7,\)"),
    ({"actions": np.zeros((2, 6))}, ValueError, r"got \(2, 6\)"),
    ({"actions": np.zeros((0, 7))}, ValueError, r"got \(0, 7\)"),
    ({"actions": np.array([["x"] * 7])}, ValueError, "dtype"),
    ({"action": np.zeros((2, 7))}, ValueError, r"got \['action'\]"),
    ("Traceback\nRuntimeError: out of memory\n", RemoteError, "RuntimeError: out of memory"),
])  # fmt: skip
def test_answers_that_are_none_are_named(answer, error, words_):
    with answering(lambda n: answer) as url:
        policy = RemotePolicy(url)
        policy.reset("go")
        with pytest.raises(error, match=words_):
            policy.act(LOOK)
        policy.close()


def test_a_lost_connection_is_made_again_and_a_silent_server_is_given_up():
    with answering(lambda n: None if n == 0 else rows()) as url:
        policy = RemotePolicy(url)
        policy.reset("go")
        assert policy.act(LOOK).control.shape == (7,)
        policy.close()
    with answering(lambda n: time.sleep(1.0) or rows()) as url:
        policy = RemotePolicy(url, timeout_s=0.1)
        policy.reset("go")
        with pytest.raises(RemoteError, match=r"no answer in 0.1 s"):
            policy.act(LOOK)
        policy.close()


def test_no_server_a_bad_option_or_another_robot_is_an_error_in_the_input():
    with pytest.raises(ValueError, match="expected a policy server"):
        RemotePolicy("ws://127.0.0.1:9", connect_s=0.2)
    with pytest.raises(ValueError, match="ws"):
        RemotePolicy("ws://", connect_s=0.2)
    with pytest.raises(ValueError, match=r"remote.gripper: expected"):
        RemotePolicy("ws://127.0.0.1:9", gripper="up")
    served = {"selfflow_wm": {"embodiment": "widowx", "gripper": "close_positive"}}
    with answering(lambda n: rows(), served) as url:
        with pytest.raises(ValueError, match="embodiment=embedded"):
            RemotePolicy(url, embodiment="embedded")
        with pytest.raises(ValueError, match="gripper=open_unit"):
            RemotePolicy(url, embodiment="widowx", gripper="open_unit")


def test_the_policy_word_is_an_address():
    config = load_config(["remote.execute=2"])
    spec = parse_policy("ws://host:8000", None, config)
    assert (spec.kind, spec.path, spec.options["execute"]) == ("remote", "ws://host:8000", 2)
    for bad in ("ws:host", "http://host:8000"):
        with pytest.raises(ValueError, match="ws"):
            parse_policy(bad, None, config)


def rt1(**options):
    """A policy of RT-1's table, and the model behind it."""
    model = FakeRobot(robot("embedded"), horizon=4)
    return Policy(FakeWorld(model), **options), model


def test_a_session_follows_the_clients_episodes():
    state = np.append(LOOK["tool_pose"], LOOK["gripper_closed"])
    base = {"observation/image": LOOK["image"], "observation/state": state, "prompt": "a"}
    policy, model = rt1(execute=2)
    session = Session(policy)
    chunk = session.infer({**base, "episode/seed": 3, "episode/call": 0})
    assert chunk.shape == (4, 8) and chunk.dtype == np.float32
    assert set(chunk[:, 7]) <= {0, 1} and set(chunk[:, 6]) <= {-1, 0, 1}
    second = session.infer({**base, "prompt": "b", "episode/seed": 3, "episode/call": 1})
    assert not np.array_equal(second, chunk)
    with pytest.raises(ValueError, match="expected call 2, got 5"):
        session.infer({**base, "episode/seed": 3, "episode/call": 5})
    again = session.infer({**base, "episode/seed": 3, "episode/call": 0})
    np.testing.assert_array_equal(again, chunk)  # the same seed, as a new episode
    assert [samples["instruction"] for samples in model.asked] == [["a"], ["b"], ["a"]]
    plain = Session(policy)  # of a client that does not number its calls
    first = plain.infer(base)
    assert not np.array_equal(plain.infer(base), first)
    with pytest.raises(ValueError, match=r"'state'\]: expected numbers of shape \(8,\)"):
        plain.infer({**base, "observation/state": np.zeros(7)})
    with pytest.raises(ValueError, match="no head, state"):
        plain.infer({"prompt": "a"})
    with pytest.raises(ValueError, match="observation/head, observation/state, prompt.*add prompt"):
        plain.infer({"observation/image": LOOK["image"]})


@contextlib.contextmanager
def serving(world, name=None, **options):
    """A server of this project for a robot of a model; its address and policy's description."""

    def make_policy():
        return Policy(world, name, **options)

    metadata = {METADATA: describe(make_policy(), "hash", {})}
    server = Server(make_policy, metadata, "127.0.0.1", 0)
    with listening(server._server) as url:
        yield url


def ask(socket, request):
    socket.send(messages.pack(request))
    answer = socket.recv(timeout=10)
    assert isinstance(answer, bytes), answer
    return messages.unpack(answer)["actions"]


@pytest.mark.parametrize("name", [*TABLES, "rt1", "widowx"])
@pytest.mark.parametrize("history", [(), (2, 1)])
def test_a_robot_acts_the_same_through_its_server(name, history):
    table = robot(name)
    states, _ = episode(table)
    execute = 2
    seen = [look(table, states[step], step) for step in range(6)]
    here = Policy(FakeWorld(FakeRobot(table, history_offsets=history)), execute=execute)
    here.reset("go", seed=4)
    own = [here.act(row if here.needs_observation else None) for row in seen]
    world = FakeWorld(FakeRobot(table, history_offsets=history))
    with serving(world, execute=execute) as url, connect(url, compression=None) as socket:
        told = messages.unpack(socket.recv(timeout=10))[METADATA]
        assert load_robot(told["robot"]) == table and told["rate"] == table.rate
        ends = table.terminate is not None
        assert len(told["actions"]) == table.action_width + ends
        for by_wire in (True, False):
            got = []
            every = execute if not told["every_frame"] else 1
            for calls, step in enumerate(range(0, len(seen), every)):
                request = seen[step] | {"instruction": "go"}
                if by_wire:
                    keys, places = told["keys"], table.slices("state")
                    request = {keys[f"cameras.{row}"]: seen[step][row] for row in told["cameras"]}
                    state = seen[step].get("state")
                    if "state" in keys:
                        request[keys["state"]] = state
                    elif state is not None:
                        request |= {keys[f"state.{n}"]: state[at] for n, at in places.items()}
                    request[keys.get("instruction", "prompt")] = "go"
                episode_keys = {"episode/seed": 4, "episode/call": calls}
                rows = ask(socket, request | episode_keys)
                assert rows.shape[1] == len(told["actions"])
                got += list(rows[:every, : table.action_width])
            np.testing.assert_array_equal(np.stack(got), np.stack(own))


def test_one_of_a_checkpoints_robots_is_served(tmp_path):
    names = ("two_arms", "velocities")
    model = tiny_world(*map(robot, names))
    model.save(tmp_path / "saved")
    config = load_config(["policy.steps=1"])
    table = robot("velocities")
    states, _ = episode(table)
    here = Policy(model, "velocities", steps=1)
    here.reset("go", seed=6)
    server = serve_checkpoint(
        str(tmp_path / "saved"), "127.0.0.1", 0, config, threads=1, robot="velocities"
    )
    with listening(server._server) as url, connect(url, compression=None) as socket:
        told = messages.unpack(socket.recv(timeout=10))[METADATA]
        assert told["cameras"] == ["side", "wrist"] and told["horizon"] == 4
        assert told["actions"] == [f"joints.{n}" for n in range(7)] + ["gripper"]
        seen = look(table, states[0])
        rows = ask(socket, {**seen, "prompt": "go", "episode/seed": 6, "episode/call": 0})
    np.testing.assert_array_equal(rows, here.chunk(seen))
    lines = summary(server.metadata)
    assert "velocities, 15 Hz" in lines and "4 rows of joints.0" in lines
    assert "observation/exterior_image_1_left, observation/wrist, observation/joint_posi" in lines
    for wrong in (None, "panda"):
        with pytest.raises(ValueError, match="expected one of two_arms, velocities"):
            serve_checkpoint(str(tmp_path / "saved"), "127.0.0.1", 0, config, robot=wrong)
    assert serve_parser().parse_args(["--robot", "two_arms"]).robot == "two_arms"


def test_more_than_the_chunk_holds_cannot_be_executed(tmp_path):
    tiny_world(robot("velocities")).save(tmp_path / "saved")
    for word in ("policy.execute=9", "policy.execute=0"):
        with pytest.raises(ValueError, match=r"expected execute in 1\.\.4 "):
            serve_checkpoint(str(tmp_path / "saved"), "127.0.0.1", 0, load_config([word]))


def test_a_checkpoint_of_video_alone_is_said_to_have_no_actions(tmp_path):
    table = replace(robot("velocities"), name="films", state=(), action=(), keys={})
    tiny_world(table, modes=("video",)).save(tmp_path / "saved")
    with pytest.raises(ValueError, match="expected a robot with actions, got films"):
        serve_checkpoint(str(tmp_path / "saved"), "127.0.0.1", 0, load_config())


@pytest.mark.parametrize("key", ["episode/seed", "episode/call"])
@pytest.mark.parametrize("wrong", ["x", None, 1.5, -1, [1, 2], np.nan, 2**70, True])
def test_what_numbers_no_episode_is_refused(key, wrong):
    policy, model = rt1()
    state = np.append(LOOK["tool_pose"], LOOK["gripper_closed"])
    request = {"observation/image": LOOK["image"], "observation/state": state, "prompt": "a"}
    with pytest.raises(ValueError, match=rf"^{key}: expected a whole number.*, got .*; send"):
        Session(policy).infer({**request, key: wrong})
    assert not model.asked


def test_nested_maps_and_keys_of_a_protocol_are_understood():
    table = robot("velocities")
    policy = Policy(FakeWorld(FakeRobot(table)))
    seen, state = look(table, np.arange(8.0) / 10), np.arange(8.0) / 10
    flat = {
        "observation/exterior_image_1_left": seen["side"],
        "observation/wrist": seen["wrist"],
        "observation/joint_position": state[:7],
        "observation/gripper_position": state[7:],
        "prompt": "go",
    }
    nested = {"observation": {key.split("/")[1]: flat[key] for key in list(flat)[:4]}, "task": "go"}
    first, second = (
        Session(policy).infer(request | {"episode/call": 0}) for request in (flat, nested)
    )
    np.testing.assert_array_equal(first, second)
    flipped = flat | {"observation/wrist": seen["wrist"].transpose(2, 0, 1)}
    third = Session(policy).infer(flipped | {"episode/call": 0})
    np.testing.assert_array_equal(third, first)
    with pytest.raises(ValueError, match="expected side once"):
        Session(policy).infer(flat | {"side": seen["side"]})


def test_a_simulator_acts_on_the_robot_that_a_server_names():
    policy, _ = rt1(execute=3)
    local = CheckpointPolicy(FakeWorld(FakeRobot(robot("embedded"), horizon=4)), execute=3)
    with serving(policy.world) as url:
        remote = RemotePolicy(url, embodiment="embedded")
        for one in (local, remote):
            one.reset("open top drawer", seed=5)
        for step in range(7):
            image = np.full((256, 320, 3), step, np.uint8)
            looks = remote.needs_observation
            assert looks == local.needs_observation == (step % 3 == 0)
            seen = {**LOOK, "image": image} if looks else None
            mine, theirs = local.act(seen), remote.act(seen)
            np.testing.assert_array_equal(mine.control, theirs.control)
            assert mine.terminate == theirs.terminate
        remote.close()
        with pytest.raises(ValueError, match="embodiment=google_robot"):
            RemotePolicy(url, embodiment="google_robot")
        with pytest.raises(ValueError, match="says itself.*remote.gripper"):
            RemotePolicy(url, gripper="open_unit")
        with pytest.raises(ValueError, match="rate: 10 Hz against 3 Hz"):
            RemotePolicy(url, robot=tool_robot("embedded", 10.0, (256, 320)))
        with pytest.raises(ValueError, match="no transform bridges"):
            RemotePolicy(url, robot=robot_named("embedded"))


def test_an_environment_of_another_robot_speaks_in_its_own_terms():
    table = robot("velocities")
    requests, rows = [], np.arange(24, dtype=np.float32).reshape(3, 8)
    with answering(lambda n: {"actions": rows}, requests=requests) as url:
        policy = RemotePolicy(url, robot=table, execute=2)
        policy.reset("go")
        frames = look(table, np.zeros(8))
        seen = {
            "observation/exterior": frames["side"],
            "observation/wrist": frames["wrist"],
            "observation/joint_position": np.arange(7.0),
            "observation/gripper_position": np.ones(1),
        }
        controls = [policy.act(seen if policy.needs_observation else None) for _ in range(2)]
        policy.close()
    np.testing.assert_array_equal([action.control for action in controls], rows[:2])
    (sent,) = requests
    assert sorted(sent) == [
        "observation/exterior_image_1_left", "observation/gripper_position",
        "observation/joint_position", "observation/wrist", "prompt",
    ]  # fmt: skip
    np.testing.assert_array_equal(sent["observation/joint_position"], np.arange(7))


def robot_named(embodiment):
    return load_robot({"name": "two_arms", "embodiment": embodiment, **TABLES["two_arms"]})


def test_a_server_that_fails_says_why(capsys):
    policy, _ = rt1()
    server = Server(lambda: policy, {}, "127.0.0.1", 0)
    with pytest.raises(ValueError, match="expected a free one"):
        Server(lambda: policy, {}, "127.0.0.1", server.port)
    with listening(server._server) as url:
        client = RemotePolicy(url, state="axis_angle")
        client.reset("go")
        with pytest.raises(RemoteError, match=r"expected numbers of shape \(8,\)"):
            client.act(LOOK)
        client.reset("go")
        client.close()


@pytest.mark.skipif(not (SHIPPED / "self_flow").is_dir(), reason="needs the shipped checkpoint")
def test_a_checkpoint_acts_the_same_through_its_server(tmp_path):
    config = load_config(["policy.steps=2"])
    more = ("--episodes", "1")
    own = ("policy.steps=2", "policy.execute=5")
    here = run_here(
        words(tmp_path / "here", *more, *own, policy="checkpoint", task="open_drawer_place")
    )
    server = serve_checkpoint(None, "127.0.0.1", 0, config, threads=1)
    with listening(server._server) as url:
        arguments = words(
            tmp_path / "there", *more, "remote.execute=5", policy=url, task="open_drawer_place"
        )
        there = run_here(arguments)
    found = without_times(there.records.values())
    assert found == without_times(here.records.values())
    assert all(len(record["instructions"]) == 2 for record in found.values())
    assert there.settings["checkpoint_sha256"] == here.settings["checkpoint_sha256"]
