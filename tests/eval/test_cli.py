import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from eval_runs import lines, plan_for, run_here, without_times, words

from eval.policies.options import load_config
from eval.policies.spec import PolicySpec, parse_policy
from eval.results.records import EpisodeLog
from eval.rollout.plan import _out
from eval.rollout.run import evaluate
from eval.simpler import main
from selfflow_wm.checkpoints import SHIPPED
from selfflow_wm.cli import exit_code

ROOT = Path(__file__).parents[2]


def test_a_run_leaves_its_files_and_prints_the_numbers(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(words(out, "--video", "1")) == 0
    shown = capsys.readouterr().out
    assert "fake_env:make — not comparable with SIMPLER numbers" in shown
    assert "mean of 2 tasks" in shown
    found = json.loads((out / "results.json").read_text())
    assert found["schema_version"] == 1
    assert found["seeds"]["move_near"] == [1_000_000 + i for i in range(6)]
    # The fake expert fails where seed % 4 == 2.
    assert found["tasks"]["move_near"]["success_last_step"]["count"] == 5
    assert found["errors"] == 0
    assert found["complete"]
    assert len(lines(out)) == 12 + 2
    page = (out / "report.html").read_text()
    # One video was asked for; a failure was recorded afterwards, as only a success was on it.
    assert page.count("data:video/mp4") == 4
    for task in ("open_drawer_place", "move_near"):
        assert {p.name for p in (out / "videos").glob(f"{task}-*")} == {
            f"{task}-1000000.mp4", f"{task}-1000002.mp4"
        }  # fmt: skip


def test_videos_can_be_had_by_number_afterwards(tmp_path):
    out, arguments = tmp_path / "run", ["--task", "move_near"]
    run_here(words(out, *arguments))
    before = without_times(lines(out))
    run_here(words(out, *arguments, "--film", "1000002,1000004"))
    assert {p.name for p in (out / "videos").iterdir()} == {
        "move_near-1000002.mp4", "move_near-1000004.mp4"
    }  # fmt: skip
    after = without_times(lines(out))
    videos = {seed: row.pop("video") for (_, seed), row in after.items()}
    assert [seed for seed, video in videos.items() if video] == [1_000_002, 1_000_004]
    for row in before.values():
        assert row.pop("video") is None
    assert before == after
    for bad in ("5", "1000006", "x"):
        with pytest.raises(ValueError, match="video-of: expected numbers.*, got.*; "):
            plan_for(words(out, *arguments, "--video-of", bad))


def test_one_and_two_workers_give_the_same_records(tmp_path):
    assert main(words(tmp_path / "one", policy="random")) == 0
    assert main(words(tmp_path / "two", "--workers", "2", policy="random")) == 0
    assert without_times(lines(tmp_path / "one")) == without_times(lines(tmp_path / "two"))


def test_an_interrupted_run_continues_where_it_stopped(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_here(words(whole))

    def stop(record):
        if record["task"] == "move_near":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_here(words(cut), stop)
    assert len(lines(cut)) == 7
    with (cut / "episodes.jsonl").open("ab") as file:
        file.write(b'{"task": "move_near", "se')  # power went off here
    ran = []
    run_here(words(cut), ran.append)
    assert len(ran) == 5
    assert without_times(lines(cut)) == without_times(lines(whole))


def test_more_episodes_extend_a_run(tmp_path):
    out = tmp_path / "run"
    run_here(words(out, "--episodes", "2"))
    ran = []
    run_here(words(out, "--episodes", "3"), ran.append)
    assert [r["index"] for r in ran] == [2, 2]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (["--seed", "1"], "seed=0"),
        (["--policy", "random"], 'policy="expert"'),
        (["--task", "move_near"], "tasks="),
        (["--backend", "fake_env:make_crashing"], "simulator="),
    ],
)
def test_other_settings_in_the_same_directory_are_refused(tmp_path, change, name):
    out = tmp_path / "run"
    run_here(words(out))
    before = (out / "episodes.jsonl").read_bytes()
    with pytest.raises(ValueError, match="expected .*, got ") as refused:
        main(words(out, *change))
    assert name in str(refused.value)
    assert (out / "episodes.jsonl").read_bytes() == before


