"""Stage right: does the GPU compute what the CPU does, and every way of running the same?"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.cases import Case, Measured, Setup, paper, sit
from benchmarks.gpu.record import Bench
from benchmarks.gpu.suite import run_marked
from selfflow_wm.flow.sampler import sample
from selfflow_wm.sampling.captured import CapturedSampler

BATCH = 4
STEPS = 4


def run(bench: Bench) -> None:
    """See the module."""
    # In full float32, or the comparison would be one of TF32 with float32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    video, image = paper("625m", "video", tiny=True), paper("625m", "image", tiny=True)
    cells: list[tuple[str, Callable[[], Any]]] = [
        ("CPU against GPU, Backbone", lambda: _against_cpu(bench, video)),
        ("CPU against GPU, SiT", lambda: _against_cpu(bench, sit(tiny=True))),
        ("sampling", lambda: _sampling(bench, image)),
        ("bfloat16 against float32", lambda: _precision(bench, image)),
        ("straight against resumed", lambda: _resumed(bench, video)),
        ("compiled against eager", lambda: _compiled(bench, sit(True) if bench.tiny else video)),
        ("captured against eager sampling", lambda: _captured(bench, image)),
        ("tests marked gpu", lambda: run_marked(bench)),
        # Last: where processes cannot find each other, it waits.
        ("DDP and FSDP2 of one process", lambda: _parallel(bench, video)),
    ]
    bench.plan([name for name, _ in cells])
    if bench.device == "cpu":
        bench.note("without a GPU both sides of every comparison are the CPU: a rehearsal only")
    for name, work in cells:
        bench.cell(name, work)


def _setup(bench: Bench, **changes: Any) -> Setup:
    usual: dict[str, Any] = dict(
        device=bench.device, batch=BATCH, precision="float32", tiny=bench.tiny,
        out=bench.path.parent / "right",
    )  # fmt: skip
    return Setup(**usual | changes)


def relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Norm of the difference of two sets of tensors over the norm of the second, in float64."""
    pairs = [(found[name].cpu().double(), value.cpu().double()) for name, value in expected.items()]
    off = sum(float((a - b).square().sum()) for a, b in pairs)
    return (off / max(1e-300, sum(float(b.square().sum()) for _, b in pairs))) ** 0.5


def _weights(measured: Measured) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in measured.trainer.model.named_parameters()}


# ---------------------------------------------------------------- one device against the other


def _against_cpu(bench: Bench, case: Case) -> None:
    """Loss, gradients and one optimiser step of the same weights, batch and noise."""
    there = Measured(case, _setup(bench, device="cpu"))
    here = Measured(case, _setup(bench), start=there.trainer.model.state_dict())
    here.trainer.extra.load_state_dict(there.trainer.extra.state_dict())
    here.trainer.ema.model.load_state_dict(there.trainer.ema.model.state_dict())
    (ours, mine), (theirs, expected) = (_gradients(measured) for measured in (here, there))
    bench.check(f"{case.name}: loss", abs(ours / theirs - 1), 1e-5, "relative")
    bench.check(f"{case.name}: gradients", relative(mine, expected), 1e-4, "relative")
    # From the same gradients: AdamW's first step is their sign, and rounding turns that of those
    # that are zero but for it.
    moves = [_move(measured, expected) for measured in (here, there)]
    bench.check(f"{case.name}: optimiser step", relative(moves[0], moves[1]), 1e-4, "relative")


