"""The page of an examination: what it says first, what it plays, and that its lines work."""

import base64
import shlex

import imageio.v3 as iio
import numpy as np
import pytest
import yaml

from benchmarks.robots import faults as battery
from benchmarks.robots.sets import clean, robots, stored
from robotics.data.__main__ import main as data_main
from robotics.inspect import main
from robotics.inspection.doctor import examine
from robotics.inspection.players import CONTROLS, player, players, within_budget
from robotics.inspection.survey import joined, odd


def spoilt(*names):
    robot = robots()["deltas"]
    raws = list(clean("deltas"))
    for name in names:
        fault = next(row for row in battery.FAULTS if row.name == name)
        found = battery.faulty(fault)
        for number in fault.episodes:
            raws[number] = found[number]
    return robot, raws


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "deltas.yaml"
    path.write_text(yaml.safe_dump(robots()["deltas"].to_dict()))
    return str(path)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    robot, raws = spoilt("actions a step late in one", "wrist pictures frozen in a few")
    raws[6] = battery.faulty(next(f for f in battery.FAULTS if f.name == "NaN in one"))[6]
    raws[2] = battery._late(1)(battery.copy.deepcopy(raws[2]), robot)
    return stored(robot, raws, tmp_path_factory.mktemp("set") / "set")


@pytest.fixture(scope="module")
def examined(directory, tables):
    return examine(directory, spec=tables)


def test_cards_name_episodes_and_the_line_that_mends_them(examined):
    named = {row.code: row for row in examined.findings if row.episodes}
    assert named["episodes.late"].episodes == (2,)
    assert named["records.nan"].episodes == (6,)
    assert sorted(named["cameras.frozen"].episodes) == [3, 8, 11]
    severities = [row.severity for row in examined.findings]
    assert severities == sorted(severities, key=["error", "question", "warning", "info"].index)


def test_one_bad_episode_does_not_spoil_the_fit_of_all(examined, tmp_path, tables):
    robot = robots()["deltas"]
    neat = examine(stored(robot, clean("deltas"), tmp_path / "neat"), spec=tables)
    answers = [
        {(row.topic, row.question): row.answer for row in one.verdicts if row.answer != "agrees"}
        for one in (examined, neat)
    ]
    assert "contradicts" not in answers[0].values()
    assert {row.severity for row in neat.findings} == {"info"}


def test_the_lines_of_the_cards_mend_the_set(directory, examined, tables, tmp_path):
    source = str(directory)
    wrong = [row for row in examined.findings if row.line.startswith("python -m robotics.data")]
    numbers = {n for row in wrong for n in row.episodes}
    assert numbers == {2, 3, 6, 8, 11}
    for step, row in enumerate(wrong[:1]):
        words = shlex.split(row.line.replace("DST", str(tmp_path / f"mended{step}")))[3:]
        assert data_main(words) == 0
        source = words[words.index("--out") + 1]
    again = examine(source, spec=tables)
    codes = {row.code for row in again.findings if row.severity != "info"}
    assert wrong[0].code not in codes


def test_the_page_opens_with_the_headline_and_needs_no_other_file(directory, tables, tmp_path):
    assert main([str(directory), "--spec", tables, "--out", str(tmp_path / "out")]) == 1
    page = (tmp_path / "out/index.html").read_text()
    body = page[page.index("<body>") :]
    assert body.index("<h1") < body.index('class="card error"') < body.index('class="card warning"')
    assert body.index('class="card warning"') < body.index("<video") < body.index("agrees")
    assert "http" not in body.replace("http-equiv", "")
    assert body.count("<video") >= 5
    assert len(page) < 8_000_000


def test_a_video_shows_every_step_and_moves_its_cursor():
    robot = robots()["deltas"]
    steps = 20
    shots = {"front": lambda step: np.full((48, 64, 3), 10 * step, np.uint8)}
    parts = {"state.position": np.linspace(0, 1, steps)[:, None] * np.ones((1, 3))}
    found = player(0, "0", (), shots, parts, robot, [(5, 9)])
    frames = iio.imread(base64.b64decode(found.video), extension=".mp4")
    assert frames.shape[:3] == (steps, found.height, found.width)
    assert (found.height % 16, found.width % 16) == (0, 0)
    grey = frames[:, 40, 40].mean(-1)
    assert np.abs(grey - 10 * np.arange(steps)).max() < 12
    row = frames[:, found.height - CONTROLS - 2].mean(-1)
    cursor = row.argmin(1)
    assert (np.diff(cursor) > 0).all()
    assert cursor[0] < 10
    assert cursor[-1] > found.width - 12


def test_what_a_page_plays_stays_within_its_budget(examined):
    rows = players(examined)
    watched = [row.number for row in rows if row.reasons]
    assert set(watched) >= {2, 6}
    assert [row for row in rows if not row.reasons]
    sizes = [len(row.video) for row in rows]
    assert len(within_budget(iter(rows), sum(sizes[:2]))) == 2
    assert len(within_budget(iter(rows), 1)) == 1


def test_what_both_say_is_said_once():
    pooled = [
        battery.Finding("error", "records", "NaN", code="records.nan"),
        battery.Finding("warning", "x", "empty", code="instructions.empty"),
    ]
    single = [
        battery.Finding("error", "records", "NaN in 3", code="records.nan", episodes=(3,)),
        battery.Finding("warning", "x", "empty", code="instructions.empty", episodes=(4,)),
    ]
    found = joined(pooled, single)
    assert [row.text for row in found] == ["NaN in 3", "empty"]
    assert odd(single, 10) == set()
    late = battery.Finding("error", "episodes", "late", code="episodes.late", episodes=(1, 2))
    assert odd([late], 10) == {1, 2}
    assert odd([late], 3) == set()