def test_an_episode_that_another_run_finished_meanwhile_is_not_played_again(tmp_path):
    out = tmp_path / "run"
    plan = plan_for(words(out))
    log = EpisodeLog(plan.out, plan.settings())  # sees no episode yet
    run_here(words(out, "--episodes", "2"))
    before, ran = lines(out), []
    try:
        evaluate(plan, log, on_episode=ran.append)
    finally:
        log.close()
    assert len(before) == 4 and len(ran) == 8 and lines(out)[:4] == before


def test_a_single_task_names_the_directory(tmp_path):
    def name(task):
        arguments = words(tmp_path, task=task)
        place = arguments.index("--out")
        return plan_for(arguments[:place] + arguments[place + 2 :]).out.name

    assert name("move_near").startswith("move_near-")
    assert name("all").startswith("all-")
    single = SimpleNamespace(tasks={"reach": None}, groups={}, backend="point")
    assert _out(single, ("reach",), PolicySpec("expert"), None).name.startswith("reach-expert-")  # pyright: ignore[reportArgumentType]


def test_a_long_path_is_printed_whole_into_a_pipe(tmp_path, capsys):
    out = tmp_path / ("a" * 90) / "run"
    assert main(words(out, task="move_near")) == 0
    assert f"report: {out / 'report.html'}\n" in capsys.readouterr().out


def test_a_damaged_line_in_the_middle_is_refused(tmp_path):
    out = tmp_path / "run"
    run_here(words(out))
    path = out / "episodes.jsonl"
    kept = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(kept[0] + b"{}\n" + b"".join(kept[1:]))
    plan = plan_for(words(out))
    with pytest.raises(ValueError, match="damaged line 2"):
        EpisodeLog(plan.out, plan.settings())


def test_two_runs_can_not_write_one_directory(tmp_path):
    plan = plan_for(words(tmp_path / "run"))
    with (
        EpisodeLog(plan.out, plan.settings()),
        pytest.raises(ValueError, match="no other run is writing"),
    ):
        EpisodeLog(plan.out, plan.settings()).begin()


