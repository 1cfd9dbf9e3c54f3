"""One closed-loop episode: a policy in an environment, seen by any number of watchers.

The only loop over environment steps in the project: evaluation, video and demonstration
collection are watchers of it. Its order is SIMPLER's (`maniskill2_evaluator.py`): the policy
acts; a terminate on a sub-task that is not the last advances the environment, a terminate on the
last one ends the episode; in both cases the action that came with it is still executed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from eval.envs.tasks import Task
from robotics.embodiment.control import Action, Observation, Policy


class Watcher(Protocol):
    """Sees every step of an episode; `needs_image` makes the rollout render each one."""

    needs_image: bool

    def step(
        self, observation: Observation, action: Action, instruction: str, info: dict[str, Any]
    ) -> None:
        """`observation` and `instruction` before the step, `info` after it."""
        ...

    def end(self, observation: Observation, info: dict[str, Any]) -> None:
        """What the last step left behind."""
        ...


@dataclass
class EpisodeResult:
    """The outcome of one episode."""

    task: str
    seed: int
    success: bool
    """Success at the last step (the number SIMPLER reports)."""
    success_any: bool
    """Success at any step."""
    steps: int
    terminated: bool
    """The policy ended the episode; False: it reached the horizon."""
    stages: dict[str, bool]
    instructions: list[tuple[int, str]]
    """Step at which each instruction was first given."""
    latency_ms: list[float] = field(default_factory=list)
    """Wall time of each `act` that read an observation (a model call), without open-loop steps."""

    def to_record(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def run_episode(
    env: Any,
    policy: Policy,
    task: Task,
    seed: int,
    watchers: Sequence[Watcher] = (),
    beat: Callable[[], None] = lambda: None,
) -> EpisodeResult:
    """Run `policy` from `env.reset(seed=seed)` to truncation or its last terminate.

    The policy is reset with the same `seed`, so an episode depends on (task, seed, policy) alone,
    not on its worker or on earlier episodes. `beat` is called after each step.
    """
    state, info = env.reset(seed=seed)
    scene = env.unwrapped
    policy.reset(info["instruction"], seed=seed)
    watched = any(watcher.needs_image for watcher in watchers)
    result = EpisodeResult(
        task=task.name,
        seed=seed,
        success=False,
        success_any=False,
        steps=0,
        terminated=False,
        stages=dict.fromkeys(task.stages, False),
        instructions=[(0, info["instruction"])],
    )
    truncated = False
    while not (truncated or result.terminated):
        looks = policy.needs_observation
        observation = observe(env, state, image=watched or looks)
        started = time.perf_counter()
        action = policy.act(observation if looks else None)
        if looks:
            result.latency_ms.append(round(1e3 * (time.perf_counter() - started), 3))
        before = (info["subtask"], scene.instruction)
        if action.terminate:
            if scene.is_final_subtask:
                result.terminated = True
            else:
                scene.advance_to_next_subtask()
        state, _, _, truncated, info = env.step(np.asarray(action.control, dtype=np.float32))
        result.steps += 1
        for watcher in watchers:
            watcher.step(observation, action, before[1], info)
        beat()
        result.success = bool(info["success"])
        result.success_any |= result.success
        for stage, reached in info["stages"].items():
            result.stages[stage] = result.stages.get(stage, False) or bool(reached)
        if (info["subtask"], scene.instruction) != before:
            policy.instruct(scene.instruction)
            result.instructions.append((result.steps, scene.instruction))
    if watchers:
        last = observe(env, state, image=watched)
        for watcher in watchers:
            watcher.end(last, info)
    beat()
    return result


def observe(env: Any, state: dict[str, np.ndarray], *, image: bool) -> Observation:
    """What an environment showed besides pictures, with those rendered now if requested.

    An environment of several cameras has `camera_images()`: key of the observation -> picture; its
    first one is "image" for those who watch.
    """
    observation: Any = dict(state)
    if image:
        scene = env.unwrapped
        if hasattr(scene, "camera_images"):
            pictures = scene.camera_images()
            observation |= {"image": next(iter(pictures.values())), **pictures}
        else:
            observation["image"] = scene.camera_image()
    return observation
