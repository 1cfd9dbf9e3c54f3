"""Serves a checkpoint over openpi's websocket protocol, one policy state per connection.

All connections share the weights; one request is computed at a time.
"""

from __future__ import annotations

import http
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from eval.policies.remote import METADATA, messages
from eval.policies.spec import fingerprint, parse_policy
from robotics.embodiment.control import Action, Observation, Policy


class Session:
    """One connection's episode: requests in, chunks out."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._prompt = ""
        self._calls = -1
        self._seed: int | None = None

    def infer(self, request: dict[str, Any]) -> np.ndarray:
        """The chunk for one request: float32 (H, 8), control and terminate.

        A client that numbers its calls (`episode/call`) gets the sampling noise of a policy that
        runs locally; for others every call is the next one of an endless episode.
        """
        prompt, call = request["prompt"], int(request.get("episode/call", max(self._calls, 0)))
        if call == 0:
            self._seed = int(request.get("episode/seed", 0))
            self._policy.reset(prompt, seed=self._seed)
        elif call != self._calls:
            raise ValueError(
                f"episode: expected call {max(self._calls, 0)}, got {call}; restart the "
                "episode, its state was lost with an earlier connection"
            )
        elif prompt != self._prompt:
            self._policy.instruct(prompt)
        self._prompt, self._calls = prompt, call + 1
        chunk = [self._policy.act(observation(request))]
        while not self._policy.needs_observation:
            chunk.append(self._policy.act(None))
        return np.stack([_row(action) for action in chunk])


def observation(request: dict[str, Any]) -> Observation:
    """The observation of a request; `ValueError` for other keys or shapes."""
    try:
        image, state = request["observation/image"], np.asarray(request["observation/state"])
    except KeyError as error:
        raise ValueError(
            f"request: expected observation/image, observation/state and prompt, got "
            f"{sorted(request)}; add {error}"
        ) from None
    if state.shape != (8,):
        raise ValueError(
            f"request: expected observation/state of shape (8,), xyz, quaternion xyzw and gripper, "
            f"got {state.shape}; leave remote.state at quaternion"
        )
    state = state.astype(np.float32)
    return Observation(image=np.asarray(image), tool_pose=state[:7], gripper_closed=state[7:])


def _row(action: Action) -> np.ndarray:
    return np.concatenate([action.control, [action.terminate]]).astype(np.float32)


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
        self._make_policy, self._metadata = make_policy, metadata
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
            socket.send(messages.pack(self._metadata))
            for data in socket:
                begun = time.perf_counter()
                with self._one_at_a_time:
                    actions = session.infer(messages.unpack(data))
                timing = {"infer_ms": 1e3 * (time.perf_counter() - begun)}
                socket.send(messages.pack({"actions": actions, "server_timing": timing}))
        except ConnectionClosed:
            return
        except Exception:
            traceback.print_exc()
            socket.send(traceback.format_exc())
            socket.close(1011, "the traceback is in the previous message")


def serve_checkpoint(
    checkpoint: str | None, host: str, port: int, config: dict[str, Any], threads: int | None = None
) -> Server:
    """A server of a checkpoint, listening; see `Server`.

    Args:
        checkpoint: path or name; None is the shipped one.
        host, port: where to listen; port 0 picks a free one.
        config: of `configs/eval.yaml`.
        threads: of torch; None: unchanged.
    """
    from robotics.model.policy import CheckpointPolicy
    from robotics.model.world_model import WorldModel

    spec = parse_policy("checkpoint", checkpoint, config)
    options = dict(spec.options)
    world = WorldModel.load(spec.path, device=options.pop("device"))
    options["execute"] = world.horizon

    def make_policy() -> CheckpointPolicy:
        return CheckpointPolicy(world, threads=threads, **options)

    make_policy()  # refuse bad options now, not when the first client connects
    served = {
        "embodiment": world.embodiment.name,
        "checkpoint_sha256": fingerprint(spec),
        "options": spec.options,
        "horizon": world.horizon,
        "rotation": "axis_angle",
        "gripper": "close_positive",
        "state": "quaternion",
    }
    return Server(make_policy, {METADATA: served}, host, port)


def _health(connection: Any, request: Any) -> Any:
    return connection.respond(http.HTTPStatus.OK, "OK\n") if request.path == "/healthz" else None
