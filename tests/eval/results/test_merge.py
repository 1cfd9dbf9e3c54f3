"""Shares of an evaluation and what they come to together."""

import json
import re

import pytest
from eval_runs import lines, run_here, without_times, words

from eval.merge import main
from eval.results.merge import merge_runs
from eval.results.records import parse_shard, share
from eval.simpler import main as simpler

BOTH = "open_drawer_place,move_near"


def run_share(out, number, of=2, *more, **changes):
    return run_here(words(out, "--shard", f"{number}/{of}", *more, **changes))


def rates(out):
    found = json.loads((out / "results.json").read_text())
    return {task: summary["success_last_step"] for task, summary in found["tasks"].items()}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_shares_are_disjoint_cover_everything_and_do_not_move(count):
    few = {task: list(range(10, 15)) for task in "abc"}
    many = {task: list(range(10, 19)) for task in "abc"}
    seen = []
    for number in range(1, count + 1):
        part = share(few, (number, count))
        seen += [(task, seed) for task, found in part.items() for _, seed in found]
        more = share(many, (number, count))
        assert all(set(part[task]) <= set(more[task]) for task in "abc")
    assert sorted(seen) == [(task, seed) for task in "abc" for seed in range(10, 15)]
    assert share(few, None)["b"] == list(enumerate(range(10, 15)))


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_shares_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match=re.escape(repr(text))) as caught:
        parse_shard(text)
    remedy = re.search(r"write (\d+/\d+)", str(caught.value))
    assert remedy and parse_shard(remedy[1])


def test_merged_shares_equal_the_undivided_run(tmp_path):
    whole, merged, parts = tmp_path / "whole", tmp_path / "all", [tmp_path / "a", tmp_path / "b"]
    assert simpler(words(whole)) == 0
    for number, part in enumerate(parts, start=1):
        run_share(part, number, 2, "--video", "1")
    assert {len(lines(part)) for part in parts} == {6}
    assert main([str(merged), *map(str, parts)]) == 0
    videos = {f"{task}-1000000.mp4" for task in BOTH.split(",")}
    assert {path.name for path in (merged / "videos").iterdir()} == videos
    found = without_times(lines(merged))
    assert {k: {**r, "video": None} for k, r in found.items()} == without_times(lines(whole))
    assert rates(merged) == rates(whole)
    results = json.loads((merged / "results.json").read_text())
    assert results["complete"] and results["shard"] is None
    assert "--shard 2/2" in results["command"] or results["command"].count("\n") == 1
    assert (merged / "report.html").is_file()
    ran = []
    run_here(words(merged), ran.append)  # a run like any other, with nothing left to do
    assert ran == []


def test_a_merge_of_unfinished_shares_says_so_and_can_be_continued(tmp_path, capsys):
    part, merged = tmp_path / "a", tmp_path / "all"
    run_share(part, 1, backend="make_crashing")
    assert main([str(merged), str(part)]) == 1
    shown = capsys.readouterr().out
    assert "6 episodes are missing" in shown and "error in" in shown
    assert not json.loads((merged / "results.json").read_text())["complete"]
    ran = []
    run_here(words(merged, backend="make_crashing"), ran.append)
    errors = [r for r in lines(part) if r["status"] == "error"]
    assert len(errors) == 1 and len(ran) == 6 + len(errors)


def test_what_does_not_belong_together_is_refused_and_nothing_is_left(tmp_path):
    one, two, other, whole = (tmp_path / name for name in ("one", "two", "other", "whole"))
    run_share(one, 1)
    run_share(two, 2)
    run_share(other, 2, 2, "--episodes", "7")
    run_here(words(whole))
    out = tmp_path / "out"
    for paths, complaint in (
        ([one, one], "every episode once"),
        ([one, two, whole], "every episode once"),
        ([one, other], "one configuration, got seeds="),
        ([one, tmp_path / "nowhere"], "directory of a run"),
    ):
        with pytest.raises(ValueError, match=complaint):
            merge_runs(out, paths, "command")
    run_share(tmp_path / "random", 2, policy="random")
    with pytest.raises(ValueError, match="got policy="):
        merge_runs(out, [one, tmp_path / "random"], "command")
    assert not out.exists()
    with pytest.raises(ValueError, match="new or empty"):
        merge_runs(whole, [one, two], "command")
    with pytest.raises(ValueError, match='shard="1/2"'):
        run_share(one, 2)


def test_out_given_as_a_flag_is_answered_with_the_command():
    for flag in (["--out", "X"], ["--out=X"]):
        with pytest.raises(ValueError, match="write python -m eval.merge X a b$"):
            main([*flag, "a", "b"])


@pytest.mark.parametrize("name", ["run.json", "plan.json"])
@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_share_is_named(tmp_path, name, text):
    part = tmp_path / "a"
    run_share(part, 1)
    (part / name).write_text(text)
    with pytest.raises(ValueError, match=f"a/{name}: expected.*; "):
        merge_runs(tmp_path / "out", [part], "command")
    if name == "run.json":
        with pytest.raises(ValueError, match=f"a/{name}: expected.*; "):
            run_share(part, 1)


def test_a_video_that_is_gone_is_left_out(tmp_path):
    part = tmp_path / "a"
    run_share(part, 1, 1, "--video", "1", task="move_near")
    for video in (part / "videos").iterdir():
        video.unlink()
    assert main([str(tmp_path / "all"), str(part)]) == 0
    assert not any(record["video"] for record in lines(tmp_path / "all"))
