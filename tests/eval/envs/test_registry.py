"""Simulators, policy clients and metrics that come from somebody else's package."""

from __future__ import annotations

import json

import pytest
from eval_runs import words

from eval.collect import build_parser as collect_parser
from eval.doctor import build_parser as doctor_parser
from eval.envs.registry import (
    SIMULATORS,
    choose_simulator,
    find_simulator,
    find_task,
    recorded_simulator,
)
from eval.envs.simpler import Simpler
from eval.policies.make import make_policy
from eval.policies.options import load_config
from eval.policies.spec import CLIENTS, parse_policy
from eval.results.results import METRICS
from eval.simpler import build_parser, main
from robotics.embodiment.tables import load_robot
from selfflow_wm.plugins import Plugins

MODULE = """
from types import SimpleNamespace

import numpy as np
from fake_env import Expert, PointEnv

from eval.envs.contract import Simulator
from eval.envs.tasks import Task
from eval.policies.scripted import RandomPolicy

NUMBER = 3
STACK = Task("stack", 30, ("stack them",), ("object_grasped",), "they are stacked", "mine")


class Mine(Simulator):
    name, title, note = "mine", "my simulator", "of my own"
    tasks = {"stack": STACK}
    defaults = {"protocol": "few"}

    def make_env(self, task, limits=None):
        return PointEnv(task)

    def make_expert(self, env):
        return Expert(env)

    def seeds(self, task, episodes, seed):
        return list(range(4))[:episodes]

    def cell(self, task, number):
        name, variant = str(number), ("even", "odd")[number % 2]
        return SimpleNamespace(name=name, start=name, variant=variant)


class Client(RandomPolicy):
    def __init__(self, address, *, embodiment):
        super().__init__()
        self.address, self.embodiment = address, embodiment


class Refusing(Client):
    def __init__(self, address, *, embodiment):
        raise KeyError("no seat")


class Failing(Client):
    def act(self, observation):
        raise OSError("no answer")


def metric(records):
    return {"mean steps": sum(r["steps"] for r in records) / len(records)}


def failing(records):
    raise RuntimeError("no number today")
"""
ENTRY_POINTS = """
[selfflow_wm.backends]
mine = their_module:Mine
broken = not_there:Simulator
mujoco = not_there:Impostor
number = their_module:NUMBER
[selfflow_wm.policy_clients]
mine = their_module:Client
number = their_module:NUMBER
bare = their_module:Mine
refusing = their_module:Refusing
failing = their_module:Failing
[selfflow_wm.metrics]
mine = their_module:metric
bad = their_module:failing
number = their_module:NUMBER
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed distribution, for this process and its children."""
    info = tmp_path / "site" / "their_package-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "site" / "their_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr("selfflow_wm.plugins._said", set())


def test_names_are_listed_with_where_they_come_from(package):
    found = SIMULATORS.listing()
    assert found == {
        "simpler": "built in", "mujoco": "built in",
        "mine": "their-package 1.2",
    }  # fmt: skip
    assert "mine (their-package 1.2)" in build_parser().format_help().replace("\n", " ")


def test_a_broken_package_is_named_and_does_not_break_the_others(package, capsys):
    for _ in range(2):
        assert list(SIMULATORS.load_all()) == ["mujoco", "simpler", "mine"]
    said = capsys.readouterr().err.splitlines()  # each once
    assert len(said) == len(set(said)) == 3
    clash, broken = (next(line for line in said if word in line) for word in ("Impostor", "broken"))
    assert clash.startswith("warning: ") and "mujoco" in clash and "their-package" in clash
    assert broken.startswith("warning: ") and "broken" in broken and "not_there" in broken
    with pytest.raises(ValueError, match="their-package"):
        find_simulator("broken")
    with pytest.raises(ValueError, match="got 'mime'.*; "):
        find_simulator("mime")
    assert find_simulator("mujoco").make_env is not None  # nobody can take a name of ours


