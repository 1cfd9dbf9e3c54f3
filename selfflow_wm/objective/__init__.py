"""Training objectives: flow matching, Self-Flow (arXiv 2603.06507) and the arms between them.

An arm is a schedule (which noise levels the networks see) and, optionally, a representation
loss (what the student's features are compared with):

| `objective=` | class | student's view | representation loss against |
|---|---|---|---|
| flow_matching | FlowMatching | one t | - |
| dual_timestep | DualTimestep | t or s per token | - |
| diffusion_forcing | DiffusionForcing | a separate t per token | - |
| self_flow | SelfFlow | t or s per token | EMA teacher at min(t, s) |
| self_flow_separated | SelfFlow(separated=True) | same, groups closed to each other | same |
| sra | SRA | one t | EMA teacher at max(0, t - U(0, 0.2)) |
| repa | REPA | one t | frozen encoder of the clean input |

All of them draw the same t, noise, condition noise and dropped captions from the same generator,
at every step; see `schedules.extra_draws`. An arm from another package is a class like them, named
in its entry point group `selfflow_wm.objectives`.
"""

from selfflow_wm.objective.base import DiffusionForcing, DualTimestep, FlowMatching, LossOutput
from selfflow_wm.objective.distillation import SRA, SelfFlow
from selfflow_wm.objective.repa import REPA
from selfflow_wm.objective.weighting import WeightedByModality

__all__ = [
    "REPA",
    "SRA",
    "DiffusionForcing",
    "DualTimestep",
    "FlowMatching",
    "LossOutput",
    "SelfFlow",
    "WeightedByModality",
]