def test_crashes_are_shown_and_make_the_exit_code_1_and_are_tried_again(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(words(out, backend="make_crashing", task="move_near")) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 episodes are errors" in shown
    assert (
        "error in move_near seed 1000003 (3 tries): RuntimeError: the <simulator> lost a screw"
        in shown
    )
    found = json.loads((out / "results.json").read_text())["tasks"]["move_near"]
    assert found["errors"] == 1
    assert found["success_last_step"]["of"] == 5
    ran = []
    run_here(words(out, backend="make_crashing", task="move_near"), ran.append)
    assert [r["seed"] for r in ran] == [1_000_003]


def test_an_embodiment_mismatch_is_refused_before_anything_is_written(tmp_path):
    demos = tmp_path / "demos" / "executed"
    demos.mkdir(parents=True)
    np.savez(demos / "move_near-5.npz", control=np.zeros((2, 7), np.float32),
             terminate=np.zeros(2, bool), embodiment=np.array("google_robot"))  # fmt: skip
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="expected an episode of embodiment embedded"):
        main(words(out, policy=f"replay:{demos.parent}", task="move_near"))
    assert not out.exists()


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "eval.simpler", *arguments], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--task", "open_drawr"],
        ["--task", "move_near", "--episodes", "0"],
        ["--task", "move_near", "--policy", "nobody"],
        ["--task", "move_near", "--policy", "expert", "--checkpoint", "x"],
        ["--task", "move_near", "--checkpoint", "no/such/directory"],
        ["--task", "move_near", "--backend", "simpler", "--policy", "expert"],
        ["--task", "move_near", "--policy", "replay:/nowhere"],
        ["--task", "move_near", "--policy", "expert", "policy.stepz=3"],
        ["--task", "move_near", "--policy", "expert", "nonsense"],
        ["--task", "move_near", "--policy", "expert", "policy.steps=many"],
        ["--task", "move_near", "--policy", "expert", "--seed", "100"],
        [
            "--task",
            "move_near",
            "--policy",
            "ws://localhost:9",
            "remote.connect_s=0.1",
            "policy.execute=6",
        ],
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, tmp_path, capsys, monkeypatch):
    import eval.simpler
    from selfflow_wm.cli import run_main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["eval.simpler", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run_main(eval.simpler.main)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert "; " in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--task", "open_drawr"], "write open_drawer,"),
        (["--task", "move_near", "policy.step=3"], "write policy.steps=3"),
        (["--task", "move_near", "polcy.steps=3"], "write policy.steps=3"),
        (["--task", "move_near", "steps=3"], "write policy.steps=3"),
        (["--task", "move_near", "--device", "cpu"], "write policy.device=cpu"),
        (["--task", "move_near", "--device=cpu"], "write policy.device=cpu"),
        (["--task", "move_near", "--checkpoint", "selfflow"], "write self_flow"),
        (["--task", "move_near", "--task", "open_drawer"], "write --task move_near,open_drawer"),
        (["--task", "move_near", "policy.steps=1,2", "--out", "runs/a b"],
         "for policy_steps in 1 2; do python -m eval.simpler --task move_near "
         "policy.steps=$policy_steps --out 'runs/a b'-$policy_steps; done"),
        (["--task", "move_near", "--policy", "expert", "policy.steps=3"], "got policy.steps=3"),
        (["--task", "move_near", "--policy", "random", "policy.steps=3"], "got policy.steps=3"),
    ],
)  # fmt: skip
def test_a_near_miss_is_answered_with_what_works(arguments, remedy, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert exit_code_of(lambda: main(arguments)) == 2
    assert remedy in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def exit_code_of(command):
    try:
        return exit_code(command)
    except SystemExit as stopped:
        return stopped.code


def test_options_of_the_chosen_policy_are_taken(tmp_path):
    arguments = words(tmp_path / "run", "random.rotation=0.2", policy="random")
    assert plan_for(arguments).policy.options["rotation"] == 0.2


def test_options_that_a_server_would_never_see_are_refused(tmp_path):
    arguments = words(tmp_path / "run", "policy.execute=6", policy="ws://localhost:9")
    with pytest.raises(ValueError, match=r"got policy.execute=6, .* remote.execute=N here"):
        plan_for([*arguments, "remote.connect_s=0.1"])


def test_help_shows_flags_overrides_and_examples():
    done = command("--help")
    assert done.returncode == 0
    for word in ("--task", "--policy", "--checkpoint", "--backend", "--workers", "--video",
                 "policy.steps=16", "open_drawer_place", "replay"):  # fmt: skip
        assert word in done.stdout


def test_overrides_reach_the_config_and_keep_its_types():
    config = load_config(["policy.steps=5", "video.fps=12"])
    assert config["policy"]["steps"] == 5
    assert config["video"]["fps"] == 12
    assert load_config()["policy"]["steps"] == 2
    for word in ("policy.steps=2.5", "+policy.extra=1", "video=3"):
        with pytest.raises(ValueError, match="expected .*, got "):
            load_config([word])


def test_without_a_name_the_checkpoint_is_the_one_shipped_for_the_simulator():
    for shipped in ("self_flow", "simpler_self_flow"):
        spec = parse_policy("checkpoint", None, load_config(), shipped)
        assert spec.path == str(SHIPPED / shipped)


def test_the_mode_follows_the_checkpoint(tmp_path):
    def mode(config, *words):
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "model.safetensors").touch()
        spec = parse_policy("checkpoint", str(tmp_path), load_config(words))
        return spec.options["mode_name"]

    assert mode({"modes": ["policy", "joint"]}) == "policy"  # by name: as before there was auto
    assert mode({"modes": ["joint"]}) == "joint"
    assert mode({"modes": ["policy", "joint"]}, "policy.mode_name=joint") == "joint"
    with pytest.raises(ValueError, match=r"policy.mode_name: .* got one trained in joint; choose"):
        mode({"modes": ["joint"]}, "policy.mode_name=policy")
    with pytest.raises(ValueError, match="expected mode 'policy' or 'joint'"):
        mode({"modes": ["joint"]}, "policy.mode_name=forward")
    with pytest.raises(ValueError, match="expected one of python -m robotics.finetune"):
        mode({"kind": "backbone"})
