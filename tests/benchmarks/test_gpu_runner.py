"""Stages in processes with deadlines: whatever one does, the others run and nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import needs, runner
from benchmarks.gpu.check import check_out
from benchmarks.gpu.report import not_reached, summary
from benchmarks.gpu.stages import DEFAULT, STAGES, Stage, budgets, chosen
from selfflow_wm.cli import exit_code

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 8.0
PROGRAM = Path(__file__).with_name("run_made.py")


def start(out, minutes, behaviour):
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(out), str(minutes), behaviour],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def read(out):
    return json.loads((out / "results.json").read_text())


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        ("fine", "done"),
        ("raises", "failed"),
        ("dies", "died"),
        ("hangs", "cut"),
        ("stubborn", "killed"),
    ],
)
def test_what_a_stage_does_costs_only_itself(tmp_path, behaviour, status):
    began = time.time()
    program = start(tmp_path, LIMIT / 60, behaviour)
    text, _ = program.communicate(timeout=30)
    assert time.time() - began < LIMIT + 2  # Python's own start and end come on top
    found = read(tmp_path)
    assert [entry["status"] for entry in found["stages"].values()] == [status, "done"]
    assert found["stages"]["one"]["tables"]["first"] == [{"value": 1}]
    assert ("last" in found["stages"]["one"]["tables"]) == (behaviour == "fine")
    assert "ZeroDivisionError" in found["stages"]["one"].get("traceback", "") or (
        behaviour != "raises"
    )
    assert program.returncode == (0 if behaviour == "fine" else 1)
    assert "answer" in text and "42 units" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_what_was_measured(tmp_path, number):
    program = start(tmp_path, 5, "hangs")
    until = time.time() + 20
    while time.time() < until:
        time.sleep(0.1)
        if (tmp_path / "results.json").exists() and "first" in str(read(tmp_path)["stages"]["one"]):
            break
    program.send_signal(number)
    program.communicate(timeout=10)
    found = read(tmp_path)
    assert program.returncode == 128 + number
    assert found["status"] == "stopped"
    assert found["stages"]["one"]["tables"]["first"] == [{"value": 1}]
    assert found["stages"]["two"]["status"] == "not reached"


def test_a_killed_parent_leaves_its_results_and_no_busy_child(tmp_path):
    program = start(tmp_path, 5, "hangs")
    until = time.time() + 20
    while time.time() < until and "first" not in (
        str(read(tmp_path)) if (tmp_path / "results.json").exists() else ""
    ):
        time.sleep(0.1)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(program.pid)], capture_output=True, text=True
    ).stdout.split()
    program.kill()
    program.wait()
    assert len(children) == 1
    until = time.time() + 5
    while time.time() < until and Path("/proc", children[0]).exists():
        time.sleep(0.1)
    assert not Path("/proc", children[0]).exists()
    assert read(tmp_path)["stages"]["one"]["tables"]["first"] == [{"value": 1}]


def test_stages_come_in_order_of_worth_and_share_all_the_time():
    assert [stage.name for stage in chosen("why,machine")] == ["machine", "why"]
    assert [stage.name for stage in chosen(None)] == list(DEFAULT)
    with pytest.raises(ValueError, match="nothing"):
        chosen("machine,nothing")
    assert sum(budgets(chosen(None), 480).values()) == pytest.approx(480)
    assert budgets(chosen("train"), 480) == {"train": 480}


@pytest.mark.parametrize("names", [None, "train"])
def test_the_minutes_are_used_up_but_for_what_the_report_needs(tmp_path, monkeypatch, names):
    """Every stage takes all it may, on a clock that only they move."""
    clock, given = [1000.0], []
    monkeypatch.setattr(runner.time, "time", lambda: clock[0])
    monkeypatch.setattr(runner.signal, "signal", lambda *arguments: None)

    def take(self, stage, budget, work, number):
        given.append((stage.name, budget))
        clock[0] += budget

    monkeypatch.setattr(runner.Runner, "_run_stage", take)
    stages = chosen(names)
    runner.Runner(tmp_path, 8, stages, {}, began=1000.0).run()
    assert [name for name, _ in given] == [stage.name for stage in stages]
    assert 460 < clock[0] - 1000 <= 480 - runner.CLOSING + 1e-6


def test_all_that_is_missing_is_named_at_once_with_what_brings_it():
    stages = [
        Stage("a", "?", 1, ("json", "no_such_module", "cv2_is_not_here")),
        Stage("b", "?", 1, ("no.such.package",)),
        Stage("c", "?", 1, ("json",)),
    ]
    lacking = needs.missing(stages)
    assert lacking == {"a": ["no_such_module", "cv2_is_not_here"], "b": ["no.such.package"]}
    text = needs.remedy(lacking | {"d": ["scipy"]})
    for word in ("no_such_module", "cv2_is_not_here", "no.such.package", "gpu_wheels.py"):
        assert word in text
    assert "pip install scipy" in text


def test_wheels_are_installed_apart_and_shadow_nothing(tmp_path, monkeypatch):
    import zipfile

    monkeypatch.setattr(needs.tempfile, "gettempdir", lambda: str(tmp_path))
    for name in ("made_up_for_a_test", "numpy"):
        info = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "VALUE = 7\n")
            wheel.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            )
            wheel.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{info}/RECORD", "")
    target = needs.installed(tmp_path)
    assert (target / "made_up_for_a_test" / "__init__.py").is_file()
    assert not (target / "numpy").exists()
    with pytest.raises(ValueError, match="gpu_wheels"):
        needs.installed(tmp_path / "empty")


def test_every_package_that_a_stage_needs_is_carried_or_expected_on_the_machine():
    lines = (ROOT / "requirements" / "gpu-wheels.txt").read_text().splitlines()
    carried = {line.split("==")[0] for line in lines if "==" in line}
    lock = (ROOT / "requirements.lock").read_text()
    assert all(line in lock for line in lines if "==" in line)
    for stage in STAGES:
        wanted = {needs.PACKAGES.get(name, name) for name in stage.needs}
        assert wanted <= carried | set(needs.LARGE), stage.name


def test_the_summary_fits_and_names_what_was_not_reached():
    entry = {
        "status": "cut", "question": "?", "planned": ["a", "b", "c"], "done": ["a"],
        "failed": {"b": "Traceback\nOutOfMemoryError: no room"}, "checks": [], "figures": {},
        "tables": {"long": [{"n": n, "text": "x" * 60} for n in range(500)], "short": [{"n": 1}]},
    }  # fmt: skip
    results = {
        "command": "c",
        "began": "now",
        "status": "partial",
        "minutes": 1,
        "stages": {"s": entry},
    }
    text = summary(results)
    assert not_reached(entry) == ["c"]
    assert len(text) < 12_000
    assert "not reached: c" in text and "no room" in text and "s: short" in text
    assert "long: 500 rows" in text


def test_help_is_quick_and_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; from benchmarks.gpu.__main__ import build_parser;"
    )
    code += "build_parser().format_help()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


TRAIN = ["--tiny", "--device", "cpu", "--stages", "train"]


def refused(capsys, out, *words):
    """The problems that the command line is refused for, one a line."""
    from benchmarks.gpu.__main__ import main

    assert exit_code(lambda: main(["--out", str(out), *words])) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    return lines


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--stages", "nothing,machne"], "'nothing', 'machne'"),
        (["train.steps=4"], "--stages train"),
        ([*TRAIN, "--resume", "/nowhere"], "results.json"),
        (["--device", "cpu"], "--tiny"),
        (["--tiny", "--device", "cpu", "--minutes", "0.1"], "minutes"),
        (["--tiny", "--device", "cpu", "--minutes", "nan"], "minutes"),
        (["--tiny", "--device", "cpu", "--wheels", "/nowhere"], "gpu_wheels"),
        ([*TRAIN, "train.step=3"], "write train.steps=3"),
        ([*TRAIN, "train.arms=[self_flwo]"], "self_flow"),
        ([*TRAIN, "tasks=close_drawr"], "close_drawr"),
        ([*TRAIN, "evaluate.words=[polcy.device=cpu]"], "polcy"),
        ([*TRAIN, "collect.flags=[--workrs,3]"], "--workrs"),
    ],
)
def test_misuse_is_refused_before_anything_runs(tmp_path, capsys, words, named):
    lines = refused(capsys, tmp_path / "out", *words)
    assert any(named in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_all_that_is_wrong_is_said_at_once(tmp_path, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "file"
    out.touch()
    words = ["--stages", "train,nonsense", "--minutes", "soon", "--device", "cuda", "--tiny"]
    words += ["--wheels", "/nowhere", "--resume", "/nowhere", "train.step=3", "word"]
    lines = refused(capsys, out, *words)
    subjects = [line.split(": ")[1] for line in lines]
    assert subjects == [
        "stages", "minutes", "words", "resume", "wheels", "out", "recipe", "device",
    ]  # fmt: skip


def test_a_misspelt_recipe_is_refused_without_torch(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from benchmarks.gpu.__main__ import main;"
    code += f"sys.exit(main(['--out', {str(tmp_path / 'out')!r}, *{TRAIN!r}, 'train.step=3']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "train.steps=3" in done.stderr, done.stderr


@pytest.mark.parametrize("out", ["/etc/passwd", "/etc/passwd/run", "/proc/run"])
def test_an_out_that_can_be_no_directory_is_one_line(capsys, out):
    words = ["--tiny", "--device", "cpu", "--stages", "machine"]
    assert len(refused(capsys, out, *words)) == 1


def test_only_the_wreck_of_a_run_may_be_overwritten(tmp_path):
    def leave(status, process, **entry):
        stages = {"one": {"status": "failed", "figures": {}, "tables": {}} | entry}
        results = {"status": status, "process": process, "stages": stages}
        (tmp_path / "results.json").write_text(json.dumps(results))

    over = subprocess.Popen([sys.executable, "-c", ""])
    over.wait()
    leave("partial", os.getpid())
    check_out(tmp_path)
    leave("running", over.pid)
    check_out(tmp_path)
    for measured in (
        dict(status="running", process=os.getpid()),
        dict(status="partial", process=over.pid, figures={"answer": {}}),
        dict(status="running", process=over.pid, done=["cell"]),
    ):
        leave(**measured)
        with pytest.raises(ValueError, match="results.json"):
            check_out(tmp_path)
    leave("partial", over.pid)
    (tmp_path / "train-1.tar").touch()
    with pytest.raises(ValueError, match="train-1.tar"):
        check_out(tmp_path)
    (tmp_path / "train-1.tar").unlink()
    (tmp_path / "results.json").rename(tmp_path / "report.md")
    with pytest.raises(ValueError, match="report.md"):
        check_out(tmp_path)


def test_wheels_are_not_downloaded_where_they_or_the_copy_cannot_go(tmp_path):
    (tmp_path / "file").touch()
    for out, copy in (("file", "new"), ("file/wheels", "new"), ("wheels", ".")):
        words = ["--out", str(tmp_path / out), "--copy", str(tmp_path / copy)]
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "gpu_wheels.py"), *words],
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_copy_that_travels_is_whole_but_for_what_stays_behind(tmp_path):
    from scripts import gpu_wheels  # a folder without __init__.py, beside the tests

    wheels, out = tmp_path / "wheels", tmp_path / "copy"
    wheels.mkdir()
    (wheels / "a.whl").touch()
    files = {"pyproject.toml": 1, "checkpoints/self_flow/config.json": 1}
    gpu_wheels.copy(files, ["self_flow"], wheels, out)
    found = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    assert found == ["pyproject.toml", "wheels/a.whl"]
