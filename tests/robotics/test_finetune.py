"""The entry, end to end on made-up data; and every experiment, composed and instantiated."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch

from robotics.data.batches import ModeStream
from robotics.data.mixture import DatasetMixture
from robotics.finetune import main
from robotics.imagine import main as imagine
from robotics.model.modes import robot_schedule
from robotics.model.world_model import WorldModel
from robotics.training.build import build, compose_config
from selfflow_wm.training import checkpoint
from selfflow_wm.training.config import CONFIG_DIR, options

EXPERIMENTS = [name for name, command in options("experiment").items() if command == "finetune"]
JOINT = {"rt1_paper", "rt1_small"}  # their words are `joint_overrides`
OBJECTIVES = sorted(path.stem for path in (CONFIG_DIR / "objective").glob("*.yaml"))
STAND_IN = {"repa": ["objective/encoder=random_projection"]}  # DINOv2's weights are not here
FAST = (
    "modes.policy.batch_size=6",
    "modes.joint.batch_size=3",
    "modes.forward.batch_size=3",
    "modes.inverse.batch_size=3",
    "modes.video.batch_size=3",
    'dataset.train_split="train[:4]"',
    'dataset.validation_split="train[4:]"',
    "trainer.total_steps=4",
    "trainer.log_every=1",
    "trainer.validate_every=4",
    "trainer.validation_batches=1",
    "trainer.preview_every=4",
    "trainer.export_every=4",
)


@pytest.fixture
def words(rt1_directory, tiny_overrides):
    return [*tiny_overrides, *FAST, f"data={rt1_directory}"]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_builds_and_steps(
    words, joint_overrides, rt1_directory, tmp_path, experiment, objective
):
    if experiment in JOINT:
        words = [*joint_overrides, f"data={rt1_directory}"]
    chosen = [f"objective={objective}", *STAND_IN.get(objective, [])]
    run = build(compose_config([f"experiment={experiment}", *chosen, *words, f"out={tmp_path}"]))
    before = [p.clone() for p in run.trainer.trainable]
    run.trainer.train_step()
    run.trainer.train_step()  # velocities start at zero: the first step moves the heads alone
    assert any(not torch.equal(a, b) for a, b in zip(before, run.trainer.trainable, strict=True))
    aligned = objective in ("self_flow", "self_flow_separated", "sra", "repa")
    assert (len(list(run.trainer.extra.parameters())) > 0) == aligned


def test_a_set_too_small_for_the_usual_split_says_which_to_write(words, tmp_path):
    usual = ['dataset.train_split="train[:95%]"', 'dataset.validation_split="train[99%:]"']
    with pytest.raises(ValueError) as caught:
        build(compose_config([*words, *usual, f"out={tmp_path / 'a'}"]))
    given = shlex.split(str(caught.value).partition("write ")[2])
    assert len(given) == 2
    build(compose_config([*words, *given, f"out={tmp_path / 'b'}"])).trainer.train_step()


def test_long_instructions_are_cut_and_counted(words, tmp_path):
    run = build(compose_config([*words, "layout.text_length=9", f"out={tmp_path / 'cut'}"]))
    assert "2 of 2 instructions" in run.description
    assert "layout.text_length=" in run.description
    run.trainer.train_step()
    whole = build(compose_config([*words, "layout.text_length=48", f"out={tmp_path / 'whole'}"]))
    assert "instructions are cut" not in whole.description


def test_arms_start_from_the_same_weights_and_see_the_same_windows(words, tmp_path):
    runs = [
        build(compose_config([*words, f"objective={name}", f"out={tmp_path / name}"]))
        for name in ("flow_matching", "self_flow")
    ]
    for a, b in zip(*(run.trainer.model.parameters() for run in runs), strict=True):
        assert torch.equal(a, b)
    for _ in range(5):
        first, second = (next(run.trainer.batches) for run in runs)
        assert first.given == second.given
        for name in first.latents:
            assert torch.equal(first.latents[name], second.latents[name])


def test_training_leaves_a_checkpoint_that_acts(words, tmp_path, capsys, windows):
    out = tmp_path / "run"
    assert main([*words, f"out={out}"]) == 0
    printed = capsys.readouterr().out
    assert "4 episodes, 40 windows" in printed and "finished at step 4" in printed
    world = WorldModel.load(out / "checkpoint", embodiment="embedded")
    assert world.act(windows.batch([0]), steps=1).shape == (1, 6, 8)
    trained = checkpoint.load_tensors(out / "state/step_00000004/ema.safetensors")
    assert all(torch.equal(v, trained[k]) for k, v in world.backbone.state_dict().items())
    assert (out / "checkpoints/step_00000004/model.safetensors").is_file()
    assert (out / "previews/step_00000004.png").stat().st_size > 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4]
    last = next(row for row in rows if "validation/policy/gen/action" in row)
    assert any(key.startswith("validation/forward/bin/video/") for key in last)
    # a finished run, started again, reports that there is nothing to do
    assert main([*words, f"out={out}"]) == 0
    assert "4 done of 4" in capsys.readouterr().out


def test_a_run_cut_in_two_ends_as_a_straight_one(words, tmp_path):
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    build(compose_config([*words, f"out={straight}"])).trainer.train()
    build(compose_config([*words, f"out={cut}"])).trainer.train(until=2)
    again = build(compose_config([*words, f"out={cut}"]))
    assert again.trainer.step == 2
    again.trainer.train()
    for name in ("model", "ema", "objective", "optimizer", "rng"):
        a, b = (
            checkpoint.load_tensors(run / f"state/step_00000004/{name}.safetensors")
            for run in (straight, cut)
        )
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name


def test_another_run_is_not_overwritten(words, tmp_path, capsys):
    build(compose_config([*words, f"out={tmp_path}"])).trainer.train(until=1)
    assert main([*words, f"out={tmp_path}", "optim.lr=0.5"]) == 2
    assert "other settings of optim" in capsys.readouterr().err
    before = (tmp_path / "state/step_00000001/model.safetensors").read_bytes()
    again = [*words, f"out={tmp_path}", "optim.lr=0.5", "resume=false"]
    assert main([*again, "data=/nowhere"]) == 2
    assert (tmp_path / "state/step_00000001/model.safetensors").read_bytes() == before
    (tmp_path / "empty").mkdir()
    assert main([*again, f"data={tmp_path / 'empty'}"]) == 2
    aside = tmp_path / "replaced/state/step_00000001/model.safetensors"
    assert aside.read_bytes() == before, "a mistake loses nothing"
    fresh = build(compose_config(again))
    assert fresh.trainer.step == 0
    assert aside.read_bytes() == before, "nor does mending it"
    fresh.trainer.train(until=1)
    build(compose_config(again))
    assert aside.read_bytes() != before, "one run is kept"


def test_a_run_can_start_from_a_checkpoint(words, tmp_path):
    main([*words, f"out={tmp_path / 'a'}"])
    source = tmp_path / "a/checkpoint"
    run = build(compose_config([*words, f"out={tmp_path / 'b'}", f"init={source}"]))
    expected = WorldModel.load(source)
    for a, b in zip(run.model.backbone.parameters(), expected.backbone.parameters(), strict=True):
        assert torch.equal(a, b) and a.requires_grad
    assert run.model.robot().codecs["head"].hash() == expected.robot().codecs["head"].hash()
    loaded = checkpoint.read_json(tmp_path / "b/run.json")["loaded"]
    assert not any(sum(part[f]) for part in loaded["parts"].values() for f in part if f != "loaded")


def test_sigterm_saves_and_the_same_command_goes_on(words, tmp_path):
    command = [
        sys.executable, "-m", "robotics.finetune", *words,
        f"out={tmp_path}", "trainer.total_steps=100000",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, cwd=CONFIG_DIR.parent)
    deadline = time.monotonic() + 120
    while not (tmp_path / "metrics.jsonl").is_file() or (
        not (tmp_path / "metrics.jsonl").read_text()
    ):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    state = checkpoint.latest_step(tmp_path / "state")
    assert state is not None
    step = checkpoint.read_json(state / "trainer.json")["step"]
    run = build(compose_config(command[3:]))
    assert run.trainer.step == step > 0


def test_the_stream_resumes_and_keeps_one_mode_while_accumulating(world, windows):
    shares = {"policy": {"probability": 1, "batch_size": 5}}
    shares["video"] = {"probability": 1, "batch_size": 2}
    mixture = robot_schedule(shares, seed=1)
    stream = ModeStream(windows, world, mixture, seed=1, accumulate=2)
    batches = [next(stream) for _ in range(12)]
    for a, b in zip(batches[::2], batches[1::2], strict=True):
        assert a.given == b.given and set(a.latents) == set(b.latents)
    assert len({tuple(batch.latents) for batch in batches}) == 2
    half = ModeStream(windows, world, mixture, seed=1, accumulate=2)
    for _ in range(7):
        next(half)
    state = json.loads(json.dumps(half.state_dict()))
    other = ModeStream(windows, world, mixture, seed=1, accumulate=2)
    other.load_state_dict(state)
    for expected in batches[7:]:
        got = next(other)
        assert all(torch.equal(got.latents[k], v) for k, v in expected.latents.items())


def test_ranks_share_what_one_stream_would_draw(world, windows):
    """Of one set and of a mixture, which ranks cannot share by every second window of each set."""
    sets = DatasetMixture({"a": windows, "b": windows}, {"a": 2.0, "b": 1.0})
    shares = {"policy": {"probability": 1, "batch_size": 6}}
    shares["video"] = {"probability": 1, "batch_size": 2}
    mixture = robot_schedule(shares, seed=1)
    for data in (windows, sets):
        one = ModeStream(data, world, mixture, seed=1)
        ranks = [
            ModeStream(data, world, mixture.divided(2), seed=1, rank=rank, world_size=2)
            for rank in range(2)
        ]
        for _ in range(20):
            whole, parts = next(one), [next(rank) for rank in ranks]
            for rank, part in enumerate(parts):
                assert part.given == whole.given
                for name, value in whole.latents.items():
                    assert torch.equal(part.latents[name], value[rank::2]), name
        assert one.state_dict() == ranks[0].state_dict() == ranks[1].state_dict()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_processes_train_as_one(words, tmp_path, parallel):
    smooth = [*words, "optim.eps=1e-4", "modes.inverse=null"]  # no step by the sign of a rounding
    smooth += [f"modes.{name}.batch_size=4" for name in ("policy", "joint", "forward", "video")]
    smooth += ["workers=2"]  # of every process
    assert main([*smooth, f"out={tmp_path / 'one'}"]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [
            *torchrun, "-m", "robotics.finetune", *smooth,
            f"out={tmp_path / 'two'}", f"trainer.parallel={parallel}",
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=CONFIG_DIR.parent,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("finished at step 4") == 1
    for name in ("model", "ema", "objective"):
        one, two = (
            checkpoint.load_tensors(tmp_path / run / f"state/step_00000004/{name}.safetensors")
            for run in ("one", "two")
        )
        assert one.keys() == two.keys()
        for key in one:
            torch.testing.assert_close(two[key], one[key], atol=1e-4, rtol=1e-3)
    assert (tmp_path / "two/previews/step_00000004.png").stat().st_size > 0
    assert WorldModel.load(tmp_path / "two/checkpoint", embodiment="embedded").config["step"] == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective=magic"], "magic"),
        (["objective.gamma=-1", "data={data}", "out={out}"], "objective: expected gamma >= 0"),
        (["objective=repa", "data={data}", "out={out}"], "DINOv2: expected the directory"),
        (["optim.learning_rate=1"], "learning_rate"),
        (["experiment=nothing"], "nothing"),
        ([], "expected data=DIR and out=DIR"),
        (["data=/nowhere", "out={out}"], "nowhere"),
        (["data=/nowhere", "out={out}", "trainer.total_steps=many"], "total_steps|nowhere"),
    ],
)
def test_misuse_is_explained_in_one_line(
    words, rt1_directory, overrides, message, tmp_path, capsys
):
    import re

    tiny = words if "data={data}" in overrides else []
    assert main([*tiny, *(w.format(out=tmp_path, data=rt1_directory) for w in overrides)]) == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed) and "Traceback" not in printed


def test_ranks_without_torchrun_are_refused_before_anything_is_written(
    words, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*words, f"out={tmp_path / 'run'}"]) == 2
    assert "WORLD_SIZE=2" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_paths_need_no_quotes():
    config = compose_config(["data=/a b/[c]=(d)'e", "out=~/x,y"])
    assert config.data == "/a b/[c]=(d)'e"
    assert config.out == os.path.expanduser("~/x,y")


def test_the_configuration_can_be_printed(capsys):
    assert main(["--config", "experiment=embedded", "data=x", "out=y"]) == 0
    assert "caption_dropout" in capsys.readouterr().out


def test_imagining_writes_its_report(words, rt1_directory, tmp_path, capsys):
    main([*words, f"out={tmp_path / 'run'}"])
    out = tmp_path / "imagined"
    arguments = ["--checkpoint", str(tmp_path / "run/checkpoint"), "--data", str(rt1_directory)]
    arguments += ["--out", str(out), "--windows", "8", "--steps", "1", "--episode", "1"]
    assert imagine(arguments) == 0
    assert "share of the mean" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert results["video"]["head"]["counts"]["windows"] == 8
    assert {"forward", "copy", "forward - copy"} <= results["video"]["head"]["all"]["PSNR"].keys()
    assert {"inverse", "policy", "mean"} <= results["action"].keys()
    for name in (*results["strips"], *results["videos"]):
        assert (out / name).stat().st_size > 0 and name in (out / "index.html").read_text()
    assert imagine([*arguments, "--episode", "9"]) == 2
    assert "expected 0..1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("data=/nowhere", "data: .*/nowhere"),
        ("data={a: {path: /nowhere}}", "data.a: .*/nowhere"),
        ("on_error=skp", "on_error: .*'skp'"),
        ("normalizer.kind=minmx", "normalizer.kind=minmax"),
        ("latents=/nowhere", "/nowhere: .*encode"),
        ("no_ops=1", "no_ops: .*position"),
        ("optim.lr=-1", "optim.lr: .*-1"),
    ],
)
def test_mistakes_are_found_before_the_directory_is_touched(words, tmp_path, word, named):
    config = compose_config([*words, f"out={tmp_path / 'run'}", word])
    with pytest.raises(ValueError, match=named):
        build(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", [[], ["data="], ["data=", "out="], ["experiment=embedded"]])
def test_a_line_without_its_directories_is_answered_at_once(given):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "robotics.finetune", *given],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "add data=DIR out=DIR" in done.stderr
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_ctrl_c_before_training_is_one_line(monkeypatch, capsys):
    def interrupted(_words):
        raise KeyboardInterrupt

    monkeypatch.setattr("robotics.training.build.compose_config", interrupted)
    assert main(["data=a", "out=b"]) == 130
    assert capsys.readouterr().err.count("\n") == 1
