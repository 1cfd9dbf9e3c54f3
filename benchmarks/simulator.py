"""Control steps per second of the embedded simulator, with and without its camera.

    python -m benchmarks.simulator
    python -m benchmarks.simulator --steps 400 --task move_near

One process, the expert acting; rounds with and without a picture alternate, medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

import gymnasium

from eval.envs.mujoco import Mujoco
from eval.envs.mujoco.scenes import ENV_IDS
from eval.envs.tasks import ALL, TASKS, Task
from eval.policies.scripted import ExpertPolicy
from eval.rollout.episode import run_episode
from robotics.embodiment.control import Action, Observation

ROUNDS = 5


@dataclass
class Camera:
    """Renders a picture at every step, as for a policy that looks at each one."""

    needs_image: bool = True

    def step(
        self, observation: Observation, action: Action, instruction: str, info: dict[str, Any]
    ) -> None: ...

    def end(self, observation: Observation, info: dict[str, Any]) -> None: ...


def steps_per_second(env: gymnasium.Env, task: Task, steps: int, camera: bool) -> float:
    """Rate over at least `steps` control steps of the expert, resets left out."""
    taken, spent, seed = 0, 0.0, 0
    policy = ExpertPolicy()
    policy.attach(env, task, Mujoco())
    while taken < steps:
        timed = Timed(env)
        taken += run_episode(timed, policy, task, seed, [Camera()] if camera else []).steps
        spent += time.perf_counter() - timed.started
        seed += 1
    return taken / spent


class Timed(gymnasium.Wrapper):
    """Records when the reset was done."""

    started = 0.0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        result = super().reset(**options)
        self.started = time.perf_counter()
        return result


def main() -> None:
    """Measure and print a row per task."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", nargs="*", default=list(ALL), choices=ALL)
    parser.add_argument("--steps", type=int, default=100, help="least control steps per round")
    arguments = parser.parse_args()
    print(f"{'task':<20}{'steps/s, camera':>18}{'steps/s, no picture':>22}")
    for name in arguments.task:
        env = gymnasium.make(ENV_IDS[name], obs_mode="state")
        rates: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(ROUNDS):
            for camera, seen in rates.items():
                seen.append(steps_per_second(env, TASKS[name], arguments.steps, camera))
        medians = {camera: statistics.median(seen) for camera, seen in rates.items()}
        print(f"{name:<20}{medians[True]:>18.0f}{medians[False]:>22.0f}")
        env.close()


if __name__ == "__main__":
    main()
