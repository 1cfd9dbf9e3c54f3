"""`./run` on machines that lack things. Each program it calls is a stub; nothing is installed."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = [
    "bash",
    "cat",
    "chmod",
    "cp",
    "cut",
    "dirname",
    "env",
    "flock",
    "mkdir",
    "rm",
    "sha256sum",
    "tail",
    "touch",
]
SCRIPTS = [
    "run",
    ".ci/run",
    "scripts/bootstrap.sh",
    "requirements.lock",
    "requirements/extras.lock",
    "requirements/lerobot.lock",
    "requirements/rlds.lock",
    "pyproject.toml",
]

# Answers as the interpreter it is called as; files in $STUB make it lack or fail something.
PYTHON = r"""#!/usr/bin/env bash
case "$*" in
    "-c import sys; print"*) cat "$STUB/version" ;;
    "-c import ensurepip, venv") [ ! -e "$STUB/no-ensurepip" ] ;;
    "-m venv --clear "*)
        echo "venv" >>"$STUB/log"
        rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; cp "$0" "$4/bin/lint-imports" ;;
    "-m pip --version") ;;
    "-m pip "*) echo "pip ${*##*-qq }" >>"$STUB/log"; [ ! -e "$STUB/no-index" ] ;;
    *render_probe.py)
        echo "probe $MUJOCO_GL" >>"$STUB/log"; [ -e "$STUB/has-$MUJOCO_GL" ] ;;
    *)
        echo "ran $* MUJOCO_GL=${MUJOCO_GL:-}" >>"$STUB/log"
        [ ! -e "$STUB/unformatted" ] || [ "$2" != ruff ] ;;
