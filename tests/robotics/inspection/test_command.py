"""`python -m robotics.inspect`: files, exit codes, samples and damage."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from omegaconf import OmegaConf
from recorded_worlds import arm, deltas, pose
from scipy.spatial.transform import Rotation

from robotics.data.images import encode_image
from robotics.data.rlds.fake import fake_dataset, write_dataset
from robotics.data.windows import WindowDataset
from robotics.embodiment.tables import load_robot
from robotics.inspect import main
from robotics.inspection.doctor import examine
from selfflow_wm.cli import exit_code

EPISODES, STEPS = 14, 30


def features():
    f = tfds.features
    steps = {
        "action": f.Tensor(shape=(7,), dtype=np.float32),
        "state": f.Tensor(shape=(7,), dtype=np.float32),
        "observation": {"rgb": f.Image(shape=(24, 32, 3), encoding_format="jpeg")},
        "task": f.Text(),
        "is_first": np.bool_,
        "is_last": np.bool_,
    }
    return f.FeaturesDict({"steps": f.Dataset(steps)})


def written(directory, edit=lambda rows, seed: None):
    """A data set of `EPISODES` demonstrations, each changed by `edit`."""
    examples = []
    for seed in range(EPISODES):
        a = arm(seed, STEPS, rest=Rotation.identity())
        rng = np.random.default_rng(seed)
        state = np.column_stack([pose(a), a.closed[:-1]]).astype(np.float32)
        rows = [
            {
                "action": row.astype(np.float32),
                "state": state[t],
                "observation": {"rgb": encode_image(rng.integers(0, 255, (24, 32, 3), np.uint8))},
                "task": ("push", "pull")[seed % 2],
                "is_first": t == 0,
                "is_last": t == STEPS - 1,
            }
            for t, row in enumerate(deltas(a))
        ]
        edit(rows, seed)
        examples.append({"steps": rows})
    return write_dataset(directory, features(), examples, shard_episodes=5)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return written(tmp_path_factory.mktemp("clean") / "data")


def run(*words):
    return exit_code(lambda: main([str(word) for word in words]))


def test_a_draft_trains_on_what_was_recorded(clean, tmp_path, capsys):
    assert run(clean, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out.startswith("OK: ")
    proposed = tmp_path / "out" / "proposed.yaml"
    windows = WindowDataset(clean, (24, 32), spec=proposed, progress=False)
    assert len(windows) == EPISODES * STEPS and windows.robot.state_width == 7
    assert windows.robot.name == "made_up"  # the data set's, so that two drafts are two robots
    truth = deltas(arm(0, STEPS, rest=Rotation.identity()))
    np.testing.assert_allclose(windows.recorded_action[:STEPS], truth, atol=1e-5)
    assert run(clean, "--spec", proposed, "--out", tmp_path / "again") == 0


def test_json_is_what_inspection_json_holds(clean, tmp_path, capsys):
    assert run(clean, "--json", "--out", tmp_path / "out") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert shown["verdict"] == "ok" and shown["episodes"]["read"] == EPISODES
    values = {row["path"]: row["what"] for row in shown["dimensions"]}
    assert values["action[3:6]"].startswith("action.rotation: rotation euler_xyz, delta, rad")


def test_an_open_question_exits_with_2_and_names_the_lines(tmp_path, capsys):
    def targets(rows, seed):
        a = arm(seed, STEPS)
        for t, row in enumerate(rows):
            row["state"] = np.append(a.q[t, :6], a.closed[t]).astype(np.float32)
            row["action"] = np.append(a.q[t + 1, :6], a.close[t]).astype(np.float32)

    data = written(tmp_path / "data", targets)
    assert run(data, "--out", tmp_path / "out") == 2
    shown = capsys.readouterr().out
    assert shown.startswith("UNDETERMINED") and "kind: joints" in shown
    found = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert found["verdict"] == "undetermined" and found["questions"][0]["code"] == "arm"
    answered = OmegaConf.load(tmp_path / "out" / "proposed.yaml")
    assert answered.action.joints.kind == "joints"
    assert run(data, "--spec", tmp_path / "out" / "proposed.yaml", "--out", tmp_path / "b") == 0


def test_damage_names_file_and_record_and_exits_with_1(tmp_path, capsys):
    data = written(tmp_path / "data")
    path = sorted(data.glob("made_up*"))[1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert run(data, "--out", tmp_path / "out") == 1
    found = json.loads((tmp_path / "out" / "inspection.json").read_text())
    (fault,) = found["faults"]
    assert fault["path"] == str(path) and "checksum" in fault["reason"]
    assert found["episodes"]["read"] == EPISODES - 1 and found["verdict"] == "wrong"
    assert capsys.readouterr().out.startswith("WRONG: ")


def test_a_picture_that_does_not_decode_is_damage(tmp_path):
    def broken(rows, seed):
        if seed == 2:
            rows[7]["observation"]["rgb"] = rows[7]["observation"]["rgb"][:200]

    examined = examine(written(tmp_path / "data", broken))
    assert any("step 7: undecodable" in row.text for row in examined.findings)
    assert examined.result.episodes == EPISODES - 1


def test_rt1_is_recognised_and_its_proposal_extends_it(tmp_path):
    examined = examine(fake_dataset(tmp_path / "data", (12, 9, 15)))
    assert "rt1" in examined.origin and examined.count("error") == 0
    (tmp_path / "p.yaml").write_text(examined.proposed)
    assert load_robot(tmp_path / "p.yaml").fingerprint() == load_robot("rt1").fingerprint()


def test_a_sample_is_the_same_in_every_run_and_nested(clean):
    few, again, more = (examine(clean, episodes=n) for n in (4, 4, 8))
    names = [[track.number for track in one.result.tracks] for one in (few, again, more)]
    assert names[0] == names[1] == names[2][:4] and len(set(names[2])) == 8
    assert few.sample.startswith(f"4 of {EPISODES} episodes (drawn with a fixed seed")
    assert examine(clean, "train[:3]").result.episodes == 3


def test_misuse_exits_with_2_and_one_line(clean, tmp_path, capsys):
    for words in (
        [tmp_path / "nowhere"],
        [clean, "--split", "test"],
        [clean, "--spec", "no_such"],
        [clean, "--spec", "bridge_dataset"],
    ):
        assert run(*words, "--out", tmp_path / "out") == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0 and "examples:" in capsys.readouterr().out


def test_the_page_needs_no_other_file(clean, tmp_path):
    assert run(clean, "--out", tmp_path / "out") == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("data:image/png;base64,") >= 5
    assert "http" not in page and 'src="data:' in page
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"index.html", "inspection.json", "proposed.yaml"} <= names
