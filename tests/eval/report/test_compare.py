import json
import re

import pytest
from made_runs import episode, write

from eval.compare import build_parser, main
from eval.envs.simpler.cells import cells
from eval.results.comparison import compare
from eval.results.paired import describe, swap_test
from eval.results.runs import load_runs
from selfflow_wm.cli import exit_code
from selfflow_wm.intervals import paired_difference

A = {"move_near": "1100110000", "open_drawer": "1111100000"}
B = {"move_near": "1111110000", "open_drawer": "1111000011"}


@pytest.fixture
def two(tmp_path):
    return [write(tmp_path / "a", A), write(tmp_path / "b", B)]


def scopes(found, pair=0):
    return {scope["name"]: scope for scope in found["pairs"][pair]["scopes"]}


def test_pairs_are_counted_tested_and_pooled(two):
    found = compare(load_runs(two))
    rows = scopes(found)
    near = rows["move_near"]
    assert (near["both"], near["only_a"], near["only_b"], near["neither"]) == (4, 0, 2, 4)
    assert near["difference"] == pytest.approx(0.2)
    assert near["mcnemar_p"] == swap_test([1, 1]) == 0.5
    together = rows["all 20 pairs pooled"]
    assert (together["only_a"], together["only_b"]) == (1, 4)
    assert together["mcnemar_p"] == swap_test([-1, 1, 1, 1, 1])
    assert together["holm_p"] is None  # one pooled test
    assert near["holm_p"] == 1.0  # the smaller of two p values, doubled
    mean = rows["mean of 2 tasks"]
    assert mean["difference"] == pytest.approx((0.2 + 0.1) / 2)
    assert mean["mcnemar_p"] is None
    assert compare(load_runs(two))["pairs"] == found["pairs"]
    assert {(d["task"], d["start"]) for d in found["pairs"][0]["disagreements"]} == {
        ("move_near", "1000002"), ("move_near", "1000003"), ("open_drawer", "1000004"),
        ("open_drawer", "1000008"), ("open_drawer", "1000009"),
    }  # fmt: skip


def test_episodes_are_matched_by_seed_not_by_place(tmp_path):
    a = write(tmp_path / "a", {"move_near": "1010"})
    records = [episode("move_near", 3 - i, i in (1, 3)) for i in range(4)]
    b = write(tmp_path / "b", {"move_near": "0000"}, records=records)
    row = scopes(compare(load_runs([a, b])))["move_near"]
    assert (row["both"], row["neither"]) == (2, 2)


def test_other_metrics_count_other_flags(tmp_path):
    first = [episode("move_near", i, False, ever=i < 3, stages=[1, 1, 0, 0]) for i in range(4)]
    second = [episode("move_near", i, False, ever=False, stages=[1, 1, 1, 1]) for i in range(4)]
    runs = load_runs([
        write(tmp_path / "a", {"move_near": "0000"}, records=first),
        write(tmp_path / "b", {"move_near": "0000"}, records=second),
    ])  # fmt: skip
    assert scopes(compare(runs))["move_near"]["difference"] == 0
    assert scopes(compare(runs, "any_success"))["move_near"]["difference"] == -0.75
    assert scopes(compare(runs, "object_grasped"))["move_near"]["difference"] == 0.5
    with pytest.raises(ValueError, match="object_grasped"):
        compare(runs, "drawer_opened")


def test_means_of_the_drawers_count_them_as_one_row(tmp_path):
    words = {"open_drawer": "00000", "close_drawer": "11111", "move_near": "11111"}
    zeros = dict.fromkeys(words, "00000")
    runs = load_runs([write(tmp_path / "a", zeros), write(tmp_path / "b", words)])
    rows = scopes(compare(runs))
    assert rows["mean of 3 tasks"]["difference"] == pytest.approx(2 / 3)
    assert rows["mean of 2 rows (drawers as one)"]["difference"] == pytest.approx(0.75)


def test_all_pairs_of_three_runs_with_holm(tmp_path):
    words = {"low": "0" * 12, "mid": "1" * 6 + "0" * 6, "high": "1" * 12}
    runs = load_runs([write(tmp_path / name, {"move_near": w}) for name, w in words.items()])
    found = compare(runs)
    assert [(p["a"], p["b"]) for p in found["pairs"]] == [
        ("low", "mid"), ("low", "high"), ("mid", "high")
    ]  # fmt: skip
    p = [pair["scopes"][0]["mcnemar_p"] for pair in found["pairs"]]
    assert p == [2 / 2**6, 2 / 2**12, 2 / 2**6]
    adjusted = [pair["scopes"][0]["holm_p"] for pair in found["pairs"]]
    assert adjusted == pytest.approx([2 * p[0], 3 * p[1], 2 * p[0]])


