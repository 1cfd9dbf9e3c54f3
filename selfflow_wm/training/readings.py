"""The scalars of training steps, read from the device as rarely as possible.

Reading a number from a GPU makes the host wait until the GPU has done all that was asked of it, and
then the GPU wait for the host. So the loss is not looked at in every step: it stays on the
device, where a flag keeps the weights as they are from the first loss or gradient on that is not
finite. The host learns of it when it reads the numbers of many steps at once: before it reports,
validates or saves. On a CPU nothing is gained by waiting and every step is read at once.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from selfflow_wm.training import checkpoint

WATCHED = {"loss": "loss", "grad_norm": "gradient norm"}
"""The readings that have to be finite, and what they are called."""


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient became NaN or infinite; no weight moved and nothing was saved after
    that."""


class Readings:
    """The scalars of the steps since the last report, and whether all went well.

    device: of the scalars. late: leave them there until `read`; default on everything but a CPU.
    states: where the training states lie, to name the last good one in an error.

    broken: 1 on the device from the first watched scalar on that was not finite, else 0; for the
    optimiser, which then leaves the weights alone. None where nothing is late.
    """

    def __init__(self, device: torch.device, states: Path, late: bool | None = None) -> None:
        self.late = device.type != "cpu" if late is None else late
        self.broken = torch.zeros((), device=device) if self.late else None
        self.states = states
        self._unread: list[tuple[int, tuple[str, ...], Tensor]] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._failure: NonFiniteLoss | None = None

    @torch.no_grad()
    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        """Take the scalars of `step`, with one of `WATCHED` among them; NonFiniteLoss at once if
        nothing is late."""
        values = torch.stack([value.detach() for value in terms.values()]).double()
        self._unread.append((step, tuple(terms), values))
        if self.broken is None:
            self.read()
            return
        for name in WATCHED.keys() & terms.keys():
            finite = terms[name].detach().isfinite()
            self.broken.copy_(torch.where(finite, self.broken, torch.ones_like(self.broken)))

    def read(self) -> None:
        """Wait for the device, and add up what it has; NonFiniteLoss if anything went wrong."""
        unread, self._unread = self._unread, []
        numbers: list[float] = (
            torch.cat([values for *_, values in unread]).tolist() if unread else []
        )
        rest = iter(numbers)
        for step, names, _ in unread:
            row: dict[str, float] = {name: next(rest) for name in names}
            self._failure = self._failure or self._check(step, row)
            if self._failure is not None:
                break
            for name, value in row.items():
                if math.isfinite(value):  # a noise bin that no token fell into is NaN
                    self._sums[name] = self._sums.get(name, 0.0) + value
                    self._counts[name] = self._counts.get(name, 0) + 1
        if self._failure is not None:
            raise self._failure

    def means(self) -> dict[str, float]:
        """The mean of every scalar since the last call."""
        self.read()
        means = {name: value / self._counts[name] for name, value in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means

    def _check(self, step: int, row: dict[str, float]) -> NonFiniteLoss | None:
        wrong = [name for name in WATCHED if not math.isfinite(row.get(name, 0.0))]
        if not wrong:
            return None
        parts = [
            name
            for name, value in row.items()
            if not name.startswith("bin/") and name not in WATCHED and not math.isfinite(value)
        ]
        kept = checkpoint.latest_step(self.states)
        return NonFiniteLoss(
            f"step {step}: the {WATCHED[wrong[0]]} is {row[wrong[0]]}"
            + (f" (from {', '.join(parts)})" if parts else "")
            + f". Nothing was updated; the last good state is {kept or 'none yet'}. "
            "Lower optim.lr, lengthen optim.warmup, or look for broken values in the data."
        )
