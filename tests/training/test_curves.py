"""Learning curves of finished and running trainings."""

import json

import pytest
from PIL import Image

from selfflow_wm.commands.curves import main, read_arms, table
from selfflow_wm.training.curves import choose, common_steps, read_curves

JOINT = {"loss": 2.0, "gen/video": 1.5, "gen/action": 2.5, "bin/video/1": 0.5}


def logged(path, values, steps=(100, 200), tail=""):
    """A run whose held-out losses fall by the share of its steps."""
    path.mkdir(parents=True)
    rows = [{"step": 20, "time": 1.0, "train/loss": 9.0, "train/lr": None}]
    for step in steps:
        losses = {f"validation/joint/{name}": v * 100 / step for name, v in values.items()}
        rows.append({"step": step, "time": 2.0, **losses})
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + tail)
    return path


def test_a_run_is_read_by_name_without_what_was_not_finite_or_not_yet_written(tmp_path):
    run = logged(tmp_path / "a", {"loss": 2.0}, tail='{"step": 300, "validation/jo')
    assert read_curves(run) == {
        "train/loss": {20: 9.0},
        "validation/joint/loss": {100: 2.0, 200: 1.0},
    }
    with pytest.raises(ValueError, match="metrics.jsonl"):
        read_curves(tmp_path)


def test_held_out_losses_are_shown_and_their_parts_where_there_are_several(tmp_path):
    joint = list(read_curves(logged(tmp_path / "a", JOINT)))
    assert choose(joint) == [f"validation/joint/{n}" for n in ("loss", "gen/video", "gen/action")]
    one = [n for n in joint if "action" not in n]
    assert choose(one) == ["validation/joint/loss"]
    assert choose(["train/loss", "train/lr"]) == ["train/loss"]
    assert choose(joint, ["*/gen/*", "train/loss", "validation/*"])[2:] == [
        "train/loss", "validation/joint/loss", "validation/joint/bin/video/1"
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"validation/joint/gen/action.* got 'gen'"):
        choose(joint, ["gen"])


def test_arms_are_held_against_each_other_at_the_last_step_of_all(tmp_path):
    a = logged(tmp_path / "a" / "0", {"loss": 2.0}, steps=(100, 200))
    b = logged(tmp_path / "a" / "1", {"loss": 4.0}, steps=(100, 200, 300))
    c = logged(tmp_path / "c", {"loss": 8.0, "gen/video": 1.0}, steps=(100, 300))
    arms = read_arms([f"twin={a}", f"twin={b}", str(c)])
    assert list(arms) == ["twin", "c"]
    loss, other = table(arms, ["validation/joint/loss", "validation/joint/gen/video"])
    assert loss["step"] == 100
    assert (loss["arms"]["twin"]["value"], loss["arms"]["c"]["value"]) == (3.0, 8.0)
    # Student's: t(0.975, 1) times the standard error 1.
    assert loss["arms"]["twin"]["high"] == pytest.approx(3 + 12.706, abs=1e-3)
    assert loss["arms"]["c"]["low"] is None
    assert other["step"] == 300 and set(other["arms"]) == {"c"}
    assert common_steps([{1: 0.0, 3: 0.0}, {3: 0.0, 2: 0.0}]) == [3]


def test_the_command_draws_and_shows(tmp_path, capsys):
    runs = [logged(tmp_path / name, JOINT) for name in "ab"]
    assert main([*map(str, runs), "--out", str(tmp_path / "x" / "curves.png")]) == 0
    image = Image.open(tmp_path / "x" / "curves.png").convert("RGB")
    assert image.width > image.height
    colors = {color for _, color in image.getcolors(1 << 24)}
    assert {(31, 119, 180), (255, 127, 14)} <= colors
    shown = capsys.readouterr().out
    assert "validation/joint/gen/action" in shown and "1.25" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{a}", "{a}"], "each run once"),
        (["{a}", "{other}"], "NAME="),
        (["{a}", "--metrics", "nothing"], "got 'nothing'"),
        (["{missing}"], "metrics.jsonl"),
        (["{a}", "--out", "{a}/curves.svg"], ".png"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, capsys, words, said):
    places = {
        "a": logged(tmp_path / "a", JOINT),
        "other": logged(tmp_path / "deeper" / "a", JOINT),
        "missing": tmp_path / "missing",
    }
    words = [word.format(**places) for word in words]
    out = [] if "--out" in words else ["--out", str(tmp_path / "c.png")]
    assert main([*words, *out]) == 2
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1
