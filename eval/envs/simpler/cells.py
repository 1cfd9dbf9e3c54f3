"""SIMPLER's evaluation grids, cell by cell, with the exact arguments of environment and reset.

Transcribed as facts from SimplerEnv's `scripts/*.sh` (one shell line is one block of cells) and,
where a script leaves a default, from `simpler_env/evaluation/argparse.py`. Nothing here imports a
simulator, so the grids can be printed and tested anywhere.

| protocol      | what                                                                            |
|---------------|---------------------------------------------------------------------------------|
| `vm`          | visual matching: photo overlay, four URDF colours (coke 300, move near 240,     |
|               | drawers 108 + 108, open-and-place 108, WidowX 24 each)                          |
| `va`          | variant aggregation: coke 675, move near 480, drawers 189 + 189, place 189; the |
|               | camera variants, which upstream runs and does not count, are left out           |
| `paper`       | the Self-Flow paper's numbers of cells (coke 15, drawers 9 + 9, move near 10,   |
|               | open-and-place 7), each run twice; which cells it took is not published: here   |
|               | they are spread evenly over `vm`                                                |
| `prepackaged` | `prepackaged_config=True` and a seed, as `simpler_env.make` does                |
| `train`       | a seed: where demonstrations start, beside the cells of `vm`; see `training`     |
| a number N    | N cells of `vm`, spread evenly                                                  |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from math import cos, sin
from typing import Any

import numpy as np

from eval.envs.contract import without_turn
from eval.envs.simpler.adapters import ROBOTS
from eval.envs.simpler.tasks import SIMPLER_TASKS

PROTOCOLS = ("vm", "va", "paper", "prepackaged", "train")
SEEDED = ("prepackaged", "train")
"""Protocols that draw their cells from seeds."""
URDFS = (
    "",
    "recolor_tabletop_visual_matching_1",
    "recolor_tabletop_visual_matching_2",
    "recolor_cabinet_visual_matching_1",
)
PAPER_CELLS = {
    "pick_coke_can": 15, "move_near": 10, "open_drawer": 9, "close_drawer": 9,
    "open_drawer_place": 7,
}  # fmt: skip
DRAWERS = ("top", "middle", "bottom")
DRAWER_POSES = {
    "a0": (0.644, -0.179, -0.03), "a1": (0.765, -0.182, -0.02), "a2": (0.889, -0.203, -0.06),
    "b0": (0.652, 0.009, 0.0), "b1": (0.752, 0.009, 0.0), "b2": (0.851, 0.035, 0.0),
    "c0": (0.665, 0.224, 0.0), "c1": (0.765, 0.222, -0.025), "c2": (0.865, 0.222, -0.025),
}  # fmt: skip
"""Overlay photo -> where the robot stood when it was taken: x, y (m), yaw (rad)."""
CAN_POSES = ("lr_switch", "upright", "laid_vertically")
_COKE_SCENE = "google_pick_coke_can_1_v4"
_WIDOWX = {
    "widowx_spoon_on_towel": ("PutSpoonOnTableClothInScene-v0", False),
    "widowx_carrot_on_plate": ("PutCarrotOnPlateInScene-v0", False),
    "widowx_stack_cube": ("StackGreenCubeOnYellowCubeBakedTexInScene-v0", False),
    "widowx_put_eggplant_in_basket": ("PutEggplantInBasketScene-v0", True),
}
SCENES = {
    "open_drawer": "OpenDrawerCustomInScene-v0",
    "close_drawer": "CloseDrawerCustomInScene-v0",
    "open_drawer_place": "PlaceIntoClosedTopDrawerCustomInScene-v0",
    "pick_coke_can": "GraspSingleOpenedCokeCanInScene-v0",
    "move_near": "MoveNearGoogleBakedTexInScene-v1",
    **{task: row[0] for task, row in _WIDOWX.items()},
}
"""The environment of a task in upstream's `simpler_env.make` and visual matching."""
FIRST_SEED = int(np.random.RandomState(2022).randint(2**32))
"""Seed of upstream's episodes: each builds an environment, whose generator starts at 2022, and
resets it without a seed. It determines what a cell leaves open (the places of distractors)."""


