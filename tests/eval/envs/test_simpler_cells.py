"""The grids against the counts and numbers that SIMPLER's scripts give."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from eval.envs.simpler.cells import (
    FIRST_SEED,
    PAPER_CELLS,
    URDFS,
    cells,
)
from eval.envs.simpler.protocols import cell_at, prepackaged
from eval.envs.simpler.tasks import SIMPLER_TASKS, WIDOWX
from eval.envs.tasks import ALL

VM = {"pick_coke_can": 300, "move_near": 240, "open_drawer": 108, "close_drawer": 108,
      "open_drawer_place": 108}  # fmt: skip
VA = {"pick_coke_can": 675, "move_near": 480, "open_drawer": 189, "close_drawer": 189,
      "open_drawer_place": 189}  # fmt: skip


@pytest.mark.parametrize(("protocol", "counts"), [("vm", VM), ("va", VA)])
def test_the_grids_have_the_published_numbers_of_cells(protocol, counts):
    assert {task: len(cells(task, protocol)) for task in ALL} == counts


def test_widowx_has_24_cells_and_no_variants():
    for task in WIDOWX:
        grid = cells(task, "vm")
        assert [cell.reset["obj_init_options"]["episode_id"] for cell in grid] == list(range(24))
        assert len({json.dumps(cell.build) for cell in grid}) == 1
        with pytest.raises(ValueError, match="only for the Google robot"):
            cells(task, "va")
    sink = cells("widowx_put_eggplant_in_basket", "vm")[0]
    assert sink.build["robot"] == "widowx_sink_camera_setup" and sink.horizon == 120


@pytest.mark.parametrize("protocol", ["vm", "va", "paper"])
def test_cells_are_distinct_and_travel_as_json(protocol):
    for task in ALL:
        grid = cells(task, protocol)
        assert len({cell.name for cell in grid}) == len(grid)
        states = {json.dumps(cell.to_json() | {"name": ""}, sort_keys=True) for cell in grid}
        assert len(states) == len(grid) // (2 if protocol == "paper" else 1)


def test_a_cell_travels_with_the_horizon_of_its_task():
    for name, task in SIMPLER_TASKS.items():
        assert {cell.to_json()["horizon"] for cell in cells(name, "vm")} == {task.horizon}


def test_an_open_and_place_cell_has_the_scripts_numbers():
    cell = cells("open_drawer_place", "vm")[27 + 9 + 4]
    assert cell.env_id == "PlaceIntoClosedTopDrawerCustomInScene-v0"
    assert cell.build == {
        "robot": "google_robot_static", "control_freq": 3, "sim_freq": 513,
        "control_mode": "arm_pd_ee_delta_pose_align_interpolate_by_planner_gripper_pd_joint_target"
                        "_delta_pos_interpolate_by_planner",
        "shader": "rt", "urdf_version": URDFS[1], "overlay": "open_drawer_b0.png",
        "scene_name": "dummy_drawer", "station_name": "mk_station_recolor", "light_mode": "simple",
        "disable_bad_material": True, "model_ids": "baked_apple_v2",
    }  # fmt: skip
    assert cell.reset["robot_init_options"]["init_xy"] == [0.652, 0.009]
    assert cell.reset["obj_init_options"] == {"init_xy": [-0.05, 0.03]}


def test_the_robot_faces_the_cabinet_turned_by_its_yaw():
    # scripts: --robot-init-rot-quat-center 0 0 0 1 (wxyz: half a turn about z) and a small yaw
    cell = cells("open_drawer", "vm")[0]
    w, x, y, z = cell.reset["robot_init_options"]["init_rot_quat"]
    centre, yaw = Rotation.from_quat([0, 0, 1, 0]), Rotation.from_euler("z", -0.03)
    assert (Rotation.from_quat([x, y, z, w]) * (yaw * centre).inv()).magnitude() < 1e-7


def test_what_a_cell_leaves_open_is_drawn_as_upstream_draws_it():
    assert np.random.RandomState(2022).randint(2**32) == FIRST_SEED
    assert {cell.seed for task in ALL for cell in cells(task, "vm")} == {FIRST_SEED}


def test_a_number_and_the_paper_spread_over_the_grid():
    few = cells("open_drawer_place", "27")
    assert len({cell.name for cell in few}) == 27
    assert {cell.build["urdf_version"] for cell in few} == set(URDFS)
    assert {task: len(cells(task, "paper")) for task in PAPER_CELLS} == {
        task: 2 * count for task, count in PAPER_CELLS.items()
    }
    with pytest.raises(ValueError, match="at most the 108"):
        cells("open_drawer_place", "109")


def test_prepackaged_cells_are_seeds():
    cell = cell_at("open_drawer_place", "prepackaged", 1_000_003)
    assert cell == prepackaged("open_drawer_place", 1_000_003)
    assert cell.seed == 1_000_003
    assert cell.build == {
        "prepackaged_config": True, "model_ids": "baked_apple_v2", "shader": "rt",
    }  # fmt: skip


def where(cell):
    robot = cell.reset["robot_init_options"]
    return np.array(robot["init_xy"]), cell.reset.get("obj_init_options", {}).get("init_xy")


@pytest.mark.parametrize("task", ALL)
def test_training_starts_lie_beside_every_cell_that_is_tested(task):
    tested = [cell for protocol in ("vm", "va") for cell in cells(task, protocol)]
    robots = np.unique([where(cell)[0] for cell in tested if "overlay" in cell.build], axis=0)
    objects = [where(cell)[1] for cell in tested if where(cell)[1]]
    drawn = [cell_at(task, "train", seed) for seed in range(300)]
    for cell in drawn:
        robot, placed = where(cell)
        assert 0.005 <= np.linalg.norm(robots - robot, axis=1).min() <= 0.015
        if placed:
            assert np.linalg.norm(np.array(objects) - placed, axis=1).min() >= 0.005
            assert f"{placed[0]:g},{placed[1]:g}" in cell.name
    assert len({cell.name for cell in drawn}) == 300
    assert {cell.build["urdf_version"] for cell in drawn} == set(URDFS)
    assert {cell.env_id for cell in drawn} == {cell.env_id for cell in cells(task, "vm")}
    assert cell_at(task, "train", 7) == drawn[7]
    w, *_, z = drawn[0].reset["robot_init_options"]["init_rot_quat"]
    assert abs(w) < 0.06 and np.hypot(w, z) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("task", "protocol", "index"),
    [
        ("open_drawer", "vn", 0),
        ("open_drawer", "0", 0),
        ("open_drawer", "²", 0),
        ("fly", "vm", 0),
        ("open_drawer", "vm", 108),
        ("widowx_stack_cube", "train", 0),
    ],
)
def test_what_does_not_exist_is_refused(task, protocol, index):
    with pytest.raises(ValueError, match="expected.*, got.*; "):
        cell_at(task, protocol, index)


@pytest.mark.parametrize("protocol", ["vm", "va"])
def test_variants_are_upstreams_groups_of_equal_size(protocol):
    counts = {
        "vm": {"pick_coke_can": 12, "move_near": 4, "open_drawer": 12, "close_drawer": 12,
               "open_drawer_place": 4},
        "va": {"pick_coke_can": 27, "move_near": 8, "open_drawer": 21, "close_drawer": 21,
               "open_drawer_place": 7},
    }[protocol]  # fmt: skip
    for task, count in counts.items():
        groups: dict[str, int] = {}
        for cell in cells(task, protocol):
            groups[cell.variant] = groups.get(cell.variant, 0) + 1
        assert len(groups) == count
        assert len(set(groups.values())) == 1


def test_a_cell_run_twice_is_one_start():
    twice = cells("open_drawer_place", "paper")
    assert [c.start for c in twice[:7]] == [c.start for c in twice[7:]]
    assert len({c.name for c in twice}) == 14
