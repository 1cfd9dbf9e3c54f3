"""How student, teacher, gradients and optimiser state are laid out over the training processes.

| `trainer.parallel` | class | in every process |
|---|---|---|
| none | SingleProcess | all there is, one process |
| ddp | Replicated | all of the weights and states; gradients are averaged |
| fsdp2 | FullySharded | a share of weights, gradients and states; a block is whole while it runs |

The Trainer asks one of them for the few things that differ. Processes hold every `size`-th sample
of one batch (`layout.Rows`), so all three give the same training, to rounding. They also write
the same state to disk: whole tensors, from the main process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from selfflow_wm.training.ranks import Ranks

T = TypeVar("T")


def local(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that is here; any other tensor as it is."""
    return cast(Any, tensor).to_local() if hasattr(tensor, "to_local") else tensor


class SingleProcess:
    """One process; the interface of the other layouts."""

    def __init__(self, ranks: Ranks | None = None) -> None:
        self.ranks = ranks or Ranks()

    def wrap(self, model: nn.Module, extra: nn.Module, ema: nn.Module, bfloat16: bool) -> None:
        """Take over the student, the objective's own modules and the teacher, compiled if they
        are to be, before the optimiser is made. bfloat16: whether autocast is on."""
        self.model = model

    def train(self, work: Callable[[Any], T]) -> T:
        """`work(student)`, whose gradients the backward pass makes those of the whole batch."""
        return work(self.model)

    def measure(self, student: nn.Module, work: Callable[[Any], T]) -> T:
        """`work(student)` beside the training; gradients, if any, are of this process's rows."""
        return work(student)

    def step(self, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of a batch. last: of its optimiser step, so that gradients
        have to be exchanged."""
        return nullcontext()

    def clip(self, parameters: list[nn.Parameter], limit: float) -> Tensor:
        """Scale the gradients to a global norm of at most `limit`; the norm before."""
        return nn.utils.clip_grad_norm_(parameters, limit)

    def gradient_norm(self, loss: Tensor, weights: list[nn.Parameter]) -> Tensor:
        """Of the gradient of a `loss` of `measure`, over the whole batch; nothing is kept."""
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        return self._norm_of([g for g in found if g is not None])

    def _norm_of(self, gradients: list[Tensor]) -> Tensor:
        return norm(gradients)

    def norms(self, *lists: list[Tensor]) -> list[Tensor]:
        """The norm of all numbers in each list of tensors like the weights, `local` parts of them
        where they are sharded."""
        return [norm(tensors) for tensors in lists]

    def gather(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The whole tensors, in the main process; nothing in the others."""
        return tensors if self.ranks.main else {}

    def place(self, value: Tensor, like: Tensor) -> Tensor:
        """A whole tensor, laid out as `like`."""
        return value

    def whole(self, module: nn.Module) -> nn.Module | None:
        """The teacher with all its weights, in the main process; None in the others."""
        return module if self.ranks.main else None


class Replicated(SingleProcess):
    """DistributedDataParallel over student and projector; the teacher needs no communication,
    because equal students make equal averages."""

    def wrap(self, model: nn.Module, extra: nn.Module, ema: nn.Module, bfloat16: bool) -> None:
        super().wrap(model, extra, ema, bfloat16)
        self.ranks.agree([*model.state_dict().values(), *extra.state_dict().values()])
        self.ranks.agree(list(ema.state_dict().values()))
        self.root = nn.parallel.DistributedDataParallel(
            StudentWithProjector(model, extra),
            # A batch uses the projections of its own modalities only.
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )

    def train(self, work: Callable[[Any], T]) -> T:
        return self.root(work)

    def step(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self.root.no_sync()

    def _norm_of(self, gradients: list[Tensor]) -> Tensor:
        if not gradients:
            return norm(gradients)
        flat = torch.cat([g.flatten().float() for g in gradients])
        return self.ranks.total(flat).norm() / self.ranks.size


class FullySharded(SingleProcess):
    """`fully_shard` (FSDP2) on every block of student and teacher, then on what is left of each.

    The teacher is sharded as the student is, so it is averaged shard by shard. The student's root
    is a module around student and projector (`StudentWithProjector`), the teacher is a root of its
    own. Under autocast the blocks' weights are gathered in bfloat16, which is what products use
    anyway; gradients are reduced in float32.
    """

    def wrap(self, model: nn.Module, extra: nn.Module, ema: nn.Module, bfloat16: bool) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        super().wrap(model, extra, ema, bfloat16)
        for module in (model, extra, ema):
            self.ranks.agree(list(module.state_dict().values()))
        self.skeleton = _without_weights(ema)
        device = self.ranks.device.type
        mesh = init_device_mesh(device, (self.ranks.size,))
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bfloat16 else None,
            reduce_dtype=torch.float32 if bfloat16 else None,
            cast_forward_inputs=False,  # autocast does, where it should
        )
        for network in (model, ema):
            for block in cast(Any, network).all_blocks():
                fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        self.root = StudentWithProjector(model, extra)
        for root in (self.root, ema):
            # Resharded even after a pass without gradient: the average and the optimiser work on
            # the shards, which a pass would otherwise leave replaced by whole weights.
            fully_shard(root, mesh=mesh, reshard_after_forward=True)
            if device == "cpu":  # gloo has no mean
                for module in root.modules():
                    if isinstance(module, FSDPModule):
                        module.set_force_sum_reduction_for_comms(True)

    def train(self, work: Callable[[Any], T]) -> T:
        return self.root(work)

    def measure(self, student: nn.Module, work: Callable[[Any], T]) -> T:
        return self.root(work)  # only the root gathers what lies outside the blocks

    def step(self, last: bool) -> AbstractContextManager[Any]:
        cast(Any, self.root).set_requires_gradient_sync(last)
        return nullcontext()

    @torch.no_grad()
    def clip(self, parameters: list[nn.Parameter], limit: float) -> Tensor:
        gradients = [local(p.grad) for p in parameters if p.grad is not None]
        (size,) = self.norms(gradients)
        torch._foreach_mul_(gradients, (limit / (size + 1e-6)).clamp(max=1.0))
        return size

    def gradient_norm(self, loss: Tensor, weights: list[nn.Parameter]) -> Tensor:
        # Gradients reach the shards through backward() alone; those of the last step are spent.
        for parameter in self.root.parameters():
            parameter.grad = None
        loss.backward()
        (size,) = self.norms([local(p.grad) for p in weights if p.grad is not None])
        for parameter in self.root.parameters():
            parameter.grad = None
        return size

    def norms(self, *lists: list[Tensor]) -> list[Tensor]:
        squares = torch.stack([norm(tensors).to(self.ranks.device).square() for tensors in lists])
        return list(self.ranks.total(squares).sqrt().unbind())

    def gather(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for name, value in tensors.items():  # one at a time: no GPU holds more than one whole
            value = cast(Any, value).full_tensor() if hasattr(value, "full_tensor") else value
            if self.ranks.main:
                found[name] = value.detach().cpu()
        return found

    def place(self, value: Tensor, like: Tensor) -> Tensor:
        if not hasattr(like, "to_local"):
            return value
        from torch.distributed.tensor import distribute_tensor

        layout = cast(Any, like)
        # Every process has read the file, so nobody sends anything.
        return distribute_tensor(
            value.to(like.device, like.dtype),
            layout.device_mesh,
            layout.placements,
            src_data_rank=None,
        )

    def whole(self, module: nn.Module) -> nn.Module | None:
        weights = self.gather(module.state_dict())
        if not self.ranks.main:
            return None
        result = copy.deepcopy(self.skeleton).to_empty(device=self.ranks.device)
        result.load_state_dict(weights)
        return result.eval().requires_grad_(False)


class StudentWithProjector(nn.Module):
    """Student and projector as one module, so that one root sees every gradient of a step."""

    def __init__(self, student: nn.Module, extra: nn.Module) -> None:
        super().__init__()
        self.student, self.extra = student, extra

    def forward(self, work: Callable[[Any], Any]) -> Any:
        return work(self.student)


def _without_weights(module: nn.Module) -> nn.Module:
    """A copy on the meta device, made without copying the weights first."""
    known: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in module.parameters()
    }
    known |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return copy.deepcopy(module, known)


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """The L2 norm of all numbers in `tensors` together."""
    norms = [tensor.detach().float().norm() for tensor in tensors]
    return torch.stack(norms).norm() if norms else torch.zeros(())


MODES: dict[str, type[SingleProcess]] = {
    "none": SingleProcess,
    "ddp": Replicated,
    "fsdp2": FullySharded,
}


def make_parallel(ranks: Ranks) -> SingleProcess:
    """The layout that `ranks.mode` names."""
    if ranks.mode != "none" and not dist.is_initialized():
        raise ValueError(f"expected joined processes for {ranks.mode}, got none; see ranks.join")
    return MODES[ranks.mode](ranks)