esac
"""
APT = '#!/usr/bin/env bash\necho "apt-get $*" >>"$STUB/log"; rm -f "$STUB/no-ensurepip"\n'
APT += 'touch "$STUB/has-egl"\n'


class Machine:
    """A checkout of the scripts and a PATH that holds only stubs and a few basic tools."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.stub = folder / "stub"
        self.bin = folder / "bin"
        for made in (self.stub, self.bin):
            made.mkdir(parents=True)
        for name in SCRIPTS:
            (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.checkout / name)
        for tool in TOOLS:
            found = shutil.which(tool)
            if found is None:
                pytest.skip(f"needs {tool}")
            (self.bin / tool).symlink_to(found)
        self.program("uname", "echo Linux")
        self.user(0)
        self.program("apt-get", APT)
        self.python("python3.11", "3.11")
        self.has("egl")

    def program(self, name: str, script: str) -> None:
        text = script if script.startswith("#!") else f"#!/usr/bin/env bash\n{script}\n"
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def python(self, name: str, version: str) -> None:
        self.program(name, PYTHON)
        (self.stub / "version").write_text(version)

    def user(self, number: int) -> None:
        self.program("id", f"echo {number}")

    def has(self, *backends: str) -> None:
        for backend in ("egl", "osmesa"):
            (self.stub / f"has-{backend}").unlink(missing_ok=True)
            if backend in backends:
                (self.stub / f"has-{backend}").touch()

    def run(self, *words: str, script: str = "run", **variables: str):
        environment = {"PATH": str(self.bin), "STUB": str(self.stub), **variables}
        return subprocess.run(
            ["bash", str(self.checkout / script), *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
            stdin=subprocess.DEVNULL,
        )

    def log(self) -> list[str]:
        """What the stubs were asked since the last call."""
        path = self.stub / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_first_run_installs_and_the_second_only_runs(machine: Machine) -> None:
    first = machine.run("eval", "--episodes", "2")
    assert first.returncode == 0, first.stderr
    log = machine.log()
    command = "ran -m eval.simpler --task open_drawer_place --episodes 2 MUJOCO_GL=egl"
    assert log[0] == "venv"
    assert any("--requirement" in line for line in log)
    assert log[-1] == command
    second = machine.run("eval", "--episodes", "2")
    assert second.returncode == 0
    assert machine.log() == [command]


def test_a_changed_lock_is_installed_over_the_old_environment(machine: Machine) -> None:
    machine.run("setup")
    machine.log()
    with (machine.checkout / "requirements.lock").open("a") as lock:
        lock.write("another==1.0\n")
    assert machine.run("setup").returncode == 0
    log = machine.log()
    assert "venv" not in log
    assert any("--requirement" in line for line in log)


def test_a_failed_install_is_told_and_taken_up_again(machine: Machine) -> None:
    (machine.stub / "no-index").touch()
    failed = machine.run("eval")
    assert failed.returncode == 1
    assert "could not be installed" in failed.stderr
    assert not any(line.startswith("ran") for line in machine.log())
    (machine.stub / "no-index").unlink()
    assert machine.run("eval").returncode == 0
    log = machine.log()
    assert "venv" not in log
    assert log[-1].startswith("ran -m eval.simpler")


def test_a_copied_checkout_makes_its_own_environment(machine: Machine, tmp_path: Path) -> None:
    machine.run("setup")
    machine.log()
    shutil.copytree(machine.checkout, tmp_path / "copy")
    machine.checkout = tmp_path / "copy"
    assert machine.run("setup").returncode == 0
    assert machine.log()[0] == "venv"


def test_no_python_says_what_was_expected(machine: Machine) -> None:
    (machine.bin / "python3.11").unlink()
    result = machine.run("test")
    assert result.returncode == 1
    assert "expected Python 3.11 to 3.14, found: none" in result.stderr
    assert "PYTHON=" in result.stderr


def test_an_old_python_is_named(machine: Machine) -> None:
    (machine.bin / "python3.11").unlink()
    machine.python("python3", "3.9")
    result = machine.run("test")
    assert result.returncode == 1
    assert "python3=3.9" in result.stderr


def test_a_shim_that_only_prints_an_error_is_passed_over(machine: Machine) -> None:
    machine.program("python3.11", "echo 'command not found' >&2; exit 127")
    machine.python("python3.13", "3.13")
    result = machine.run("setup")
    assert result.returncode == 0, result.stderr
    assert "Python 3.13" in result.stderr


def test_the_named_python_is_taken(machine: Machine) -> None:
    machine.program("python3.11", "exit 1")
    machine.python("mine", "3.12")
    assert machine.run("setup", PYTHON=str(machine.bin / "mine")).returncode == 0


def test_missing_venv_module_is_installed_by_root(machine: Machine) -> None:
    (machine.stub / "no-ensurepip").touch()
    result = machine.run("setup")
    assert result.returncode == 0, result.stderr
    log = machine.log()
    assert log[0] == "apt-get update -qq"
    assert log[1].startswith("apt-get install") and log[1].endswith(" python3.11-venv")
    assert log[2] == "venv"


def test_missing_venv_module_is_named_to_others(machine: Machine) -> None:
    machine.user(1000)
    (machine.stub / "no-ensurepip").touch()
    result = machine.run("setup")
    assert result.returncode == 1
    assert "sudo" in result.stderr
    assert "apt-get install -y --no-install-recommends python3.11-venv" in result.stderr
    assert machine.log() == []


def test_other_systems_are_told_the_package_names(machine: Machine) -> None:
    (machine.bin / "apt-get").unlink()
    (machine.stub / "no-ensurepip").touch()
    result = machine.run("setup")
    assert result.returncode == 1
    assert "python3.11-venv" in result.stderr
    assert "sudo" not in result.stderr


def test_missing_egl_is_installed_by_root(machine: Machine) -> None:
    machine.has()
    result = machine.run("eval")
    assert result.returncode == 0, result.stderr
    log = machine.log()
    assert any(line.startswith("apt-get install") and "libegl1" in line for line in log)
    assert log[-1].endswith("MUJOCO_GL=egl")


def test_missing_egl_is_named_to_others_and_looked_for_again(machine: Machine) -> None:
    machine.user(1000)
    machine.has()
    result = machine.run("eval")
    assert result.returncode == 1
    assert "libegl1 libgl1-mesa-dri libopengl0" in result.stderr
    assert not any(line.startswith(("apt-get", "ran")) for line in machine.log())
    machine.has("egl")
    assert machine.run("eval").returncode == 0
    assert "venv" not in machine.log()


def test_osmesa_serves_where_egl_does_not(machine: Machine) -> None:
    machine.has("osmesa")
    assert machine.run("eval").returncode == 0
    assert machine.log()[-1].endswith("MUJOCO_GL=osmesa")


def test_a_chosen_backend_is_left_alone(machine: Machine) -> None:
    machine.has()
    assert machine.run("eval", MUJOCO_GL="glfw").returncode == 0
    log = machine.log()
    assert not any(line.startswith("probe") for line in log)
    assert log[-1].endswith("MUJOCO_GL=glfw")


@pytest.mark.parametrize("script", ["run", ".ci/run"])
def test_test_runs_every_check_and_pytest_last(machine: Machine, script: str) -> None:
    words = ["test"] if script == "run" else []
    assert machine.run(*words, script=script).returncode == 0
    ran = [line for line in machine.log() if line.startswith("ran")]
    modules = [line.split()[2] for line in ran if "-m" in line]
    assert modules == ["ruff", "ruff", "pyright", "pytest"]
    assert len(ran) == 5  # lint-imports is a program of its own
    assert "pytest" in ran[-1]


def test_a_failed_check_fails_the_run_but_hides_no_other(machine: Machine) -> None:
    (machine.stub / "unformatted").touch()
    result = machine.run("test")
    assert result.returncode == 1
    assert "failed: ruff-lint ruff-format" in result.stderr
    assert "pytest" in machine.log()[-1]


def test_arguments_of_test_go_to_pytest_alone(machine: Machine) -> None:
    assert machine.run("test", "tests/core", "-k", "levels").returncode == 0
    ran = [line for line in machine.log() if line.startswith("ran")]
    assert ran == ["ran -m pytest tests/core -k levels MUJOCO_GL=egl"]


def test_gpu_runs_with_the_python_that_has_torch_and_installs_nothing(machine: Machine) -> None:
    machine.program("python3", "exit 1")  # has none
    result = machine.run("gpu", "--tiny")
    assert result.returncode == 0, result.stderr
    log = machine.log()
    assert log[-1] == "ran -m benchmarks.gpu --tiny MUJOCO_GL=egl"
    assert not any(line.startswith(("venv", "pip")) for line in log)


def test_extras_are_tested_in_environments_of_their_own(machine: Machine) -> None:
    assert machine.run("test-extras").returncode == 0
    log = machine.log()
    assert log.count("venv") == 3
    assert {path.name for path in machine.checkout.glob(".venv*") if path.is_dir()} == {
        ".venv-extras",
        ".venv-lerobot",
        ".venv-rlds",
    }
    tested = [line.split()[4].split(",") for line in log if "--extras" in line and "ran" in line]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # ArrayRecord is in the default environment, and so tested without them.
    expected = set(project["optional-dependencies"]) - {"dev", "array_record"}
    assert sorted(sum(tested, [])) == sorted(expected)
    # LeRobot's lock is not on top of the usual one.
    locks = [[word for word in line.split() if ".lock" in word] for line in log if "--req" in line]
    assert [[Path(word).stem for word in words] for words in locks] == [
        ["requirements", "extras"],
        ["requirements", "rlds"],
        ["lerobot"],
    ]


def test_failed_extras_fail_the_run_but_hide_no_others(machine: Machine) -> None:
    (machine.stub / "no-index").touch()
    result = machine.run("test-extras", "rlds", "lerobot")
    assert result.returncode == 1
    assert "failed: rlds lerobot" in result.stderr
    assert machine.run("test-extras", "all").returncode == 1


def test_the_site_is_built_in_an_environment_of_its_own(machine: Machine) -> None:
    (machine.checkout / "requirements").mkdir(exist_ok=True)
    shutil.copy(ROOT / "requirements" / "docs.txt", machine.checkout / "requirements")
    first = machine.run("docs")
    assert first.returncode == 0, first.stderr
    created, installed, built = machine.log()
    assert created == "venv"
    assert installed.endswith("requirements/docs.txt")
    assert built.startswith("ran -m mkdocs build --strict")
    assert not (machine.checkout / ".venv").exists()
    assert machine.run("docs", "--serve", "--open").returncode == 0
    (served,) = machine.log()
    assert served.startswith("ran -m mkdocs serve --open")


def test_an_unknown_command_installs_nothing(machine: Machine) -> None:
    result = machine.run("evla")
    assert result.returncode == 1
    assert "got: evla" in result.stderr
    assert machine.log() == []


def test_the_lock_pins_no_build_of_torch_and_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    lines = [line for line in lock.splitlines() if line and not line.lstrip().startswith("#")]
    assert "torch==2.13.0" in {line.split()[0] for line in lines}
    assert all("==" in line for line in lines)
    assert not [line for line in lines if line.startswith(("nvidia-", "cuda-", "triton"))]
    assert "://" not in lock
    assert not any(os.path.isabs(word) for line in lines for word in line.split())
