"""Policy clients of other packages: what they must be, and errors that name them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from robotics.embodiment.control import Action, Observation

METHODS = ("reset", "instruct", "act")
"""Of `robotics.embodiment.control.Policy`, which a client's class must have."""


def check_client(client: Any) -> str | None:
    """What is wrong with the object behind a client's entry point, in words; None: nothing."""
    if not callable(client):
        return f"expected a class or function that makes a policy, got {client!r}"
    lacking = [name for name in METHODS if not hasattr(client, name)]
    if inspect.isclass(client) and lacking:
        return f"expected a class with {', '.join(METHODS)}, got one without {', '.join(lacking)}"
    return None


@contextmanager
def named_errors(scheme: str, origin: str, doing: str) -> Iterator[None]:
    """Any exception becomes a `ValueError` that names the client, its package and the error."""
    try:
        yield
    except Exception as error:  # whatever another package raises
        text = " ".join(str(error).split())
        raise ValueError(
            f"policy: expected the client of {scheme}:// ({origin}) {doing}, got "
            f"{type(error).__name__}{f': {text}' * bool(text)}; correct the address, or repair "
            "that package"
        ) from error


class ForeignPolicy:
    """A client of another package as a `Policy` whose errors name the package.

    Args:
        client: the policy that the package made.
        scheme: of its address.
        origin: name and version of the package.
    """

    def __init__(self, client: Any, scheme: str, origin: str) -> None:
        self._client, self._name = client, (scheme, origin)

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start an episode."""
        with named_errors(*self._name, "to reset"):
            self._client.reset(instruction, seed=seed)

    def instruct(self, instruction: str) -> None:
        """Take a new instruction."""
        with named_errors(*self._name, "to take an instruction"):
            self._client.instruct(instruction)

    @property
    def needs_observation(self) -> bool:
        """Whether the next `act` reads its observation."""
        with named_errors(*self._name, "to say whether it needs an observation"):
            return self._client.needs_observation

    def act(self, observation: Observation | None) -> Action:
        """The next action."""
        with named_errors(*self._name, "to act"):
            action = self._client.act(observation)
            if not (hasattr(action, "control") and hasattr(action, "terminate")):
                raise TypeError(f"act returned {type(action).__name__}, not an Action")
        return action

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)
