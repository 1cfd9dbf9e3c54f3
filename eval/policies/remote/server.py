"""Serves a checkpoint over openpi's websocket protocol, one policy state per connection.

All connections share the weights; one request is computed at a time. Actions are returned as the
robot's recordings have them; the metadata says what that is.
"""

from __future__ import annotations

import http
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from eval.policies.remote import METADATA, messages
from eval.policies.remote.keys import ACTIONS, read_request, wire_keys
from eval.policies.spec import fingerprint, parse_policy
from robotics.embodiment.coding import recorded_names

if TYPE_CHECKING:
    from robotics.model.policy import Policy


class Session:
    """One connection's episode: requests in, chunks out."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.answer_key = wire_keys(policy.robot, policy.cameras)["action"]
        """What the table calls an answer's actions."""
        self._prompt = ""
        self._calls = -1
        self._seed: int | None = None

    def infer(self, request: dict[str, Any]) -> np.ndarray:
        """The chunk for one request: float32 (H, A) as recorded or, of a robot whose recordings
        have it, (H, A + 1) with terminate (0 or 1) as the last value. A model that looks back at
        every frame is asked at every step and answers with one row.

        A client that numbers its calls (`episode/call`) gets the sampling noise of a policy that
        runs locally; for others every call is the next one of an endless episode. Of the chunk
        before, `episode/executed` rows were executed, by default the policy's `execute`.
        """
        policy = self._policy
        observation, prompt = read_request(request, policy.robot, policy.cameras)
        call = _whole(request, "episode/call", max(self._calls, 0))
        if call == 0:
            self._seed = _whole(request, "episode/seed", 0)
            policy.reset(prompt, seed=self._seed)
        elif call != self._calls:
            raise ValueError(
                f"episode: expected call {max(self._calls, 0)}, got {call}; restart the "
                "episode, its state was lost with an earlier connection"
            )
        elif prompt != self._prompt:
            policy.instruct(prompt)
        self._prompt, self._calls = prompt, call + 1
        if policy.looks_back:
            rows, ending = policy.act(observation)[None], np.array([policy.terminated])
        else:
            if call and "episode/executed" in request:
                policy.executed(_whole(request, "episode/executed", 0))
            rows, ending = policy.chunk(observation), policy.ending
        if policy.robot.terminate is not None:
            rows = np.concatenate([rows, ending[:, None]], axis=1)
        return rows.astype(np.float32)


def _whole(request: Mapping[str, Any], key: str, default: int) -> int:
    """A number of 0 or more in a request; ValueError for anything else."""
    value = request.get(key, default)
    number = np.asarray(value)
    if number.ndim == 0 and number.dtype.kind in "iuf" and 0 <= number < 2**63 \
            and number == np.trunc(number):  # fmt: skip
        return int(number)
    raise ValueError(
        f"{key}: expected a whole number from 0 to {2**63 - 1}, got {value!r}; send one, such as "
        f"{default}, or leave it out"
    )


class Server:
    """Listens at once; `serve_forever` answers until `shutdown` is called from another thread.

    Args:
        make_policy: builds the policy of a connection; policies may share their weights.
        metadata: the first message to each client.
        host: address to listen on.
        port: 0 picks a free one, see `port`.
    """

    def __init__(
        self, make_policy: Callable[[], Policy], metadata: dict[str, Any], host: str, port: int
    ) -> None:
        self._make_policy, self.metadata = make_policy, metadata
        self._one_at_a_time = threading.Lock()
        try:
            self._server = serve(
                self._handle, host, port, compression=None, max_size=messages.MAX_BYTES,
                process_request=_health, ping_interval=None,
            )  # fmt: skip
        except OSError as error:
            raise ValueError(
                f"port: expected a free one, got {host}:{port} ({error.strerror or error}); "
                "choose another --port"
            ) from None
        self.port: int = self._server.socket.getsockname()[1]

    def serve_forever(self) -> None:
        """Answer requests."""
        self._server.serve_forever()

    def shutdown(self) -> None:
        """Stop listening."""
        self._server.shutdown()

    def _handle(self, socket: Any) -> None:
        session = Session(self._make_policy())
        try:
            socket.send(messages.pack(self.metadata))
            for data in socket:
                begun = time.perf_counter()
                with self._one_at_a_time:
                    actions = session.infer(messages.unpack(data))
                timing = {"infer_ms": 1e3 * (time.perf_counter() - begun)}
                answer = dict.fromkeys({ACTIONS, session.answer_key}, actions)
                socket.send(messages.pack({**answer, "server_timing": timing}))
        except ConnectionClosed:
            return
        except Exception:
            traceback.print_exc()
            socket.send(traceback.format_exc())
            socket.close(1011, "the traceback is in the previous message")


def serve_checkpoint(
    checkpoint: str | None, host: str, port: int, config: dict[str, Any],
    threads: int | None = None, robot: str | None = None,
) -> Server:  # fmt: skip
    """A server of a checkpoint, listening; see `Server`.

    Args:
        checkpoint: path or name; None is the shipped one.
        host, port: where to listen; port 0 picks a free one.
        config: of `configs/eval.yaml`.
        threads: of torch; None: unchanged.
        robot: its name, needed where the checkpoint has several.
    """
    import torch

    from robotics.model.policy import EXECUTE, Policy
    from robotics.model.world_model import WorldModel

    spec = parse_policy("checkpoint", checkpoint, config)
    options = dict(spec.options)
    world = WorldModel.load(spec.path, device=options.pop("device"))
    robot = robot or options.pop("robot", None)
    if threads is not None:
        torch.set_num_threads(threads)
    if options["execute"] == EXECUTE:  # the default: of a shorter chunk all
        served = [world.robots[robot]] if robot in world.robots else world.robots.values()
        options["execute"] = min(EXECUTE, *(row.horizon for row in served))

    def make_policy() -> Policy:
        return Policy(world, robot, **options)

    policy = make_policy()  # refuse bad options now, not when the first client connects
    metadata = {METADATA: describe(policy, fingerprint(spec), spec.options)}
    return Server(make_policy, metadata, host, port)


def describe(policy: Policy, sha256: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """What a client has to know to act: under `METADATA` in the first message of a server."""
    names = recorded_names(policy.robot, "action")
    ends = ["terminate"] * (policy.robot.terminate is not None)
    return {
        "embodiment": policy.robot.embodiment,
        "robot": policy.robot.to_dict(),
        "cameras": list(policy.cameras),
        "keys": wire_keys(policy.robot, policy.cameras),
        "actions": [*names, *ends],
        "horizon": policy.horizon,
        "rate": policy.robot.rate,
        "every_frame": policy.looks_back,
        "checkpoint_sha256": sha256,
        "options": options,
    }


def _health(connection: Any, request: Any) -> Any:
    return connection.respond(http.HTTPStatus.OK, "OK\n") if request.path == "/healthz" else None