@dataclass(frozen=True)
class Cell:
    """One start state of one task."""

    task: str
    name: str
    """Readable and unique within a task and protocol."""
    env_id: str
    build: dict[str, Any]
    """Keyword arguments of the environment; the simulator side resolves two of them: `overlay`, a
    file in the assets' `real_inpainting/`, and `shader` (`rt` or `ibl`), what the protocol uses."""
    reset: dict[str, Any] = field(default_factory=dict)
    """`options` of `reset`."""
    seed: int = FIRST_SEED
    variant: str = ""
    """The group of cells whose rates upstream's tables average with equal weight: the appearance
    (colours, scene, light) and the kind of task (drawer, orientation). Empty: no groups."""

    @property
    def horizon(self) -> int:
        """Control steps to truncation."""
        return SIMPLER_TASKS[self.task].horizon

    @property
    def start(self) -> str:
        """The name without the turn of a cell that is run more than once."""
        return without_turn(self.name)

    def to_json(self) -> dict[str, Any]:
        """What is sent to the simulator."""
        return {
            "task": self.task, "name": self.name, "env_id": self.env_id, "horizon": self.horizon,
            "build": self.build, "reset": self.reset, "seed": self.seed,
        }  # fmt: skip


@lru_cache(maxsize=64)
def cells(task: str, protocol: str) -> tuple[Cell, ...]:
    """Every cell of `task` under `protocol` (not one of `SEEDED`).

    Raises `ValueError` for an unknown task or protocol, or a combination upstream does not have.
    """
    if task not in SIMPLER_TASKS:
        raise ValueError(
            f"task: expected one of {', '.join(SIMPLER_TASKS)}, got {task!r}; correct it"
        )
    if protocol == "vm":
        return tuple(_VISUAL_MATCHING.get(task, _widowx)(task))
    if protocol == "va" and task in _VARIANTS:
        return tuple(_VARIANTS[task](task))
    if protocol == "paper" and task in PAPER_CELLS:
        chosen = _spread(cells(task, "vm"), PAPER_CELLS[task])
        return tuple(
            Cell(**{**vars(cell), "name": f"{cell.name} #{turn}"})
            for turn in (1, 2)
            for cell in chosen
        )
    if protocol.isdecimal() and int(protocol) > 0:
        return _spread(cells(task, "vm"), int(protocol))
    if protocol in ("va", "paper"):
        raise ValueError(
            f"protocol: expected one that has {task}, got {protocol}, which is only for the "
            "Google robot; use --protocol vm"
        )
    raise ValueError(
        f"protocol: expected {', '.join(PROTOCOLS)} or a number, got {protocol!r}; "
        "choose one of these"
    )


