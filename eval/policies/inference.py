"""One process that holds a checkpoint for all workers and predicts for those that wait together.

    worker: CheckpointPolicy -> SharedWorld --Unix socket--> Batcher -> WorldModel

Without it every worker holds its own copy of the weights, which costs memory and leaves a GPU with
many small calls. With one sample per call, predictions equal those of workers with their own model
bit for bit, whoever else asks. With more they are equal up to rounding: rounding depends on the
number of samples in a call (so every call here has the same number: those that wait, padded with
copies) and, for some sizes on a CPU, on a sample's place among them (seen with 3, not with 4). Over
a long episode such a difference can change the outcome; where results must not depend on the number
of workers, use one sample per call.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import numpy as np

from eval.policies.spec import PolicySpec
from robotics.embodiment.coding import Coder
from robotics.embodiment.normalize import Normalizer
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot
from selfflow_wm.processes import ONE_THREAD, end_with_parent, error_line, started_with

WAIT = 0.004
"""s; the longest that a request waits for others to join it."""
LOADING = 600.0
"""s; within which the model has to be ready."""
Arrays = dict[str, np.ndarray]
Request = dict[str, Any]
"""Robot, mode, steps, shift, instruction, noise (a generator's state), and arrays: the sample's."""


class _Manager(BaseManager):
    """Calls of one object in another process; both ends know the run's `authkey`."""


_Manager.register("batcher")


@dataclass(frozen=True)
class SharedRobot:
    """A robot in that model, see `robotics.model.acting.ActingRobot`."""

    robot: Robot
    coder: Coder
    normalizers: dict[str, Normalizer]
    horizon: int
    history_offsets: tuple[int, ...]
    image_sizes: dict[str, tuple[int, int]]
    modes: tuple[str, ...]

    @classmethod
    def of(cls, told: dict[str, Any]) -> SharedRobot:
        """From `described`."""
        robot = load_robot(told["table"])
        return cls(
            robot,
            Coder(robot, terminate=told["terminate"]),
            {key: Normalizer.from_dict(row) for key, row in told["normalizers"].items()},
            told["horizon"],
            told["history_offsets"],
            told["image_sizes"],
            told["modes"],
        )


def described(model: Any) -> dict[str, Any]:
    """A robot of a `WorldModel` as plain values."""
    return {
        "table": model.robot.to_dict(),
        "terminate": model.coder.terminate,
        "normalizers": {key: row.to_dict() for key, row in model.normalizers.items()},
        "horizon": model.horizon,
        "history_offsets": tuple(model.history_offsets),
        "image_sizes": {key: tuple(size) for key, size in model.image_sizes.items()},
        "modes": tuple(model.modes),
    }


class SharedWorld:
    """The model of an inference process, as far as a policy needs it; see `WorldModel`.

    Raises `ValueError` when nothing listens at `address`.
    """

    def __init__(self, address: str) -> None:
        manager: Any = _Manager(address)
        try:
            manager.connect()
        except OSError as error:
            raise ValueError(
                f"inference: expected the run's inference process, got none ({error.strerror}); "
                "rerun the same command, it continues"
            ) from None
        self._batcher = manager.batcher()
        told = self._ask("describe")
        self.robots = {name: SharedRobot.of(row) for name, row in told.items()}

    def generate(
        self,
        samples: dict[str, Any],
        mode_name: str,
        *,
        steps: int,
        shift: float,
        generator: Sequence[Any],
    ) -> Arrays:
        """{"action": (1, H, A')} for one sample; advances its `torch.Generator` as if used here."""
        import torch

        (one,) = generator
        arrays = {name: row[0] for name, row in samples.items() if isinstance(row, np.ndarray)}
        request = {
            "robot": samples["robot"], "mode": mode_name, "steps": steps, "shift": shift,
            "instruction": samples["instruction"][0], "noise": one.get_state().numpy(),
            "arrays": arrays,
        }  # fmt: skip
        found = self._ask("ask", request)
        one.set_state(torch.from_numpy(found["noise"]))
        return {"action": found["action"][None]}

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._batcher, method)(*arguments)
        except (EOFError, OSError):
            raise RuntimeError("the inference process is gone; did it run out of memory?") from None