def test_what_is_no_attribute_of_its_module_is_named():
    with pytest.raises(ValueError, match="AttributeError"):
        Plugins("no.such.group", {"x": "json:nothing"}, "thing").load("x")


def test_a_simulator_brings_its_tasks_and_its_start_states(package):
    simulator = find_simulator("mine")
    assert simulator.parse_tasks("all") == ("stack",)
    assert find_task("stack").horizon == 30
    assert recorded_simulator("mine", "few").tasks == simulator.tasks
    with pytest.raises(ValueError, match="got move_near"):
        simulator.parse_tasks("move_near")


def test_a_run_of_all_that_a_package_adds(package, tmp_path):
    def run(policy, out):
        arguments = words(tmp_path / out, backend="", task="stack", policy=policy)
        arguments[arguments.index("--backend") + 1] = "mine"
        assert main(arguments) == 0
        return json.loads((tmp_path / out / "results.json").read_text())

    found = run("expert", "run")
    assert (found["simulator"], found["protocol"]) == ("mine", "few")
    task = found["tasks"]["stack"]
    assert task["success_last_step"]["of"] == 4
    assert list(task["variants"]) == ["even", "odd"]
    assert task["metrics"] == {"mean steps": task["mean_steps"]}
    assert "mean steps" in (tmp_path / "run" / "report.html").read_text()
    assert run("mine://somewhere", "client")["policy"]["path"] == "mine://somewhere"


def test_results_are_read_where_the_simulator_is_not_installed(tmp_path):
    found = recorded_simulator("mine", "few")
    assert found.start({"seed": 3}) == ("mine", "3")
    assert found.cell("stack", 3) is None


def test_a_client_is_chosen_by_the_scheme_of_its_address(package):
    spec = parse_policy("mine://host/x?y=1", None, load_config())
    policy = make_policy(spec, load_robot("embedded"))
    assert (policy.address, policy.embodiment) == ("mine://host/x?y=1", "embedded")
    with pytest.raises(ValueError, match="got 'nobody'"):
        parse_policy("nobody://host", None, load_config())


@pytest.mark.parametrize("program", [build_parser, collect_parser, doctor_parser])
def test_an_object_of_the_wrong_type_is_named_and_stops_no_command(package, program):
    assert "--help" in program().format_help()
    for group, name in ((SIMULATORS, "number"), (CLIENTS, "number"), (CLIENTS, "bare"),
                        (METRICS, "number")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name} of their-package.*expected.*, got.*; "):
            group.load(name)
        assert name not in group.usable()


def test_an_error_of_a_client_names_its_scheme_and_package(package):
    def made(address):
        return make_policy(parse_policy(address, None, load_config()), load_robot("embedded"))

    with pytest.raises(ValueError, match=r"refusing:// \(their-package 1.2\).*KeyError: 'no seat'"):
        made("refusing://x")
    policy = made("failing://x")
    policy.reset("go", seed=0)
    with pytest.raises(ValueError, match=r"failing:// \(their-package 1.2\).*OSError: no answer"):
        policy.act(None)


def chosen(*more):
    arguments = build_parser().parse_intermixed_args(["--task", "move_near", *more])
    return choose_simulator(arguments)


def test_auto_says_which_simulator_it_took():
    simulator, why = chosen()
    assert simulator.name == "mujoco"
    assert "embedded MuJoCo" in why and "SIMPLER" in why
    with pytest.raises(ValueError, match="--simpler-python"):
        chosen("--backend", "simpler")
    assert chosen("--simpler-python", "/p")[0].backend == Simpler(python="/p").backend


def test_settings_may_be_given_by_flags_or_in_the_name():
    flags = ["--backend", "simpler", "--simpler-python", "/p", "--protocol", "va", "--ray-tracing"]
    one, _ = chosen(*flags)
    assert chosen("--backend", one.backend)[0].settings == one.settings
    assert chosen(*one.words())[0].settings == one.settings