def _spread(grid: tuple[Cell, ...], count: int) -> tuple[Cell, ...]:
    if count > len(grid):
        raise ValueError(
            f"protocol: expected at most the {len(grid)} cells of vm, got {count}; "
            "use --protocol vm"
        )
    # The middle of each of `count` equal stretches: no cell twice, first and last not favoured.
    return tuple(grid[(2 * i + 1) * len(grid) // (2 * count)] for i in range(count))


def _robot(robot: str, **more: Any) -> dict[str, Any]:
    row = ROBOTS["widowx" if robot.startswith("widowx") else "google_robot"]
    return {
        "robot": robot, "control_freq": row.control_hz, "sim_freq": row.physics_hz,
        "control_mode": row.control_mode, "shader": "ibl", **more,
    }  # fmt: skip


def stand(x: float, y: float, yaw: float = 0.0) -> dict[str, Any]:
    """Options for a robot at x, y (m) with yaw (rad) in the world."""
    # argparse.py: rotation about z by yaw, times the centre quaternion (0, 0, 0, 1) wxyz.
    turned = [-sin(yaw / 2), 0.0, 0.0, cos(yaw / 2)]
    return {"init_xy": [x, y], "init_rot_quat": turned}


def _line(low: float, high: float, count: int) -> list[float]:
    return [round(float(value), 6) for value in np.linspace(low, high, count)]


def _square(xs: list[float], ys: list[float]) -> list[list[float]]:
    return [[x, y] for x in xs for y in ys]


def xy(point: list[float]) -> str:
    """A place as in names of cells."""
    return f"{point[0]:g},{point[1]:g}"


def _drawers(task: str) -> Iterator[tuple[str, str]]:
    verb = "Open" if task == "open_drawer" else "Close"
    for drawer in DRAWERS:
        yield drawer, f"{verb}{drawer.capitalize()}DrawerCustomInScene-v0"


_APPLES = _square(_line(-0.08, -0.02, 3), _line(-0.02, 0.08, 3))
_CANS = _square(_line(-0.35, -0.12, 5), _line(-0.02, 0.42, 5))


def _matching(urdf: str, overlay: str, **more: Any) -> dict[str, Any]:
    return _robot("google_robot_static", urdf_version=urdf, overlay=overlay, **more)


def _cabinet(urdf: str, photo: str) -> dict[str, Any]:
    return _matching(
        urdf, f"open_drawer_{photo}.png", scene_name="dummy_drawer",
        station_name="mk_station_recolor", light_mode="simple", disable_bad_material=True,
        shader="rt",
    )  # fmt: skip


def _vm_drawers(task: str) -> Iterator[Cell]:
    for urdf in URDFS:
        for drawer, env_id in _drawers(task):
            for photo, pose in DRAWER_POSES.items():
                # The script also gives init_xy (0, 0), which the drawer scenes never read.
                yield Cell(
                    task, f"{drawer} {photo} {urdf or 'plain'}", env_id,
                    _cabinet(urdf, photo), {"robot_init_options": stand(*pose)},
                    variant=f"{drawer} {urdf or 'plain'}",
                )  # fmt: skip


def _vm_place(task: str) -> Iterator[Cell]:
    for urdf in URDFS:
        for photo in ("a0", "b0", "c0"):
            build = {**_cabinet(urdf, photo), "model_ids": "baked_apple_v2"}
            for apple in _APPLES:
                options = {
                    "robot_init_options": stand(*DRAWER_POSES[photo]),
                    "obj_init_options": {"init_xy": apple},
                }
                yield Cell(
                    task, f"{photo} apple {xy(apple)} {urdf or 'plain'}", SCENES[task],
                    build, options, variant=urdf or "plain",
                )  # fmt: skip


def _vm_coke(task: str) -> Iterator[Cell]:
    for urdf in URDFS:
        for pose in CAN_POSES:
            build = _matching(
                urdf, "google_coke_can_real_eval_1.png", scene_name=_COKE_SCENE, **{pose: True}
            )
            yield from _cans(task, f"{pose} {urdf or 'plain'}", SCENES[task], build)


def _cans(task: str, name: str, env_id: str, build: dict[str, Any]) -> Iterator[Cell]:
    for can in _CANS:
        options = {"robot_init_options": stand(0.35, 0.20), "obj_init_options": {"init_xy": can}}
        words = f"{xy(can)} {name}"
        yield Cell(task, words, env_id, build, options, variant=name)


def _vm_near(task: str) -> Iterator[Cell]:
    for urdf in URDFS:
        build = _matching(urdf, "google_move_near_real_eval_1.png", scene_name=_COKE_SCENE)
        yield from _near(task, urdf or "plain", "MoveNearGoogleBakedTexInScene-v0", build)


def _near(task: str, name: str, env_id: str, build: dict[str, Any]) -> Iterator[Cell]:
    for episode in range(60):
        options = {
            "robot_init_options": stand(0.35, 0.21, -0.09),
            "obj_init_options": {"episode_id": episode},
        }
        words = f"{episode} {name}"
        yield Cell(task, words, env_id, build, options, variant=name)


def _widowx(task: str) -> Iterator[Cell]:
    env_id, sink = _WIDOWX[task]
    build = _robot(
        "widowx_sink_camera_setup" if sink else "widowx",
        scene_name="bridge_table_1_v2" if sink else "bridge_table_1_v1",
        overlay="bridge_sink.png" if sink else "bridge_real_eval_1.png",
    )
    place = stand(0.127, 0.06) if sink else stand(0.147, 0.028)
    for episode in range(24):
        options = {"robot_init_options": place, "obj_init_options": {"episode_id": episode}}
        yield Cell(task, str(episode), env_id, build, options)


def _station_variants() -> Iterator[tuple[str, dict[str, Any]]]:
    simple = "frl_apartment_stage_simple"
    yield "base", {"scene_name": simple}
    for scene in ("modern_bedroom_no_roof", "modern_office_no_roof"):
        yield scene, {"scene_name": scene}
    for light in ("brighter", "darker"):
        yield light, {"scene_name": simple, "light_mode": light}
    for station in ("mk_station2", "mk_station3"):
        yield station, {"scene_name": simple, "station_name": station}


def _va_drawers(task: str) -> Iterator[Cell]:
    for variant, more in _station_variants():
        build = _robot("google_robot_static", **{**more, "shader": "rt"})
        for drawer, env_id in _drawers(task):
            for place in _square(_line(0.65, 0.85, 3), _line(-0.2, 0.2, 3)):
                yield Cell(
                    task, f"{drawer} {xy(place)} {variant}", env_id, build,
                    {"robot_init_options": stand(*place)}, variant=f"{drawer} {variant}",
                )  # fmt: skip


def _va_place(task: str) -> Iterator[Cell]:
    for variant, more in _station_variants():
        build = _robot("google_robot_static", **{**more, "shader": "rt", "model_ids": "apple"})
        for y in _line(-0.2, 0.2, 3):
            for apple in _APPLES:
                options = {
                    "robot_init_options": stand(0.65, y),
                    "obj_init_options": {"init_xy": apple},
                }
                yield Cell(
                    task, f"y {y:g} apple {xy(apple)} {variant}", SCENES[task],
                    build, options, variant=variant,
                )  # fmt: skip


def _table_variants() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "base", {"scene_name": _COKE_SCENE}
    for number in (1, 2):
        yield f"table {number}", {"scene_name": f"Baked_sc1_staging_objaverse_cabinet{number}_h870"}
    for suffix in ("", "_2"):
        yield f"background{suffix}", {"scene_name": f"{_COKE_SCENE}_alt_background{suffix}"}
    for light in ("darker", "brighter"):
        yield light, {"scene_name": _COKE_SCENE, f"slightly_{light}_lighting": True}


def _va_coke(task: str) -> Iterator[Cell]:
    plain = SCENES[task]
    crowded = "GraspSingleOpenedCokeCanDistractorInScene-v0"
    rows = [(name, plain, more) for name, more in _table_variants()]
    rows.append(("distractors", crowded, {"scene_name": _COKE_SCENE}))
    rows.append(
        ("more distractors", crowded, {"scene_name": _COKE_SCENE, "distractor_config": "more"})
    )
    for variant, env_id, more in rows:
        for pose in CAN_POSES:
            build = _robot("google_robot_static", **{**more, pose: True})
            yield from _cans(task, f"{pose} {variant}", env_id, build)


def _va_near(task: str) -> Iterator[Cell]:
    rows = [*_table_variants(), ("alone", {"scene_name": _COKE_SCENE, "no_distractor": True})]
    for variant, more in rows:
        build = _robot("google_robot_static", **more)
        yield from _near(task, variant, "MoveNearGoogleInScene-v0", build)


_VISUAL_MATCHING = {
    "open_drawer": _vm_drawers, "close_drawer": _vm_drawers, "open_drawer_place": _vm_place,
    "pick_coke_can": _vm_coke, "move_near": _vm_near,
}  # fmt: skip
_VARIANTS = {
    "open_drawer": _va_drawers, "close_drawer": _va_drawers, "open_drawer_place": _va_place,
    "pick_coke_can": _va_coke, "move_near": _va_near,
}  # fmt: skip