class Batcher:
    """Answers requests, each made in a thread of its own, with calls of exactly `size` samples."""

    def __init__(self, world: Any, size: int) -> None:
        self._world, self._size = world, size
        self._changed = threading.Condition()
        self._clients: list[threading.Thread] = []
        """Each ends with its worker's connection."""
        self._waiting: list[tuple[Request, Future]] = []

    def describe(self) -> dict[str, Any]:
        """What `SharedWorld` mirrors; a worker's first call."""
        self._clients.append(threading.current_thread())
        return {name: described(model) for name, model in self._world.robots.items()}

    def ask(self, request: Request) -> Arrays:
        """The answer of `predict` to one request, once `serve_forever` has come to it."""
        answer: Future = Future()
        with self._changed:
            self._waiting.append((request, answer))
            self._changed.notify()
        return answer.result()

    def serve_forever(self) -> None:
        """Answer requests, a batch at a time, until the process is ended."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                self._changed.wait_for(self._enough, WAIT)
                wanted, waiting, chosen = batch_key(self._waiting[0][0]), self._waiting, []
                self._waiting = []
                for pair in waiting:
                    fits = len(chosen) < self._size and batch_key(pair[0]) == wanted
                    (chosen if fits else self._waiting).append(pair)
            self._settle(chosen)

    def _enough(self) -> bool:
        # A worker asks for one thing at a time: when all wait, nobody is left to wait for.
        self._clients = [client for client in self._clients if client.is_alive()]
        return len(self._waiting) >= min(self._size, len(self._clients))

    def _settle(self, chosen: Sequence[tuple[Request, Future]]) -> None:
        try:
            found = self.predict([request for request, _ in chosen])
        except Exception as error:
            if len(chosen) > 1:  # one of them is at fault, and it alone must get the error
                for pair in chosen:
                    self._settle([pair])
                return
            text = error_line(error)
            chosen[0][1].set_exception(
                ValueError(str(error)) if isinstance(error, ValueError) else RuntimeError(text)
            )
            return
        for (_, answer), arrays in zip(chosen, found, strict=True):
            answer.set_result(arrays)

    def predict(self, requests: Sequence[Request]) -> list[Arrays]:
        """`{"action", "noise"}` of each of at most `size` requests with one `batch_key`."""
        import torch

        filled = [requests[min(i, len(requests) - 1)] for i in range(self._size)]
        generators = [torch.Generator() for _ in filled]
        for generator, request in zip(generators, filled, strict=True):
            generator.set_state(torch.from_numpy(request["noise"].copy()))
        first = requests[0]
        samples: dict[str, Any] = {
            name: np.stack([request["arrays"][name] for request in filled])
            for name in first["arrays"]
        }
        samples["robot"] = first["robot"]
        samples["instruction"] = [request["instruction"] for request in filled]
        actions = self._world.generate(
            samples, first["mode"], steps=first["steps"], shift=first["shift"], generator=generators
        )["action"]
        return [
            {"action": actions[i], "noise": generators[i].get_state().numpy()}
            for i in range(len(requests))
        ]


def batch_key(request: Request) -> tuple:
    """What requests must share to be samples of one call."""
    shapes = tuple((name, row.shape) for name, row in sorted(request["arrays"].items()))
    return request["robot"], request["mode"], request["steps"], request["shift"], shapes


@contextlib.contextmanager
def shared(spec: PolicySpec, size: int) -> Iterator[PolicySpec]:
    """`spec` with the address of a process that holds its model, which ends with the block.

    size: samples per call.

    Raises:
        ValueError: no such checkpoint or device. RuntimeError: loading crashed.
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
        batcher = Batcher(
            WorldModel.load(spec.path, device=spec.options.get("device", "cpu")), size
        )
        _Manager.register("batcher", lambda: batcher)
        server = _Manager(address).get_server()
    except ValueError as error:
        ready.send(("value", str(error)))
        return
    except Exception as error:
        ready.send(("crash", f"the inference process could not start: {error_line(error)}"))
        return
    ready.send(("", ""))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    batcher.serve_forever()
