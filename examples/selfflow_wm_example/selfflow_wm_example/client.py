"""A policy behind an address; in this example the address contains the whole policy."""

from __future__ import annotations

import numpy as np

from robotics.embodiment.control import Action, Observation


class ConstantClient:
    """`constant://X,Y,Z`: moves by the same displacement (m) at every step.

    A client of a real server connects here and asks it in `act`; see
    `eval.policies.remote.policy.RemotePolicy`.
    """

    needs_observation = False

    def __init__(self, address: str, *, embodiment: str) -> None:
        words = address.partition("://")[2].split(",")
        try:
            move = [float(word) for word in words]
        except ValueError:
            move = []
        if len(move) != 3:
            raise ValueError(
                f"policy: expected constant://X,Y,Z with three numbers (m), got {address}; "
                "write e.g. constant://0.01,0,0"
            )
        self._action = Action(np.array([*move, 0, 0, 0, 0], np.float32))

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start an episode."""

    def instruct(self, instruction: str) -> None:
        """Take a new instruction."""

    def act(self, observation: Observation | None) -> Action:
        """The same action."""
        return self._action
