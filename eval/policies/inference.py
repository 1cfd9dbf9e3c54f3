"""One process that holds a checkpoint for all workers and predicts for those that wait together.

    worker: CheckpointPolicy -> SharedWorld --Unix socket (wire)--> server -> WorldModel

Otherwise every worker holds weights of its own, which costs memory and, on a GPU, leaves it to
many small calls. With one sample a call, predictions are those of workers with models of their own,
bit for bit, whoever else asks. With more they are the same up to rounding: it depends on how many
samples a call has (so each call here has the same number: those that wait, filled up with copies)
and, with some sizes on a CPU, on a sample's place among them (seen with 3, not with 4). A long
episode can turn such a difference into another outcome; where results must not depend on the number
of workers, one sample a call is the choice.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import selectors
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

from eval.envs import wire
from eval.policies.spec import PolicySpec
from robotics.embodiment.table import Embodiment, embodiment
from selfflow_wm.processes import ONE_THREAD, end_with_parent, error_line, started_with

WAIT = 0.004
"""s; the longest that a request waits for others to join it."""
LOADING = 600.0
"""s; within which the model has to be ready."""
REQUEST = 60.0
"""s; within which a request that has begun to arrive has to be there."""
Arrays = dict[str, np.ndarray]
Request = tuple[dict[str, Any], Arrays]
"""Header and arrays of a message."""
_ARRAYS = ("image", "proprio", "history", "history_valid")


class SharedWorld:
    """The model of an inference process, as far as a policy needs it; see `WorldModel`.

    Raises `ValueError` when nobody listens at `address`.
    """

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(address)
        except OSError as error:
            raise ValueError(
                f"inference: expected the run's inference process, got none ({error.strerror}); "
                "run the same command again, it continues"
            ) from None
        said, _ = self._ask({"op": "describe"})
        self.embodiment: Embodiment = embodiment(said["embodiment"])
        self.modes: tuple[str, ...] = tuple(said["modes"])
        self.horizon: int = said["horizon"]
        self.image_size: tuple[int, int] = tuple(said["image_size"])
        self.history_offsets: tuple[int, ...] = tuple(said["history_offsets"])

    @property
    def action(self) -> SharedWorld:
        """What limits actions."""
        return self

    def clip(self, values: np.ndarray) -> np.ndarray:
        """Actions (..., 8) limited to the range of the training data."""
        return self._ask({"op": "clip"}, {"values": values})[1]["values"]

    def generate(
        self,
        samples: dict[str, Any],
        mode_name: str,
        *,
        steps: int,
        shift: float,
        generator: Sequence[Any],
    ) -> Arrays:
        """{"action": (1, H, 8)} for one sample; its `torch.Generator` moves on as if used here."""
        import torch

        (one,) = generator
        header = {
            "op": "generate", "mode": mode_name, "steps": steps, "shift": shift,
            "instruction": samples["instruction"][0],
        }  # fmt: skip
        arrays = {name: np.asarray(samples[name][0]) for name in _ARRAYS if name in samples}
        _, found = self._ask(header, {**arrays, "noise": one.get_state().numpy()})
        one.set_state(torch.from_numpy(found["noise"]))
        return {"action": found["action"][None]}

    def _ask(
        self, header: dict[str, Any], arrays: Arrays | None = None
    ) -> tuple[dict[str, Any], Arrays]:
        try:
            wire.send(self._socket.fileno(), header, arrays)
            answer, found = wire.receive(self._socket.fileno())
        except (wire.Closed, OSError):
            raise RuntimeError("the inference process is gone; was its memory used up?") from None
        if answer["ok"]:
            return answer, found
        raise (ValueError if answer["kind"] == "value" else RuntimeError)(answer["error"])


class Batcher:
    """Answers requests with calls of exactly `size` samples each."""

    def __init__(self, world: Any, size: int) -> None:
        self._world, self._size = world, size

    def describe(self) -> dict[str, Any]:
        """What `SharedWorld` mirrors."""
        world = self._world
        return {
            "embodiment": world.embodiment.name, "modes": list(world.modes),
            "horizon": world.horizon,
            "image_size": list(world.image_size), "history_offsets": list(world.history_offsets),
        }  # fmt: skip

    def clip(self, values: np.ndarray) -> np.ndarray:
        """See `SharedWorld.clip`."""
        return self._world.action.clip(values)

    def predict(self, requests: Sequence[Request]) -> list[Arrays]:
        """`{"action", "noise"}` of each of at most `size` requests of one kind (see `kind`)."""
        import torch

        filled = [requests[min(i, len(requests) - 1)] for i in range(self._size)]
        generators = []
        for _, arrays in filled:
            generators.append(torch.Generator())
            generators[-1].set_state(torch.from_numpy(arrays["noise"].copy()))
        head, first = requests[0]
        samples: dict[str, Any] = {
            name: np.stack([arrays[name] for _, arrays in filled])
            for name in _ARRAYS
            if name in first
        }
        samples["instruction"] = [header["instruction"] for header, _ in filled]
        actions = self._world.generate(
            samples, head["mode"], steps=head["steps"], shift=head["shift"], generator=generators
        )["action"]
        return [
            {"action": actions[i], "noise": generators[i].get_state().numpy()}
            for i in range(len(requests))
        ]


def kind(request: Request) -> tuple:
    """What requests must share to be samples of one call."""
    header, arrays = request
    shapes = tuple((name, arrays[name].shape) for name in _ARRAYS if name in arrays)
    return header["mode"], header["steps"], header["shift"], shapes


class InferenceServer:
    """Reads requests from any number of workers and answers them, a batch at a time."""

    def __init__(self, listener: socket.socket, batcher: Batcher, size: int) -> None:
        self._listener, self._batcher, self._size = listener, batcher, size
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._clients: set[socket.socket] = set()
        self._waiting: list[tuple[socket.socket, Request]] = []

    def serve_forever(self) -> None:
        """Until the process is ended."""
        due = 0.0
        while True:
            left = max(0.0, due - time.monotonic()) if self._waiting else None
            were = len(self._waiting)
            for key, _ in self._selector.select(left):
                self._read(key.fileobj)
            if self._waiting and not were:
                due = time.monotonic() + WAIT
            # A worker asks for one thing at a time: when all wait, nobody is left to wait for.
            enough = min(self._size, len(self._clients))
            if self._waiting and (len(self._waiting) >= enough or time.monotonic() >= due):
                self._answer()

    def _read(self, source: Any) -> None:
        if source is self._listener:
            client, _ = self._listener.accept()
            self._clients.add(client)
            self._selector.register(client, selectors.EVENT_READ)
            return
        try:
            header, arrays = wire.receive(source.fileno(), REQUEST)
        except (wire.Closed, wire.TimedOut, OSError, ValueError):
            self._drop(source)
            return
        if header["op"] == "describe":
            self._send(source, self._batcher.describe())
        elif header["op"] == "clip":
            self._send(source, {}, {"values": self._batcher.clip(arrays["values"])})
        else:
            self._waiting.append((source, (header, arrays)))

    def _answer(self) -> None:
        """The oldest request and those of its kind that wait."""
        wanted = kind(self._waiting[0][1])
        chosen, rest = [], []
        for pair in self._waiting:
            fits = len(chosen) < self._size and kind(pair[1]) == wanted
            (chosen if fits else rest).append(pair)
        self._waiting = rest
        self._settle(chosen)

    def _settle(self, chosen: list[tuple[socket.socket, Request]]) -> None:
        try:
            found = self._batcher.predict([request for _, request in chosen])
        except Exception as error:
            if len(chosen) > 1:  # one of them is at fault, and alone has to hear of it
                for pair in chosen:
                    self._settle([pair])
                return
            word = "value" if isinstance(error, ValueError) else "crash"
            text = str(error) if word == "value" else error_line(error)
            self._send(chosen[0][0], {"kind": word, "error": text}, ok=False)
            return
        for (client, _), arrays in zip(chosen, found, strict=True):
            self._send(client, {}, arrays)

    def _send(
        self, client: socket.socket, header: dict[str, Any],
        arrays: Arrays | None = None, *, ok: bool = True,
    ) -> None:  # fmt: skip
        try:
            wire.send(client.fileno(), {"ok": ok, **header}, arrays)
        except (wire.Closed, OSError):
            self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client)
            self._waiting = [pair for pair in self._waiting if pair[0] is not client]
            client.close()


@contextlib.contextmanager
def shared(spec: PolicySpec, size: int) -> Iterator[PolicySpec]:
    """`spec` with the address of a process that holds its model; ended at the end.

    size: samples per call.

    Raises:
        ValueError: the checkpoint or its device is not to be had. RuntimeError: loading crashed.
    """
    folder = tempfile.mkdtemp(prefix="selfflow-inference-")
    context = multiprocessing.get_context("spawn")
    ready, theirs = context.Pipe(duplex=False)
    address = str(Path(folder, "socket"))
    process = context.Process(target=_serve, args=(address, spec, size, theirs), daemon=True)
    try:
        with started_with(ONE_THREAD):
            process.start()
        theirs.close()
        _await(ready, process)
        yield replace(spec, address=address)
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
        shutil.rmtree(folder, ignore_errors=True)


def _await(ready: Any, process: Any) -> None:
    if not wait([ready], LOADING):
        raise RuntimeError(f"the inference process was not ready after {LOADING:g} s")
    try:
        problem, text = ready.recv()
    except EOFError:
        process.join(10)
        raise RuntimeError(f"the inference process died (exit code {process.exitcode})") from None
    if problem:
        raise (ValueError if problem == "value" else RuntimeError)(text)


def _serve(address: str, spec: PolicySpec, size: int, ready: Any) -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    try:
        import torch

        from robotics.model.world_model import WorldModel

        torch.set_num_threads(1)  # as in workers: their number of threads changes rounding
        world = WorldModel.load(spec.path, device=spec.options.get("device", "cpu"))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen(256)
    except ValueError as error:
        ready.send(("value", str(error)))
        return
    except Exception as error:
        ready.send(("crash", f"the inference process could not start: {error_line(error)}"))
        return
    ready.send(("", ""))
    InferenceServer(listener, Batcher(world, size), size).serve_forever()
