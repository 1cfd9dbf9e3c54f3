"""All checkpoints of a run, one after the other, and their curve."""

from __future__ import annotations

import json

import pytest
from made_runs import write

from eval.report.checkpoints import evaluate_checkpoints, find_checkpoints
from eval.simpler import main


def made_run(root, *steps):
    for step in steps:
        folder = root / "checkpoints" / f"step_{step:08d}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
    return root


def test_checkpoints_are_found_by_step(tmp_path):
    run = made_run(tmp_path / "run", 2000, 100, 30000)
    (run / "checkpoints/step_00000300").mkdir()  # not complete
    (run / "checkpoints/.step_00000400.tmp-x").mkdir()

    def steps(*arguments):
        return [int(path.name[5:]) for path in find_checkpoints(*arguments)]

    assert steps(str(run), "all") == [100, 2000, 30000]
    assert steps(str(run / "checkpoints"), "30000,100") == [100, 30000]
    for run_given, which, message in (
        (str(run), "300", "got 300"),
        (str(run), "last", "expected all, or steps out of 100, 2000, 30000"),
        (str(tmp_path), "all", "expected a run with checkpoints"),
        (None, "all", "expected --checkpoint"),
    ):
        with pytest.raises(ValueError, match=message):
            find_checkpoints(run_given, which)


def test_the_curve_is_that_of_the_steps(tmp_path, capsys):
    found = find_checkpoints(str(made_run(tmp_path / "run", 10, 20, 30)), "all")
    outcomes = {10: "0001", 20: "0111", 30: "1111"}

    def evaluate(path, out):
        step = int(path.name[5:])
        training = {"step": step, "id": "one", "objective": "SelfFlow", "run": "run"}
        write(out, {"open_drawer": outcomes[step]}, training=training)
        return 0

    assert evaluate_checkpoints(found, tmp_path / "out", evaluate) == 0
    assert "checkpoint 3 of 3" in capsys.readouterr().out
    (curve,) = json.loads((tmp_path / "out/curve/compare.json").read_text())["curves"]
    rates = {point["step"]: point["tasks"]["open_drawer"]["rate"] for point in curve["points"]}
    assert rates == {10: 0.25, 20: 0.75, 30: 1.0}
    assert (tmp_path / "out/curve/compare.html").is_file()


@pytest.mark.parametrize(("codes", "code", "ran"), [((0, 1, 0), 1, 3), ((0, 130, 0), 130, 2)])
def test_exit_codes(tmp_path, monkeypatch, codes, code, ran):
    compared = []
    monkeypatch.setattr(
        "eval.report.checkpoints.compare_runs",
        lambda parts, out, allowed: compared.append(allowed),
    )
    found = find_checkpoints(str(made_run(tmp_path / "run", 1, 2, 3)), "all")
    left = list(codes)
    assert evaluate_checkpoints(found, tmp_path, lambda path, out: left.pop(0)) == code
    assert len(codes) - len(left) == ran
    # Episodes that crashed do not keep the others from being shown.
    assert compared == ([] if code == 130 else [["incomplete"]])


def test_a_run_without_checkpoints_is_misuse(tmp_path):
    with pytest.raises(ValueError, match="expected a run with checkpoints"):
        main(["--task", "open_drawer", "--checkpoint", str(tmp_path), "--checkpoints", "all"])
