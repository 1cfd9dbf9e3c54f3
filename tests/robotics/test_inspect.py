"""The doctor of data sets: what it finds in made-up ones that are wrong in one known way."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from omegaconf import OmegaConf
from scipy.spatial.transform import Rotation

from robotics.data.images import encode_image
from robotics.data.rlds.fake import fake_dataset, write_dataset
from robotics.data.rlds.spec import load_spec
from robotics.data.windows import WindowDataset
from robotics.inspect import main
from robotics.inspection.doctor import examine
from selfflow_wm.cli import exit_code

EPISODES, STEPS = 14, 30
TURNS = {"euler_xyz": lambda a: Rotation.from_euler("xyz", a), "axis_angle": Rotation.from_rotvec}
SPEC = {
    "control_hz": 5,
    "cameras": {"front": "observation/rgb"},
    "instruction": "task",
    "action": {
        "position": "action[0:3]",
        "rotation": "action[3:6]",
        "gripper": "action[6]",
    },
    "proprio": {
        "position": "state[0:3]",
        "rotation": "state[3:7]",
        "rotation_kind": "quaternion_xyzw",
        "gripper": "state[7]",
    },
    "is_terminal": "is_terminal",
}


def features():
    f = tfds.features
    steps = {
        "action": f.Tensor(shape=(7,), dtype=np.float32),
        "state": f.Tensor(shape=(8,), dtype=np.float32),
        "observation": {"rgb": f.Image(shape=(24, 32, 3), encoding_format="jpeg")},
        "task": f.Text(),
        "is_first": np.bool_,
        "is_last": np.bool_,
        "is_terminal": np.bool_,
    }
    return f.FeaturesDict({"steps": f.Dataset(steps)})


def demonstration(seed, turn="euler_xyz", absolute=False, frame="base"):
    """A robot that does what it is told, with a little noise: rows of steps."""
    rng = np.random.default_rng(seed)
    x, r, closed, command = rng.normal(0, 0.3, 3), Rotation.random(rng=rng), 0.0, -1.0
    rows = []
    for t in range(STEPS):
        if t % 6 == 5:
            command = -command
        move, angles = rng.normal(0, 0.03, 3), rng.uniform(-0.7, 0.7, 3)
        rotation = TURNS[turn](angles)
        state = np.concatenate([x, r.as_quat(), [closed]])
        reached = rotation * r if frame == "base" else r * rotation
        target = x + (move if frame == "base" else r.apply(move))
        values = target if absolute else move
        if absolute:
            angles = reached.as_euler("xyz") if turn == "euler_xyz" else reached.as_rotvec()
        rows.append(
            {
                "action": np.concatenate([values, angles, [command]]).astype(np.float32),
                "state": state.astype(np.float32),
                "observation": {"rgb": encode_image(rng.integers(0, 255, (24, 32, 3), np.uint8))},
                "task": ("push", "pull")[seed % 2],
                "is_first": t == 0,
                "is_last": t == STEPS - 1,
                "is_terminal": t == STEPS - 1,
            }
        )
        x = target + rng.normal(0, 0.002, 3)
        r = Rotation.from_rotvec(rng.normal(0, 0.02, 3)) * reached
        closed += 0.8 * ((command > 0) - closed)
    return rows


def written(directory, edit=lambda rows, seed: None, **options):
    """A data set of `EPISODES` demonstrations, each changed by `edit`."""
    examples = []
    for seed in range(EPISODES):
        rows = demonstration(seed, **options)
        edit(rows, seed)
        examples.append({"steps": rows})
    return write_dataset(directory, features(), examples, shard_episodes=5)


def spec_file(directory, **groups):
    content = {key: SPEC[key] | groups[key] if key in groups else SPEC[key] for key in SPEC}
    path = directory / "mine.yaml"
    OmegaConf.save(OmegaConf.create(content), path)
    return str(path)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return written(tmp_path_factory.mktemp("clean") / "data")


def texts(examined, severity):
    return [row.text for row in examined.findings if row.severity == severity]


def answers(examined):
    return {f"{row.topic}: {row.question}": row.answer for row in examined.verdicts}


# ---------------------------------------------------------------- conventions


def test_a_clean_set_has_no_errors_and_every_convention_agrees(clean, tmp_path):
    examined = examine(clean, spec=spec_file(tmp_path))
    assert texts(examined, "error") == texts(examined, "warning") == []
    assert set(answers(examined).values()) == {"agrees"} and len(answers(examined)) == 7
    assert (examined.result.episodes, examined.result.steps) == (EPISODES, EPISODES * STEPS)
    stated = examined.motions[0].stated
    assert stated.lag == 0 and stated.gain == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("group", ["action", "proprio"])
def test_a_turned_gripper_is_an_error_and_the_proposal_turns_it_back(clean, tmp_path, group):
    spec = spec_file(tmp_path, **{group: SPEC[group] | {"gripper_closes": "negative"}})
    examined = examine(clean, spec=spec)
    assert answers(examined)["gripper: sense of the gripper"] == "contradicts"
    (error,) = texts(examined, "error")
    assert "went against" in error
    (tmp_path / "proposed.yaml").write_text(examined.proposed)
    again = examine(clean, spec=str(tmp_path / "proposed.yaml"))
    assert texts(again, "error") == []
    assert getattr(again.spec, group).gripper_closes == "positive"


@pytest.mark.parametrize("stored", ["euler_xyz", "axis_angle"])
def test_the_kind_of_large_rotations_is_told(tmp_path, stored):
    written(tmp_path / "data", turn=stored)
    for stated in TURNS:
        examined = examine(
            tmp_path / "data", spec=spec_file(tmp_path, action={"rotation_kind": stated})
        )
        answer = answers(examined)["rotation: kind of the commanded rotation"]
        assert answer == ("agrees" if stated == stored else "contradicts")
        if stated != stored:
            assert f'"rotation_kind": "{stored}"' in json.dumps(
                OmegaConf.to_container(OmegaConf.create(examined.proposed))
            )


def test_small_rotations_do_not_tell_their_kind(tmp_path):
    def small(rows, seed):
        r = Rotation.from_quat(rows[0]["state"][3:7])
        for row in rows:
            row["state"][3:7] = r.as_quat()
            row["action"][3:6] *= 0.01
            r = Rotation.from_euler("xyz", row["action"][3:6]) * r

    examined = examine(written(tmp_path / "data", small), spec=spec_file(tmp_path))
    assert texts(examined, "error") == []
    noisy = {**SPEC["action"], "rotation_kind": "axis_angle"}
    examined = examine(tmp_path / "data", spec=spec_file(tmp_path, action=noisy))
    spread = next(row.spread for row in examined.motions if row.name == "rotation")
    assert 0 < spread < 1e-4


def test_absolute_targets_and_tool_frames_are_told(tmp_path):
    written(tmp_path / "absolute", absolute=True)
    examined = examine(tmp_path / "absolute", spec=spec_file(tmp_path))
    assert answers(examined)["translation: delta or absolute"] == "contradicts"
    assert answers(examined)["rotation: delta or absolute"] == "contradicts"
    (tmp_path / "proposed.yaml").write_text(examined.proposed)
    assert (
        texts(examine(tmp_path / "absolute", spec=str(tmp_path / "proposed.yaml")), "error") == []
    )
    written(tmp_path / "tool", frame="tool")
    examined = examine(tmp_path / "tool", spec=spec_file(tmp_path))
    assert answers(examined)["translation: base or tool frame"] == "contradicts"
    assert answers(examined)["rotation: base or tool frame"] == "contradicts"


def test_units_and_swapped_axes(tmp_path):
    def scaled(rows, seed):
        for row in rows:
            row["action"][:3] *= 20

    examined = examine(written(tmp_path / "a", scaled), spec=spec_file(tmp_path))
    assert examined.motions[0].stated.gain == pytest.approx(0.05, rel=0.02)
    assert any("a commanded m moves the tool by 0.0" in t for t in texts(examined, "warning"))

    def swapped(rows, seed):
        for row in rows:
            row["action"][:3] = row["action"][[1, 0, 2]]

    examined = examine(written(tmp_path / "b", swapped), spec=spec_file(tmp_path))
    motion = examined.motions[0]
    np.testing.assert_allclose(motion.matrix, [[0, 1, 0], [1, 0, 0], [0, 0, 1]], atol=0.05)
    assert motion.matrix_explains > 0.9 > motion.stated.explained


# ---------------------------------------------------------------- values and records


def constant(rows, seed):
    for row in rows:
        row["state"][2] = 0.25


def empty(rows, seed):
    for row in rows:
        row["task"] = "" if seed == 3 else row["task"]


def padded(rows, seed):
    rows[-1]["observation"] = rows[-2]["observation"]
    rows[-1]["action"] = np.append(np.zeros(6), rows[-2]["action"][6]).astype(np.float32)


def outlier(rows, seed):
    if seed == 2:
        rows[4]["action"][1] = 5.0


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (constant, r"proprio.position: constant [2] = 0.25"),
        (empty, f"1 of {EPISODES} episodes have an empty instruction"),
        (padded, f"a copy of the one before in {EPISODES} of {EPISODES}"),
        (outlier, "worst 5 in made_up-train.tfrecord-00000-of-00003, record 2"),
    ],
)
def test_habits_of_the_data_are_warned_of(tmp_path, edit, message):
    examined = examine(written(tmp_path / "data", edit), spec=spec_file(tmp_path))
    (warning,) = (text for text in texts(examined, "warning") if message in text)
    assert all(row.remedy for row in examined.findings if row.text == warning)
    assert texts(examined, "error") == []


def run(*words):
    return exit_code(lambda: main([str(word) for word in words]))


def test_damage_names_file_and_record_and_exits_with_1(tmp_path, capsys):
    data, spec = written(tmp_path / "data"), spec_file(tmp_path)
    path = sorted(data.glob("made_up*"))[1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert run(data, "--spec", spec, "--out", tmp_path / "out") == 1
    found = json.loads((tmp_path / "out" / "inspection.json").read_text())
    (fault,) = found["faults"]
    assert fault["path"] == str(path) and "checksum" in fault["reason"]
    assert found["episodes"]["read"] == EPISODES - 1
    assert "1 error," in capsys.readouterr().out
    page = (tmp_path / "out" / "index.html").read_text()
    assert path.name in page and "checksum of the data does not match" in page


def test_text_that_is_not_utf8_is_an_error(tmp_path):
    def damaged(rows, seed):
        if seed == 5:
            rows[3]["task"] = b"\xff\xfe"

    examined = examine(written(tmp_path / "data", damaged), spec=spec_file(tmp_path))
    assert any(
        "1 episodes have text that is not UTF-8" in text for text in texts(examined, "error")
    )
    assert examined.result.episodes == EPISODES - 1


# ---------------------------------------------------------------- proposals


@pytest.mark.parametrize("absolute", [False, True])
def test_a_proposal_for_an_unknown_schema_reads_windows(tmp_path, absolute):
    def turned(rows, seed):
        for row in rows:
            row["state"][7] = 1 - row["state"][7]  # 1 is open

    data = written(tmp_path / "data", turned, absolute=absolute, turn="axis_angle")
    assert run(data, "--out", tmp_path / "out") == 0
    spec = load_spec(tmp_path / "out" / "proposed.yaml")
    assert (spec.image, spec.instruction) == ("observation/rgb", "task")
    assert spec.action.kind == ("absolute" if absolute else "delta")
    assert (spec.action.position, spec.action.gripper) == ("action[0:3]", "action[6]")
    assert spec.action.rotation_kind == "axis_angle"
    assert (spec.proprio.position, spec.proprio.rotation) == ("state[0:3]", "state[3:7]")
    assert spec.proprio.rotation_kind == "quaternion_xyzw"
    assert (spec.proprio.gripper_closes, spec.action.gripper_closes) == ("negative", "positive")
    assert "# guessed: " in (tmp_path / "out" / "proposed.yaml").read_text()
    windows = WindowDataset(data, (24, 32), spec=tmp_path / "out" / "proposed.yaml", progress=False)
    assert len(windows) == EPISODES * STEPS and windows.faults.episodes == 0
    truth = demonstration(0, turn="axis_angle")
    np.testing.assert_allclose(windows.actions[0, :3], truth[0]["action"][:3], atol=1e-5)


def test_rt1_is_recognised_and_its_proposal_extends_it(tmp_path):
    data = fake_dataset(tmp_path / "data", (12, 9, 15))
    examined = examine(data)
    assert "rt1" in examined.origin and texts(examined, "error") == []
    (tmp_path / "p.yaml").write_text(examined.proposed)
    assert load_spec(tmp_path / "p.yaml").fingerprint() == load_spec("rt1").fingerprint()


# ---------------------------------------------------------------- the command


def test_a_sample_is_the_same_in_every_run_and_nested(clean, tmp_path):
    spec = spec_file(tmp_path)
    few, again, more = (examine(clean, spec=spec, episodes=n) for n in (4, 4, 8))
    names = [[track.name for track in one.result.tracks] for one in (few, again, more)]
    assert names[0] == names[1] == names[2][:4] and len(set(names[2])) == 8
    assert few.sample.startswith(f"4 of {EPISODES} episodes (drawn with a fixed seed")
    assert examine(clean, "train[:3]", spec=spec).result.episodes == 3


def test_misuse_exits_with_2_and_one_line(clean, tmp_path, capsys):
    for words in (
        [tmp_path / "nowhere"],
        [clean, "--split", "test"],
        [clean, "--spec", "no_such"],
        [clean, "--spec", "bridge"],
    ):
        assert run(*words, "--out", tmp_path / "out") == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0 and "examples:" in capsys.readouterr().out


def test_the_page_needs_no_other_file(clean, tmp_path):
    assert run(clean, "--spec", spec_file(tmp_path), "--out", tmp_path / "out") == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("data:image/png;base64,") >= 9
    assert "http" not in page and 'src="data:' in page
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "index.html", "inspection.json", "proposed.yaml",
    ]  # fmt: skip
