"""Plans of the scripted expert for the drawers' cabinet of SIMPLER.

The handles have no collision mesh in SIMPLER: a drawer is opened by taking its front panel at the
upper edge, one finger behind it, and drawing back; it is closed by pushing the panel with the
closed hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eval.envs.simpler.motions import CLOSE, KEEP, OPEN, Arm, Moves, tilted

OPEN_AT, CLOSED_AT = 0.15, 0.05
"""m; upstream's thresholds for an open and a closed drawer."""
_FACE = 0.0175
"""World x of the front panels' faces when the drawers are closed, m."""
_HOOK = np.array([-0.01, 0.0, 0.015])
"""Where the tool takes a closed drawer's panel: world x and y, and height over its centre, m."""
_LINE_UP = np.array([0.16, 0.0, 0.03])
"""From the hook to where the tool lines up in front of the drawer, m."""
_SLIPPED = 0.05
"""The tool is this much farther out than the panel it should be drawing, m."""
_TURN = tilted(45.0)


class Drawer:
    """The drawer that a SIMPLER environment's task is about."""

    def __init__(self, env: Any) -> None:
        self._env = env

    @property
    def travel(self) -> float:
        """How far it is open, m."""
        return float(self._env.art_obj.get_qpos()[self._env.joint_idx])

    @property
    def height(self) -> float:
        """World z of its panel's centre, m."""
        return float(self._env.drawer_obj.pose.p[2])

    @property
    def hook(self) -> np.ndarray:
        """Where the tool takes the panel now (3,)."""
        return _HOOK + [self.travel, 0.0, self.height]


def pull_open(arm: Arm, drawer: Drawer, enough: float) -> Moves:
    """Draw the drawer out until it is open by `enough` (m); a few tries."""
    for _ in range(4):
        hook = drawer.hook
        yield from arm.go(hook + _LINE_UP, _TURN, KEEP, near=0.03, aligned=0.15)
        yield from arm.go(hook, _TURN, KEEP, near=0.015, steps=20)
        yield from arm.hold(hook, _TURN, CLOSE, 3)
        for _ in range(40):
            if drawer.travel >= enough:
                return
            if arm.tool[0] - drawer.hook[0] > _SLIPPED:
                break
            out = np.array([hook[0] + enough + 0.15, *hook[1:]])
            yield arm.toward(out, _TURN, KEEP, 0.04, 0.1)[0]
        yield from arm.hold(arm.tool + [0.0, 0.0, 0.05], _TURN, OPEN, 2)


def push_closed(arm: Arm, drawer: Drawer) -> Moves:
    """Push the drawer shut: down in front of it first, so that the hand clears its edge."""
    for _ in range(3):
        ahead = np.array([_FACE + drawer.travel + 0.13, 0.0, drawer.height + 0.03])
        yield from arm.go(ahead + [0.02, 0.0, 0.12], _TURN, CLOSE, near=0.06, aligned=0.3)
        yield from arm.go(ahead, _TURN, CLOSE, near=0.04, aligned=0.15, steps=20)
        for _ in range(30):
            if drawer.travel <= 0.01:
                return
            inside = np.array([-0.05, *ahead[1:]])
            yield arm.toward(inside, _TURN, CLOSE, 0.06, 0.1)[0]