def test_tasks_and_episodes_that_one_run_lacks_are_left_out_and_named(tmp_path):
    a = write(tmp_path / "a", {"move_near": "1100", "pick_coke_can": "11"})
    b = write(tmp_path / "b", {"move_near": "11"})
    found = compare(load_runs([a, b]))
    assert found["tasks"] == ["move_near"]
    assert scopes(found)["move_near"]["pairs"] == 2
    assert found["runs"][0]["tasks"]["move_near"]["rate"]["of"] == 4
    assert any("pick_coke_can" in note for note in found["notes"])
    assert any("2 unpaired episodes" in note for note in found["notes"])
    with pytest.raises(ValueError, match="expected tasks that all runs have"):
        compare(load_runs([a, b]), tasks=["pick_coke_can"])


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("simulator", {"simulator": "other"}),
        ("protocol", {"simulator": "embedded-mujoco", "protocol": "vm"}),
        ("incomplete", {"word": "11e0"}),
        ("incomplete", {"word": "110-"}),
    ],
)
def test_what_must_not_be_compared_is_refused_until_allowed(tmp_path, capsys, kind, change):
    word = change.pop("word", "1110")
    a = write(tmp_path / "a", {"move_near": "1100"})
    b = write(tmp_path / "b", {"move_near": word}, **change)
    arguments = [str(a), str(b), "--out", str(tmp_path / "out"), "--video", "0"]
    message = refused(arguments, capsys)
    assert message.startswith(f"error: {kind}: ")
    assert f"--allow {kind}" in message
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--allow", kind]) == 0
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert any(note.startswith(f"allowed ({kind})") for note in found["notes"])
    # Seeds of another simulator are other starts; a crashed or absent episode has no outcome.
    pairs = {"simulator": 0, "protocol": 4, "incomplete": 3}[kind]
    assert scopes(found)["move_near"]["pairs"] == pairs


def refused(arguments, capsys):
    assert exit_code(lambda: main(arguments)) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and ", got " in message
    return message


def test_the_same_seed_with_another_instruction_is_another_scene(tmp_path, capsys):
    a = write(tmp_path / "a", {"move_near": "11"})
    other = [episode("move_near", i, True, words="move can near sponge") for i in range(2)]
    b = write(tmp_path / "b", {"move_near": "11"}, records=other)
    assert "same start" in refused([str(a), str(b), "--out", str(tmp_path / "out")], capsys)


def test_bad_input_is_one_line_and_exit_code_2(two, tmp_path, capsys):
    a, b = map(str, two)
    empty = tmp_path / "empty"
    empty.mkdir()
    elsewhere = [episode("move_near", i, True, seed=2_000_000 + i) for i in range(2)]
    c = write(tmp_path / "c", {"move_near": "11"}, records=elsewhere)
    stored = json.loads((c / "results.json").read_text())
    stored["seeds"]["move_near"] = [2_000_000, 2_000_001]
    (c / "results.json").write_text(json.dumps(stored))
    for arguments, words in [
        ([a], "at least two"),
        ([a, a], "different directories"),
        ([a, str(empty)], "results.json"),
        ([a, str(c)], "none in common"),
        ([a, b, "--allow", "everything"], "allow: expected"),
        ([a, b, "--metric", "luck"], "metric: expected success"),
        ([a, b, "--task", "tidy_up"], "task: expected"),
        ([a, b, "--against-real", "rt-1-x"], "against-real: expected 2"),
        ([a, b, "--against-real", "rt-1-x,octo-base", "--metric", "any_success"], "metric success"),
        ([a, b, "--out", str(two[0] / "results.json")], "out: expected a directory"),
    ]:
        out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
        assert words in refused([*arguments, *out], capsys)
    assert not (tmp_path / "out").exists()
    stored["schema_version"] = 99
    (c / "results.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="schema version 1, got 99"):
        load_runs([two[0], c])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("results.json", '{"schema_version": 1}'),
        ("results.json", "[]"),
        ("results.json", "{"),
        ("episodes.jsonl", '{"task": "move_near", "seed": 1000000}\n'),
        ("episodes.jsonl", '{"task": "move_near", "seed": 1, "status": "success", "index": 0}\n'),
        ("episodes.jsonl", "[1]\n"),
    ],
)
def test_a_damaged_run_is_named(two, tmp_path, capsys, file, text):
    (two[1] / file).write_text(text)
    words = [str(two[0]), str(two[1]), "--out", str(tmp_path / "out")]
    assert f"b/{file}: expected" in refused(words, capsys)


