"""What a backend is: a simulator by name. Which there are: `eval.envs.registry`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backend:
    """A simulator and what its numbers may be compared with."""

    name: str
    """`mujoco`, `simpler?...` or `module:factory`; what `make_env` takes."""
    simulator: str
    """What tables and records call it."""
    note: str
    """A caveat that stands beside every number; empty when there is none."""
    packages: tuple[str, ...]
    """Distributions whose versions a record of a run should hold."""
    protocol: str | None = None
    """Which of SIMPLER's grids; None for simulators that draw starts from seeds."""

    @property
    def label(self) -> str:
        """Simulator and caveat in one line."""
        return f"{self.simulator} — {self.note}" if self.note else self.simulator
