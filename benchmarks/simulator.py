"""Control steps per second of the embedded simulator, with and without its camera.

    python -m benchmarks.simulator
    python -m benchmarks.simulator --steps 400 --task move_near

One process, the expert acting; rounds with and without a picture alternate, medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time

import gymnasium

import eval.sim  # noqa: F401  registers the environments
from eval.sim.expert import Expert
from eval.tasks import ALL, get_task

ROUNDS = 5


def steps_per_second(env: gymnasium.Env, steps: int, camera: bool) -> float:
    """Rate over `steps` control steps of the expert, a picture after each when `camera`."""
    sim, taken, spent = env.unwrapped, 0, 0.0
    while taken < steps:
        env.reset(seed=taken)
        expert, truncated = Expert(env), False
        while not truncated and taken < steps:
            started = time.perf_counter()
            action = expert.act()
            truncated = env.step(action.control)[3]
            if camera:
                sim.camera_image()
            spent += time.perf_counter() - started
            taken += 1
            if action.terminate and sim.is_final_subtask:
                break
            if action.terminate:
                sim.advance_to_next_subtask()
    return taken / spent


def main() -> None:
    """Measure and print a row per task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", nargs="*", default=list(ALL), choices=ALL)
    parser.add_argument("--steps", type=int, default=100, help="control steps per round")
    arguments = parser.parse_args()
    print(f"{'task':<20}{'steps/s, camera':>18}{'steps/s, no picture':>22}")
    for name in arguments.task:
        env = gymnasium.make(get_task(name).env_id, obs_mode="state")
        rates: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(ROUNDS):
            for camera, seen in rates.items():
                seen.append(steps_per_second(env, arguments.steps, camera))
        medians = {camera: statistics.median(seen) for camera, seen in rates.items()}
        print(f"{name:<20}{medians[True]:>18.0f}{medians[False]:>22.0f}")
        env.close()


if __name__ == "__main__":
    main()