def test_a_place_that_cannot_be_written_is_one_line(two, tmp_path, capsys):
    place = tmp_path / "file"
    place.write_text("")
    words = [str(two[0]), str(two[1]), "--out", str(place / "below")]
    assert exit_code(lambda: main(words)) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: out: expected a directory") and shown.count("\n") == 1

    def bug() -> int:
        raise FileNotFoundError(2, "No such file")

    with pytest.raises(FileNotFoundError):  # whose fault it is nobody knows: with its traceback
        exit_code(bug)


def test_a_share_is_no_whole_run(two, tmp_path, capsys):
    stored = json.loads((two[1] / "results.json").read_text())
    (two[1] / "results.json").write_text(json.dumps(stored | {"shard": "1/2"}))
    words = [*map(str, two), "--out", str(tmp_path / "out")]
    assert "got b, share 1/2 of one (python -m eval.merge" in refused(words, capsys)
    assert main([*words, "--allow", "incomplete"]) == 0


def test_labels_are_the_shortest_that_differ(tmp_path):
    runs = [write(tmp_path / x / "eval", {"move_near": "10"}) for x in ("a", "b")]
    assert [run.label for run in load_runs(runs)] == ["a/eval", "b/eval"]


def simpler_run(path, task, wins, protocol="vm", **more):
    grid = cells(task, protocol)
    records = [
        episode(task, i, won, seed=i, cell=cell.name)
        for i, (cell, won) in enumerate(zip(grid, wins(grid), strict=True))
    ]
    return write(path, {task: ""}, records=records, simulator="simpler-rasterised",
                 protocol=protocol, **more)  # fmt: skip


def test_cells_of_simpler_are_pairs_and_variants_are_averaged(tmp_path):
    task = "open_drawer_place"
    a = simpler_run(tmp_path / "a", task, lambda grid: [False] * len(grid))
    b = simpler_run(tmp_path / "b", task, lambda grid: [c.variant == "plain" for c in grid])
    rows = scopes(compare(load_runs([a, b])))
    assert rows[task]["only_b"] == 27
    assert rows["mean of 4 variants"]["difference"] == pytest.approx(0.25)
    few = simpler_run(tmp_path / "few", task, lambda grid: [True] * len(grid), "12")
    rows = scopes(compare(load_runs([a, few]), allowed=["protocol"]))
    assert rows[task]["pairs"] == 12  # the same cells by name, whatever their number


def test_repeated_cells_are_down_weighted_to_their_effective_sample_size(tmp_path):
    task, first = "open_drawer_place", [True] * 7 + [False] * 7
    a = simpler_run(tmp_path / "a", task, lambda grid: first, "paper")
    b = simpler_run(tmp_path / "b", task, lambda grid: [True] * len(grid), "paper")
    none = simpler_run(tmp_path / "none", task, lambda grid: [False] * len(grid), "paper")
    found = compare(load_runs([a, b]))
    assert found["notes"] == [f"a/b: {task}: 14 pairs of 7 cells, effective sample size 14"]
    assert scopes(found)[task]["mcnemar_p"] == swap_test([1] * 7)
    rate = found["runs"][0]["tasks"][task]["rate"]
    assert rate["of"] == 14 and 7 <= rate["independent"] < 14.5
    # Both turns of every cell tell the same of these two: seven cells, not fourteen.
    found = compare(load_runs([none, b]))
    row = scopes(found)[task]
    assert (row["starts"], row["independent"]) == (7, 7)
    assert row["mcnemar_p"] == swap_test([2] * 7) == 2 / 2**7
    assert row["interval"]["low"] == pytest.approx(paired_difference(7, 0, 7)[0])


def test_other_stand_ins_are_noted(tmp_path):
    paths = []
    for name, lacking in (("a", []), ("b", ["stage table"])):
        rows = [{**episode("move_near", i, True), "stand_ins": lacking} for i in range(2)]
        paths.append(write(tmp_path / name, {"move_near": "11"}, records=rows))
    (note,) = compare(load_runs(paths))["notes"]
    assert "none in a, stage table in b" in note


def test_starts_drawn_from_seeds_are_pairs_without_variants(tmp_path):
    task, paths = "move_near", []
    for name, won in (("a", False), ("b", True)):
        records = [episode(task, i, won, seed=i, cell=f"seed {i}: beside it") for i in range(3)]
        paths.append(write(tmp_path / name, {task: ""}, records=records, protocol="train",
                           simulator="simpler-rasterised"))  # fmt: skip
    assert list(scopes(compare(load_runs(paths)))) == [task]