def _gradients(measured: Measured) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients on the noise of one seed."""
    trainer = measured.trainer
    trainer.generator = torch.Generator().manual_seed(7)  # the CPU's, for both
    loss = trainer._loss(trainer.model, next(trainer.batches)).total
    loss.backward()
    found = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
    return float(loss.detach()), found


def _move(measured: Measured, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """What an optimiser step does to the weights, given the gradients."""
    trainer, before = measured.trainer, _weights(measured)
    for name, parameter in trainer.model.named_parameters():
        given = gradients.get(name)
        parameter.grad = None if given is None else given.to(parameter.device).clone()
    trainer.parallel.clip(trainer.trainable, trainer.optim.clip_norm)
    trainer.optimizer.step()
    after = _weights(measured)
    return {name: after[name] - before[name] for name in gradients}


def _sampling(bench: Bench, case: Case) -> None:
    there = Measured(case, _setup(bench, device="cpu"))
    here = Measured(case, _setup(bench), start=there.trainer.model.state_dict())
    clean = [_draw(measured, case) for measured in (here, there)]
    bench.check("sampling, 4 Euler steps", relative(clean[0], clean[1]), 1e-4, "relative")


def _draw(measured: Measured, case: Case) -> dict[str, Tensor]:
    batch = next(measured.trainer.batches)
    return sample(
        measured.trainer.model, case.layout, {}, case.mode.generated, batch.text_ids,
        batch.text_mask, steps=STEPS, generator=torch.Generator().manual_seed(3),
    )  # fmt: skip


# ---------------------------------------------------------------- ways of running the same


def _precision(bench: Bench, case: Case) -> None:
    """The mean loss of the last ten of 50 steps."""
    steps = 6 if bench.tiny else 50
    curves = {}
    for precision in ("float32", "bfloat16"):
        measured = Measured(case, _setup(bench, precision=precision))
        losses = []
        for _ in range(steps):
            measured.step()
            losses.append(measured.loss())
        curves[precision] = losses
    ends = {name: sum(losses[-10:]) / len(losses[-10:]) for name, losses in curves.items()}
    off = abs(ends["bfloat16"] / ends["float32"] - 1)
    fell = curves["float32"][-1] < curves["float32"][0]
    note = f"{curves['float32'][0]:.4f} to {ends['float32']:.4f}" + (
        "" if fell else ", NOT falling"
    )
    bench.check(f"bfloat16 against float32 loss after {steps} steps", off, 0.02, note)


def _trained(bench: Bench, case: Case, steps: int, prepare: Any = None, **options: Any) -> Measured:
    measured = Measured(case, _setup(bench), **options)
    if prepare is not None:
        prepare(measured)
    for _ in range(steps):
        measured.step()
    return measured


def _compiled(bench: Bench, case: Case) -> None:
    start = Measured(case, _setup(bench)).trainer.model.state_dict()
    eager = _trained(bench, case, 3, start=start)
    compiled = _trained(bench, case, 3, Measured.compile, start=start)
    off = abs(compiled.loss() / eager.loss() - 1)
    bench.check("compiled against eager, loss after 3 steps", off, 1e-4, "relative")


@contextmanager
def deterministic() -> Iterator[None]:
    """Kernels that give the same bits every time; attention's fused ones, backwards, do not."""
    kinds = ("flash", "mem_efficient", "cudnn")
    before = {kind: getattr(torch.backends.cuda, f"{kind}_sdp_enabled")() for kind in kinds}
    torch.use_deterministic_algorithms(True, warn_only=True)
    for kind in kinds:
        getattr(torch.backends.cuda, f"enable_{kind}_sdp")(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        for kind, value in before.items():
            getattr(torch.backends.cuda, f"enable_{kind}_sdp")(value)


def _resumed(bench: Bench, case: Case) -> None:
    """Six steps in one go, and three, saved and resumed, with deterministic kernels."""
    folder = bench.path.parent / "right"
    shutil.rmtree(folder, ignore_errors=True)
    with deterministic():
        straight = _trained(bench, case, 6)
        again = _trained(bench, case, 6)
        half = _trained(bench, case, 3)
        half.trainer.save()
        resumed = Measured(case, _setup(bench, seed=1))
        if not resumed.trainer.resume():
            raise ValueError(f"expected a saved state in {folder}, found none")
        for _ in range(3):
            resumed.step()
    shutil.rmtree(folder, ignore_errors=True)
    noise = relative(_weights(again), _weights(straight))
    off = relative(_weights(resumed), _weights(straight))
    bench.row("resuming", what="the same six steps once more", difference=noise)
    note = "bit for bit" if not noise else f"steps repeat to {noise:.1e} only: a kernel is not"
    bench.check("straight against resumed, weights", off, 2 * noise, note)


def _parallel(bench: Bench, case: Case) -> None:
    """Three steps alone, then as DDP's and as FSDP2's only process."""
    from selfflow_wm.training import ranks
    from selfflow_wm.training.parallel import make_parallel

    ranks.TIMEOUT = timedelta(seconds=max(5.0, min(30.0, bench.left() / 2)))
    with socket.socket() as free_port:
        free_port.bind(("127.0.0.1", 0))
        port = str(free_port.getsockname()[1])
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    try:
        with deterministic():
            weights = _weights(_trained(bench, case, 3))
            os.environ |= alone | where
            for mode in ("ddp", "fsdp2"):
                parallel = make_parallel(ranks.join(mode, bench.device))
                model = _trained(bench, case, 3, parallel=parallel).trainer.model
                found = parallel.gather(dict(model.named_parameters()))
                off = relative({name: value.detach() for name, value in found.items()}, weights)
                bench.check(f"{mode} of one process against none, weights", off, 1e-6, "relative")
    finally:
        ranks.leave()
        for name in (*alone, *where):
            os.environ.pop(name, None)


def _captured(bench: Bench, case: Case) -> None:
    """Sampling from a recorded graph, the second time from one that was kept, against plainly."""
    measured = Measured(case, _setup(bench))
    batch = next(measured.trainer.batches)
    # Without a GPU nothing can be recorded: what would be is called.
    options: dict[str, Any] = (
        {} if bench.device == "cuda" else {"record": lambda work, inputs: work}
    )
    captured = CapturedSampler(**options)
    for number, what in enumerate(("recorded", "kept")):
        found, expected = (
            draw(
                measured.trainer.model, case.layout, {}, case.mode.generated, batch.text_ids,
                batch.text_mask, steps=STEPS, generator=torch.Generator().manual_seed(number),
            )
            for draw in (captured, sample)
        )  # fmt: skip
        off = relative(found, expected)
        bench.check(f"sampling from a {what} graph against plainly", off, 1e-5, "relative")
    bench.note("no other caches: captions and conditions are encoded anew for every sample")
