"""The preflight and the flags that choose SIMPLER."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from eval import doctor
from eval.envs.contract import row
from eval.envs.mujoco import Mujoco
from eval.envs.registry import find_simulator
from eval.envs.simpler import Simpler, probe, vulkan
from eval.envs.simpler.interpreter import check_interpreter, search_path
from eval.rollout.plan import make_plan
from eval.simpler import build_parser, main


def test_what_is_missing_is_named_with_the_command_that_fixes_it(monkeypatch):
    monkeypatch.setattr(probe.importlib.util, "find_spec", lambda name: None)
    rows = {row["name"]: row for row in [*probe._packages(), *probe._simpler()]}
    assert not rows["sapien"]["ok"] and "sapien==2.2.2" in rows["sapien"]["remedy"]
    assert "'numpy<2'" in rows["numpy"]["remedy"]
    assert "simpler-git.txt" in rows["ManiSkill2_real2sim"]["remedy"]


@pytest.mark.parametrize(
    ("distribution", "version", "fits"),
    [("numpy", "1.26.4", True), ("numpy", "2.0.1", False), ("setuptools", "81.0", False),
     ("setuptools", "80.10.2", True), ("sapien", "2.2.2", True), ("sapien", "3.0.3", False),
     ("gymnasium", "1.4.0", True), ("gymnasium", "0.28.1", False)],
)  # fmt: skip
def test_versions_that_do_not_fit_are_named(monkeypatch, distribution, version, fits):
    monkeypatch.setattr(probe.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(probe.importlib.metadata, "version", lambda name: version)
    row = next(row for row in probe._packages() if row["name"] == distribution)
    assert row["ok"] is fits and row["found"] == version


@pytest.mark.parametrize(
    ("driver", "extensions", "ok"),
    [("llvmpipe Mesa 22.3.6 (LLVM 15.0.6)", [], False),
     ("llvmpipe Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6)", [], "note"),
     ("llvmpipe Mesa 22.3.6 (LLVM 15.0.6)", [vulkan.SEMAPHORE], True),
     ("NVIDIA 550.54", [], False)],
)  # fmt: skip
def test_an_old_software_driver_is_missing_something(driver, extensions, ok):
    row = probe._semaphore([vulkan.Device("a device", driver, frozenset(extensions))])
    assert (row["ok"], row["note"]) == {True: (True, False), False: (False, False),
                                        "note": (False, True)}[ok]  # fmt: skip


def test_the_exit_code_says_whether_something_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(Mujoco, "check", lambda self, render: [row("mujoco", True, "draws")])
    assert doctor.main(["--only", "mujoco"]) == 0
    note = {**row("stages", False, "absent", "copy them"), "note": True}
    monkeypatch.setattr(Simpler, "check", lambda self, render: [note])
    assert doctor.main([]) == 0
    lacking = row("sapien", False, "absent", "pip x")
    monkeypatch.setattr(Simpler, "check", lambda self, render: [lacking])
    capsys.readouterr()
    assert doctor.main([]) == 0  # the embedded simulator is enough, unless SIMPLER was asked for
    shown = capsys.readouterr().out
    assert "MISSING sapien: absent" in shown and "pip x" in shown
    last = shown.splitlines()[-1]
    assert f"complete: {Mujoco.title}" in last and "SIMPLER" in last.partition("incomplete")[2]
    for words in (["--only", "simpler"], ["--simpler-python", "/p"], ["--render"]):
        assert doctor.main(words) == 1
    monkeypatch.setattr(Mujoco, "check", lambda self, render: [lacking])
    assert doctor.main([]) == doctor.main(["--only", "mujoco"]) == 1
    with pytest.raises(ValueError, match="write --only mujoco"):
        doctor.main(["--only", "mujco"])


def test_the_doctor_draws_a_picture_or_says_why_it_cannot(monkeypatch):
    (found,) = Mujoco().check()
    assert found["ok"] and "320 x 256" in found["found"]
    (broken,) = find_simulator("fake_env:make_bad_reset").check()
    assert not broken["ok"] and "lost a screw" in " ".join(broken["found"].split())


def test_an_interpreter_without_simpler_is_looked_at_in_its_own_process():
    rows = {row["name"]: row for row in check_interpreter(sys.executable)}
    assert rows["Python"]["ok"] is ((3, 8) <= sys.version_info[:2] < (3, 12))
    with pytest.raises(ValueError, match="expected an interpreter"):
        check_interpreter("/no/such/python")
    assert not check_interpreter("/bin/false")[0]["ok"]


def test_settings_travel_in_the_backends_name():
    given = {"protocol": "va", "python": "/opt/a b/python", "shader": "ray_traced"}
    simulator = Simpler(**given)
    assert find_simulator(simulator.backend).settings == simulator.settings == given
    assert simulator.label == "simpler-ray-traced" and simulator.protocol == "va"
    assert Simpler().backend == "simpler"
    assert "rasterised" in Simpler(python="/p").label
    for bad in ("simpler?what=1", "simpler?shader=painted", "mujoco?protocol=vm", "nothing"):
        with pytest.raises(ValueError, match="expected .*, got "):
            find_simulator(bad)


def plan(*words: str):
    return make_plan(build_parser().parse_intermixed_args(["--policy", "expert", *words]), "")[0]


def test_a_grid_becomes_the_episodes_of_a_run():
    simpler = ("--backend", "simpler", "--simpler-python", "/p")
    found = plan("--task", "open_drawer_place,move_near", *simpler)
    assert {task: len(seeds) for task, seeds in found.seeds.items()} == {
        "open_drawer_place": 108, "move_near": 240,
    }  # fmt: skip
    bridge = plan("--task", "widowx", "--policy", "random", *simpler)
    assert [len(seeds) for seeds in bridge.seeds.values()] == [24] * 4
    assert bridge.out.name.startswith("widowx-random-simpler")
    assert plan("--task", "move_near", *simpler, "--episodes", "3").seeds == {
        "move_near": [0, 1, 2]
    }
    assert plan("--task", "move_near", *simpler, "--protocol", "va").settings()["protocol"] == "va"
    seeds = plan("--task", "move_near", *simpler, "--protocol", "prepackaged").seeds["move_near"]
    assert seeds[0] == 1_000_000 and len(seeds) == 20
    beside = plan("--task", "move_near", *simpler, "--protocol", "train")
    assert beside.seeds["move_near"][0] == 0 and "not a test" in beside.simulator.note


def test_a_replay_on_simpler_starts_where_its_demonstrations_did(tmp_path):
    (tmp_path / "executed").mkdir()
    (tmp_path / "executed" / "move_near-17.npz").touch()
    words = ["--task", "move_near", "--backend", "simpler", "--simpler-python", "/p"]
    words += ["--policy", f"replay:{tmp_path}"]
    found, why = make_plan(build_parser().parse_intermixed_args(words), "")
    assert found.seeds == {"move_near": [17]} and found.simulator.protocol == "train"
    assert "protocol train" in why
    with pytest.raises(ValueError, match="expected train with --policy replay"):
        make_plan(build_parser().parse_intermixed_args([*words, "--protocol", "vm"]), "")


@pytest.mark.parametrize(
    "words",
    [("--backend", "mujoco", "--protocol", "vm"), ("--backend", "mujoco", "--ray-tracing"),
     ("--backend", "mujoco", "--task", "widowx_stack_cube"),
     ("--backend", "simpler", "--simpler-python", "/p", "--protocol", "everything"),
     # one policy and one mean are of one robot
     ("--backend", "simpler", "--simpler-python", "/p", "--policy", "random",
      "--task", "move_near,widowx_stack_cube"),
     # it would change nothing but the label
     ("--backend", "simpler", "--simpler-python", "/p", "--seed", "1"),
     # nobody has written an expert for it
     ("--backend", "simpler", "--simpler-python", "/p", "--policy", "expert", "--task", "widowx")],
)  # fmt: skip
def test_settings_that_do_not_belong_together_are_refused(words):
    with pytest.raises(ValueError, match="expected.*, got.*; "):
        plan(*([] if "--task" in words else ["--task", "move_near"]), *words)


def test_cells_are_printed_without_a_simulator(capsys):
    assert main(["--task", "open_drawer_place", "--protocol", "vm", "--list-cells"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "open_drawer_place: 108 cells of vm" and len(lines) == 109
    assert '"overlay": "open_drawer_a0.png"' in lines[1]


def test_of_cells_drawn_from_seeds_those_of_a_run_are_printed(capsys):
    words = ["--task", "open_drawer", "--episodes", "3", "--list-cells", "--protocol"]
    assert main([*words, "train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "open_drawer: 3 cells of train"
    assert [line.split("\t")[0] for line in lines[1:]] == ["0", "1", "2"]
    assert main([*words, "prepackaged", "--seed", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("1020000\tseed 1020000\t")


def test_another_pythons_packages_never_come_before_the_simulators(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/mine")
    assert search_path().split(":") == [str(Path(__file__).parents[3]), "/mine"]
    assert search_path(tmp_path) == "/mine"  # a copy in site-packages has no pyproject.toml beside


def test_the_doctor_examines_an_interpreter_with_nothing_installed(tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    rows = {row["name"]: row for row in check_interpreter(str(bare))}
    assert rows["numpy"]["found"] == rows["transforms3d"]["found"] == "absent"
    assert rows["ManiSkill2_real2sim"]["found"] == "absent"
    assert "Vulkan loader" in rows


def test_the_probe_needs_nothing_but_the_standard_library():
    text = Path(probe.__file__).read_text().split("def probe")[0]
    assert "numpy as np" not in text and "import eval" not in text