def test_the_mean_without_open_and_place_is_of_the_other_rows(tmp_path):
    words = {"pick_coke_can": "1", "move_near": "0", "open_drawer": "1", "close_drawer": "1"}
    paths = [
        write(tmp_path / name, {**dict.fromkeys(words, "00000"), "open_drawer_place": "11111"}
              if name == "a" else {**{k: w * 5 for k, w in words.items()},
                                   "open_drawer_place": "00000"})
        for name in "ab"
    ]  # fmt: skip
    found = compare(load_runs(paths))
    rows = {scope["scope"]: scope for scope in found["pairs"][0]["scopes"]}
    assert rows["simpler_rows"]["difference"] == pytest.approx((1 + 0 + 1 - 1) / 4)
    assert rows["without_place"]["difference"] == pytest.approx(2 / 3)
    assert rows["without_place"]["pairs"] == 20
    assert found["runs"][1]["means"]["without_place"]["rate"] == pytest.approx(2 / 3)


def test_checkpoints_of_one_training_make_a_curve(tmp_path):
    training = {"objective": "SelfFlow", "run": "runs/sf", "seed": 0, "data": "d"}
    paths = [
        write(tmp_path / f"{name}{step}", {"move_near": word},
              training={**training, "step": step, "id": name})
        for step, word, name in [(2000, "1110", "x"), (1000, "1000", "x"), (1000, "0000", "y")]
    ]  # fmt: skip
    (curve,) = compare(load_runs(paths))["curves"]
    assert [(p["step"], p["pooled"]["count"]) for p in curve["points"]] == [(1000, 1), (2000, 3)]
    assert curve["objective"] == "SelfFlow"


def test_the_real_robot_is_asked_for_by_name(tmp_path, capsys):
    rates = {"x": 0.3, "y": 0.9}
    paths = [
        simpler_run(
            tmp_path / name, "pick_coke_can", lambda grid, r=r: [i < r * 300 for i in range(300)]
        )
        for name, r in rates.items()
    ]
    out = tmp_path / "out"
    words = [*map(str, paths), "--out", str(out), "--against-real", "rt-1-x,octo-base"]
    assert main(words) == 0
    (row,) = json.loads((out / "compare.json").read_text())["real"]
    assert row["simulated"] == [0.3, 0.9]
    assert row["real"] == [0.760, 0.293]
    assert row["mmrv"] == pytest.approx(0.467)
    assert row["pearson"] == pytest.approx(-1.0)
    assert "MMRV" in capsys.readouterr().out


def test_the_page_stands_alone_shows_videos_and_escapes(tmp_path, capsys):
    paths = []
    for name, word in (("a", "10"), ("b", "01")):
        records = [
            episode("move_near", i, c == "1", video=f"videos/move_near-{i}.mp4")
            for i, c in enumerate(word)
        ]
        path = write(tmp_path / name, {"move_near": word}, records=records, kind="<b>kind</b>")
        (path / "videos").mkdir()
        (path / "videos" / "move_near-0.mp4").write_bytes(b"video of " + name.encode())
        paths.append(path)
    (paths[1] / "videos" / "move_near-1.mp4").write_bytes(b"video")
    out = tmp_path / "out"
    words = [*map(str, paths), "--out", str(out)]
    assert main(words) == 0
    page = (out / "compare.html").read_text()
    assert page.count("data:video/mp4;base64,") == 3
    assert page.count("no video") == 1
    assert "--video-of" not in page  # each run names a video of each start
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "<b>kind</b>" not in page and "&lt;b&gt;kind" in page
    assert "b minus a" in page and "data:image/png" in page
    shown = capsys.readouterr().out
    for text in ("rates", "alone a:b", "1:1", "paired episodes for 80% power", "stages reached"):
        assert text in shown
    assert main([*words, "--video", "1"]) == 0
    assert (out / "compare.html").read_text().count("data:video/mp4;base64,") == 2
    assert {path.name for path in out.iterdir()} == {"compare.json", "compare.html"}


def test_missing_videos_are_asked_for_by_number(two, tmp_path, capsys):
    words = [*map(str, two), "--out", str(tmp_path / "out"), "--task", "open_drawer"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    # Episode 4 is the first run's alone, 8 and 9 are the second's.
    for label in "ab":
        assert f"{label} has no video" in shown
    assert shown.count("--video-of 1000004,1000008,1000009") == 2
    assert "--video-of 1000004,1000008,1000009" in (tmp_path / "out" / "compare.html").read_text()
    assert main([*words, "--video", "1"]) == 0
    assert capsys.readouterr().out.count("--video-of 1000004, then") == 2
    assert main([*words, "--video", "0"]) == 0
    assert "--video-of" not in capsys.readouterr().out


def test_numbers_of_a_scope_are_those_of_its_counts(two):
    row = scopes(compare(load_runs(two)))["open_drawer"]
    from eval.results.paired import Counts

    expected = describe(Counts(both=4, only_a=1, only_b=2, neither=3))
    assert {key: row[key] for key in expected} == expected


def test_help_names_what_there_is():
    text = build_parser().format_help()
    for word in ("--allow", "incomplete", "--metric", "--against-real", "rt-1-converged"):
        assert word in text
