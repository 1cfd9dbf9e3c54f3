"""The processes that train together: their ranks, and how they communicate.

`torchrun` starts them and sets their ranks in the environment. Tensors of the training step go
through torch.distributed; decisions, results and errors of the first process go through its
key-value store as JSON, because they may take hours (a cache that has to be built) and because
nothing here is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from selfflow_wm.cli import compute_device
from selfflow_wm.layout import Rows

T = TypeVar("T")

WORDS = ("auto", "none", "ddp", "fsdp2")
"""What `trainer.parallel` may be."""

TIMEOUT = timedelta(minutes=30)
"""A collective that takes longer ends the run: another process is gone."""

PATIENCE = timedelta(days=7)
"""For what the first process does alone. When it dies, its error or torchrun ends the wait."""


class FirstRankFailed(RuntimeError):
    """The first process raised an error while the others waited for it."""


class Ranks:
    """One process among `size` that train one model on one batch between them.

    rank: of this process; rank 0, the main one, writes, logs and prints. device: where it trains.
    mode: none, ddp or fsdp2. store: the key-value store they share (None for one process).
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        *,
        device: torch.device | str = "cpu",
        mode: str = "none",
        store: Any = None,
    ) -> None:
        self.rank, self.size, self.mode, self.store = rank, size, mode, store
        self.device = torch.device(device)
        self._turn = 0

    @property
    def main(self) -> bool:
        return self.rank == 0

    # ---------------------------------------------------------------- tensors

    @property
    def rows(self) -> Rows:
        """Which samples of every batch are this process's."""
        return Rows(self.rank, self.size, self.total)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes."""
        if self.size == 1:
            return tensor
        tensor = tensor.detach().clone()
        dist.all_reduce(tensor)
        return tensor

    def mean(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean of every scalar over all processes, float64; all have the same names."""
        if self.size == 1 or not terms:
            return terms
        values = [value.detach().to(self.device, torch.float64) for value in terms.values()]
        return dict(zip(terms, (self.total(torch.stack(values)) / self.size).unbind(), strict=True))

    def any(self, *flags: bool) -> list[bool]:
        """Each flag: whether it is set in any process."""
        if self.size == 1:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.int32)  # on the CPU: no wait for the GPU
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def agree(self, tensors: list[Tensor]) -> None:
        """Overwrite `tensors` with the main process's."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    # ---------------------------------------------------------------- turns

    def on_main(self, work: Callable[[], T]) -> T:
        """The JSON-able result of `work()` in the main process; the others wait for it.

        Its ValueError is raised in all of them, any other error as FirstRankFailed.
        """
        if self.size == 1:
            return work()
        key = f"on_main/{self._turn}"
        self._turn += 1
        if self.main:
            try:
                value = work()
            except BaseException as error:
                failure = {"error": str(error), "misuse": isinstance(error, ValueError)}
                self.store.set(key, json.dumps(failure))
                raise
            self.store.set(key, json.dumps({"value": value}))
            return value
        self.store.wait([key], PATIENCE)
        answer = json.loads(self.store.get(key))
        if "error" in answer:
            raise (ValueError if answer["misuse"] else FirstRankFailed)(answer["error"])
        return answer["value"]

    def main_first(self, work: Callable[[], T]) -> T:
        """Run `work()` in the main process first (it may build caches), then in the others."""
        found: list[T] = []
        self.on_main(lambda: found.append(work()))
        return found[0] if self.main else work()


_joined: Ranks | None = None


def join(word: str = "auto", device: str = "auto") -> Ranks:
    """The processes that `torchrun` started, or the one there is without it.

    word: `trainer.parallel`; auto is ddp where there are several processes. device: auto, cpu, or
    cuda, which of several processes each takes one GPU of.

    Raises:
        ValueError: an unknown word; several processes for `none`; `ddp` or `fsdp2` without
            torchrun; fewer GPUs than processes on this machine; one GPU named for several.
    """
    global _joined
    if word not in WORDS:
        raise ValueError(f"trainer.parallel: expected one of {', '.join(WORDS)}, got {word!r}")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    launched = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    if size > 1 and not launched:
        raise ValueError(
            f"expected torchrun's RANK, MASTER_ADDR and MASTER_PORT, got WORLD_SIZE={size} without "
            "them; start with torchrun --nproc-per-node N -m ..., or unset WORLD_SIZE"
        )
    if word == "none" and size > 1:
        raise ValueError(
            f"trainer.parallel=none: expected one process, got WORLD_SIZE={size}, each of "
            "which would train a separate model; set trainer.parallel=ddp or fsdp2"
        )
    if word in ("ddp", "fsdp2") and not launched:
        raise ValueError(
            f"trainer.parallel={word}: expected processes started by torchrun, got a plain one; "
            "start with torchrun --nproc-per-node N -m ..., or set trainer.parallel=none"
        )
    mode = ("ddp" if size > 1 else "none") if word == "auto" else word
    if mode == "none":
        return Ranks(device=compute_device(device))
    place = local_device(device)
    if _joined is None:
        _joined = _start(place)
    _joined.device, _joined.mode = place, mode
    return _joined


def local_device(name: str) -> torch.device:
    """This process's own device out of those that `name` stands for; ValueError if there are too
    few."""
    device = compute_device(name)
    if device.type != "cuda":
        return device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    if device.index is not None and processes > 1:
        raise ValueError(
            f"device={name}: expected one GPU for each of {processes} processes, got one for all; "
            "set device=cuda, and CUDA_VISIBLE_DEVICES to choose"
        )
    count = torch.cuda.device_count()
    if count < processes:
        raise ValueError(
            f"expected a GPU for each of the {processes} processes on this machine, got {count}; "
            f"start with torchrun --nproc-per-node {count or 1}, or set device=cpu"
        )
    return torch.device("cuda", local if device.index is None else device.index)


def _start(device: torch.device) -> Ranks:
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
    # The collectives keep their own keys in it, under this prefix.
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("collectives", store),
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    return Ranks(rank, size, store=dist.PrefixStore("ranks", store))


def leave() -> None:
    """End the processes' connection, at the end of a run that went well."""
    global _joined
    if _joined is not None:
        _joined = None
        dist.destroy_process_group()


def is_main() -> bool:
    """Whether this process prints and writes. Before `join`, one does on each machine."""
    if _joined is not None:
        return _joined.main
    return os.environ.get("LOCAL_RANK", "0") == "0"


def is_reporter(text: str) -> bool:
    """True in exactly one of the processes that are about to print the same `text`."""
    if _joined is None or _joined.store is None:
        return is_main()
    try:
        return _joined.store.add(f"said/{sha256(text.encode()).hexdigest()}", 1) == 1
    except RuntimeError:  # the store is gone: better twice than never
        return True
