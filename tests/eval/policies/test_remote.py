"""Policies behind openpi's websocket protocol: messages, client, and this project's server."""

from __future__ import annotations

import contextlib
import threading
import time

import msgpack
import numpy as np
import pytest
from eval_runs import run_here, without_times, words
from scipy.spatial.transform import Rotation
from websockets.sync.server import serve

from eval.policies.options import load_config
from eval.policies.remote import messages
from eval.policies.remote.policy import RemoteError, RemotePolicy, fit
from eval.policies.remote.server import Server, Session, serve_checkpoint
from eval.policies.spec import parse_policy
from eval.serve import build_parser as serve_parser
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


class Counting:
    """Two actions a chunk that tell the seed and the number of predictions since the reset."""

    def __init__(self):
        self.left, self.told = 0, []

    def reset(self, instruction, seed=None):
        self.seed, self.calls, self.left = seed, 0, 0
        self.told.append(("reset", instruction))

    def instruct(self, instruction):
        self.left = 0
        self.told.append(("instruct", instruction))

    @property
    def needs_observation(self):
        return self.left == 0

    def act(self, observation):
        from robotics.embodiment.control import Action

        if self.left == 0:
            self.left, self.calls = 2, self.calls + 1
        self.left -= 1
        return Action(np.full(7, self.seed + self.calls / 10, np.float32), self.left == 0)


def test_a_session_follows_the_clients_episodes():
    state = np.zeros(8, np.float32)
    base = {"observation/image": LOOK["image"], "observation/state": state, "prompt": "a"}
    policy = Counting()
    session = Session(policy)
    chunk = session.infer({**base, "episode/seed": 3, "episode/call": 0})
    assert chunk.shape == (2, 8) and chunk.dtype == np.float32
    np.testing.assert_allclose(chunk[:, 0], 3.1, atol=1e-6)
    assert chunk[:, 7].tolist() == [0, 1]
    session.infer({**base, "prompt": "b", "episode/seed": 3, "episode/call": 1})
    with pytest.raises(ValueError, match="expected call 2, got 5"):
        session.infer({**base, "episode/seed": 3, "episode/call": 5})
    session.infer({**base, "episode/seed": 4, "episode/call": 0})
    assert policy.told == [("reset", "a"), ("instruct", "b"), ("reset", "a")]
    plain = Session(policy)  # of a client that does not number its calls
    plain.infer(base)
    assert plain.infer(base)[0, 0] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="observation/state of shape"):
        plain.infer({**base, "observation/state": np.zeros(7)})
    with pytest.raises(ValueError, match="observation/image"):
        plain.infer({"prompt": "a"})


def test_a_server_that_fails_says_why(capsys):
    server = Server(Counting, {}, "127.0.0.1", 0)
    with pytest.raises(ValueError, match="expected a free one"):
        Server(Counting, {}, "127.0.0.1", server.port)
    with listening(server._server) as url:
        policy = RemotePolicy(url, state="axis_angle")
        policy.reset("go")
        with pytest.raises(RemoteError, match=r"observation/state of shape \(8,\)"):
            policy.act(LOOK)
        policy.reset("go")
        policy.close()


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
