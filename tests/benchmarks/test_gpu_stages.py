"""What the stages compute: batches, FLOPs, gaps in a profile, archives, recipes, the table."""

import gzip
import json
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import archive, fast, recipe, record, table, train, why
from benchmarks.gpu.cases import VARIANTS, Measured, Setup, paper, sit
from benchmarks.gpu.fast import foreseen
from benchmarks.gpu.record import Bench

ROOT = Path(__file__).resolve().parents[2]


def test_the_three_variants_train_the_same_network_on_the_same_batch(tmp_path):
    case = paper("625m", "video", tiny=True)
    measured = Measured(case, Setup("cpu", 2, precision="float32", tiny=True, out=tmp_path))
    losses = {}
    for name in VARIANTS:
        measured.choose(name)
        losses[name] = measured.loss()
    assert losses["naive"] == pytest.approx(losses["self_flow"], rel=1e-5)
    assert losses["vanilla"] != losses["self_flow"]
    assert measured.trainer.batches.batch.text_ids.shape == (2, case.layout.text_length)


def test_flops_follow_the_batch_and_the_teacher_costs_something():
    for case in (paper("290m", "audio"), sit(tiny=True)):
        one, four = case.flops(1), case.flops(4)
        assert four["vanilla"] == pytest.approx(4 * one["vanilla"], rel=0.01)
        assert 1.1 < one["self_flow"] / one["vanilla"] < 1.7
    planned = [paper("290m", "audio").planned_bytes(4, "bfloat16", ckpt) for ckpt in (False, True)]
    assert planned[1] < planned[0]


def test_the_batch_that_fills_the_card_is_foreseen():
    room = 1000
    for batch in range(8, 200, 4):
        peaks = [(number, 40 + 3 * number) for number in (4, 8)]
        assert foreseen(peaks, 40 + 3 * batch) == batch
    assert foreseen([(4, 900), (8, 1800)], room) < 8


class Card:
    """A card of 1,000 bytes, of which a step takes 100 and 10 a sample, `more` beyond a few."""

    def __init__(self, monkeypatch, more=0):
        self.batch, self.more = 0, more
        monkeypatch.setattr(fast, "Measured", lambda case, setup: self)
        monkeypatch.setattr(fast, "total_bytes", lambda device: 1000)
        monkeypatch.setattr(fast, "peak_bytes", lambda device: self.peak)
        self.trainer = SimpleNamespace(optimizer=SimpleNamespace(zero_grad=lambda **options: None))

    def resize(self, batch):
        self.batch = batch

    @property
    def peak(self):
        return 100 + (10 + self.more * (self.batch > 20)) * self.batch

    def step(self):
        if self.peak > 1000:
            raise torch.OutOfMemoryError("no room")


def bench_in(tmp_path):
    settings = {"tiny": True, "device": "cpu", "words": []}
    return Bench(tmp_path / "r.json", tmp_path, time.time() + 600, settings)


@pytest.mark.parametrize(("more", "most"), [(0, 80), (3, 69)])
def test_the_scan_fills_the_card_whether_or_not_memory_grows_evenly(
    tmp_path, monkeypatch, more, most
):
    card = Card(monkeypatch, more)
    found = fast.scan(bench_in(tmp_path), SimpleNamespace(name="case"), False)
    assert 0.8 * most <= found <= most
    card.batch = found
    assert card.peak <= 1000


def test_a_batch_that_has_no_room_after_all_is_made_smaller(tmp_path, monkeypatch):
    tried = []

    def timed(bench, cell, case, batch, peak):
        tried.append(batch)
        if batch > 70:
            raise torch.OutOfMemoryError("no room")
        once = dict.fromkeys(fast.BOTH, [1.0])
        return once, {"vanilla": 10, "self_flow": 2 << 20}, dict.fromkeys(fast.BOTH, 1.0)

    monkeypatch.setattr(fast, "_timed", timed)
    monkeypatch.setattr(fast, "scan", lambda *arguments: 80)
    bench = bench_in(tmp_path)
    fast._measure(bench, fast.Cell("625m", "image"), {}, 1e12)
    assert tried == [80, 60]
    assert {row["batch"] for row in bench.found["tables"]["steps"]} == {60}
    assert "memory against the plan, 625m image compiled" in bench.found["figures"]


def test_a_cell_that_cannot_end_costs_neither_itself_nor_the_others(tmp_path, monkeypatch):
    """Compiling that takes too long is stopped and not tried again; eager cells run."""
    cells = [fast.Cell("625m", "image"), fast.Cell("625m", "video")]
    cells += [fast.Cell("625m", "image", compile=False)]
    monkeypatch.setattr(fast, "CELLS", cells)
    monkeypatch.setattr(fast, "NEEDS", {True: 0.1, False: 0.1})
    monkeypatch.setattr(fast, "COMPILING", 0.001)
    monkeypatch.setattr(fast, "_peak", lambda bench: 1e12)
    clock, begun = [0.0], []
    monkeypatch.setattr(fast, "time", SimpleNamespace(time=lambda: clock[0]))

    def measure(bench, cell, batches, peak):
        begun.append(cell.name)
        if cell.compile:
            clock[0] += 1000  # more than there is for the next one
            time.sleep(30)

    monkeypatch.setattr(fast, "_measure", measure)
    settings = {"tiny": False, "device": "cpu", "words": []}
    bench = Bench(tmp_path / "r.json", tmp_path, time.time() + 500, settings)
    began = time.time()
    fast.run(bench)
    assert time.time() - began < 20
    assert begun == [cells[0].name, cells[2].name]
    assert list(bench.found["failed"]) == [cells[0].name]
    assert bench.found["missed"] == [cells[1].name]
    assert bench.found["done"] == [cells[2].name]


def test_flop_use_is_known_before_the_other_step_is_compiled(tmp_path, monkeypatch):
    class Stopped(fast.Measured):
        def choose(self, variant):
            if variant == "vanilla":
                raise record.TooLong
            super().choose(variant)

    monkeypatch.setattr(fast, "Measured", Stopped)
    bench, cell = bench_in(tmp_path), fast.Cell("625m", "image")
    with pytest.raises(record.TooLong):
        fast._timed(bench, cell, paper("625m", "image", tiny=True), 2, 1e12)
    assert bench.found["figures"]["MFU, 625m image compiled"]["value"] >= 0
    assert fast.CELLS[0] == cell


def test_gaps_are_where_nothing_runs():
    events = [
        {"ph": "X", "cat": "kernel", "ts": ts, "dur": dur, "name": name}
        for ts, dur, name in ((0, 10, "a"), (2, 20, "b"), (30, 5, "c"), (35, 1, "d"))
    ]
    events.append({"ph": "X", "cat": "cpu_op", "ts": 22, "dur": 8, "name": "host"})
    work = why.spans(events, why.GPU_WORK)
    assert [name for _, _, name in work] == ["a", "b", "c", "d"]
    assert why.gaps(work) == [(8.0, "b", "c")]


def test_a_trace_is_cut_to_its_limit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 10**9, (20_000,), generator=generator).tolist()
    events = [{"ph": "X", "ts": n, "dur": 1, "name": str(v)} for n, v in enumerate(noise)]
    path = tmp_path / "trace.json.gz"
    why.write_trace(path, events, limit=50_000)
    assert path.stat().st_size <= 50_000
    kept = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert 1000 < len(kept) < 20_000
    assert kept == events[: len(kept)]


def test_archives_hold_their_limit_and_come_back_whole(tmp_path):
    kept, out, back = tmp_path / "kept", tmp_path / "out", tmp_path / "back"
    out.mkdir()
    for number, size in enumerate((10, 4000, 9000, 9000, 9000, 50_000)):
        file = kept / "runs" / f"r{number}" / "file"
        file.parent.mkdir(parents=True)
        file.write_bytes(bytes([number]) * size)
    assert archive.pack(kept, out, limit=24_000, parts=3) == ["runs/r5/file"]
    assert all(path.stat().st_size <= 24_000 + 10_240 for path in out.glob("*.tar"))
    archive.unpack(out, back)
    for file in kept.rglob("file"):
        if file.parent.name != "r5":
            assert (back / file.relative_to(kept)).read_bytes() == file.read_bytes()
    with pytest.raises(ValueError, match="train-"):
        archive.unpack(tmp_path / "nowhere", back)


def test_an_archive_from_elsewhere_cannot_write_outside(tmp_path):
    (tmp_path / "evil").write_text("x")
    with tarfile.open(tmp_path / "train-1.tar", "w") as tar:
        tar.add(tmp_path / "evil", arcname="../outside")
    with pytest.raises(tarfile.FilterError):
        archive.unpack(tmp_path, tmp_path / "kept")
    assert not (tmp_path / "outside").exists()


def test_the_last_word_on_an_episode_counts(tmp_path):
    file = tmp_path / "episodes.jsonl"
    lines = [("a", 0, "error"), ("a", 0, "success"), ("a", 1, "failure"), ("b", 0, "error")]
    rows = [json.dumps({"task": t, "seed": s, "status": word}) for t, s, word in lines]
    file.write_text("\n".join(rows) + '\n{"task": "a", "se')
    assert archive.successes(file) == {"a": (1, 2)}
    assert archive.successes(tmp_path / "none") == {}


def test_words_change_the_recipe_and_unknown_ones_are_refused(tmp_path):
    words = ["train.seeds=[3,4]", "backend=package:factory", "collect.episodes=50"]
    found = recipe.load(words, tiny=False)
    assert [job.name for job in recipe.jobs(found)] == [
        "self_flow-3", "flow_matching-3", "self_flow-4", "flow_matching-4",
    ]  # fmt: skip
    collect = recipe.collect_words(found, 0.5, tmp_path)
    assert collect[collect.index("--episodes") + 1] == "25"
    assert "package:factory" in collect
    assert "package:factory" in recipe.evaluate_words(found, tmp_path, tmp_path)
    with pytest.raises(ValueError, match="trian"):
        recipe.load(["trian.seeds=[0]"], tiny=False)
    with pytest.raises(ValueError, match="embedded"):
        recipe.load(["recipe=none_such"], tiny=False)
    wrong = ["train.step=3", "seeds=[1]", "evaluate.episodes=many", "train.arms=[a,a]", "tasks=["]
    found = recipe.problems(wrong, tiny=True)
    assert len(found) == len(wrong)
    for remedy in ("write train.steps=3", "write train.seeds=[1]", "evaluate.episodes", "arms"):
        assert sum(remedy in text for text in found) == 1


@pytest.mark.parametrize("tiny", [False, True])
def test_the_commands_of_a_recipe_are_understood(tmp_path, tiny):
    from eval.collect import build_parser as collecting
    from eval.envs.registry import choose_simulator
    from eval.report.collection import parse_counts
    from eval.simpler import build_parser as evaluating
    from robotics.training.build import compose_config

    words = recipe.load(["collect.counts=close_drawer=9"], tiny)
    given = collecting().parse_args(recipe.collect_words(words, 1.0, tmp_path))
    simulator, _ = choose_simulator(given)
    assert parse_counts(simulator, given.task, given.episodes, given.counts)["close_drawer"] == 9
    assert evaluating().parse_intermixed_args(recipe.evaluate_words(words, tmp_path, tmp_path))
    job = recipe.jobs(words)[0]
    config = compose_config(recipe.train_words(words, job, tmp_path, tmp_path, "cuda", 3.0))
    assert config.trainer.total_steps == words["train"]["steps"]
    assert config.objective._target_.endswith("SelfFlow")
    assert config.device == "cuda" and config.trainer.max_minutes == 3.0


def measured_results(device="cuda", tiny=False):
    figures = {"bf16 matrix product": {"value": 790.5, "unit": "TFLOP/s", "bar": "", "ok": None}}
    checks = [{"check": "loss", "verdict": "ok"}, {"check": "sampling", "verdict": "FAILED"}]
    return {
        "command": "python -m benchmarks.gpu --out runs/x --minutes 8",
        "began": "2030-01-02 03:04:05",
        "settings": {"tiny": tiny, "device": device},
        "stages": {
            "machine": {"card": "Card", "figures": figures},
            "right": {"card": "Card", "checks": checks},
        },
    }


def test_the_table_says_what_was_measured_and_what_was_not(tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps(measured_results()))
    rows = {row["what"]: row for row in table.rows(table.load([file]))}
    assert rows["bfloat16 matrix product"]["figure"] == "790.5 TFLOP/s"
    assert rows["bfloat16 matrix product"]["date"] == "2030-01-02"
    assert rows["bfloat16 matrix product"]["command"] == "`python -m benchmarks.gpu --minutes 8`"
    checks = rows["checks against the CPU that passed"]
    assert checks["figure"] == "1 of 2" and "sampling" in checks["bar"]
    assert rows["625M, images: FLOP use"]["figure"] == table.NOT_MEASURED
    for wrong in (measured_results(tiny=True), measured_results(device="cpu"), {"other": 1}):
        file.write_text(json.dumps(wrong))
        with pytest.raises(ValueError):
            table.load([file])


def test_every_row_of_the_table_has_a_figure_that_a_stage_writes():
    """The names that the stage fast gives, for the cells that are run."""
    from benchmarks.gpu.fast import CELLS

    names = {f"MFU, {cell.name}" for cell in CELLS if "naive" not in cell.variants}
    for cell in CELLS:
        names |= {f"Self-Flow / vanilla, {cell.name}", f"memory against the plan, {cell.name}"}
        names |= {f"naive / Self-Flow, {cell.name}"} if "naive" in cell.variants else set()
    for _, stage, pattern in table.ROWS:
        if stage == "fast":
            assert pattern in names


def test_the_page_holds_the_table_as_it_was_written():
    page = table.PAGE.read_text()
    assert page.count(table.BEGIN) == page.count(table.END) == 1
    lines = page.partition(table.BEGIN)[2].partition(table.END)[0].strip().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [row[0] for row in table.ROWS]


def rehearse(out, *words):
    """The command as on a GPU, at the size of a CPU: its output and the results by stage."""
    program = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--device", "cpu"]
    done = subprocess.run(
        [*program, "--minutes", "60", "--out", str(out), *words],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    entries = json.loads((out / "results.json").read_text())["stages"]
    assert done.returncode == 0, done.stdout + str(entries)
    assert {entry["status"] for entry in entries.values()} == {"done"}
    files = list(out.iterdir())
    assert len(files) <= 8 and all(file.stat().st_size < 16 << 20 for file in files)
    assert len(done.stdout[done.stdout.index("python -m") :]) < 12_000
    return entries


def test_the_rehearsal_runs_every_stage_on_a_cpu(tmp_path):
    entries = rehearse(tmp_path / "out")
    assert {check["verdict"] for check in entries["right"]["checks"]} == {"ok"}
    assert {row["step"] for row in entries["fast"]["tables"]["steps"]} == set(VARIANTS)
    assert len(entries["fed"]["tables"]["steps and their data"]) == 6


@pytest.mark.slow
def test_what_a_training_brought_back_goes_on(tmp_path):
    """Finished runs are not trained again; with more steps they go on from their weights."""
    first, again, longer = (tmp_path / name for name in ("first", "again", "longer"))
    entries = rehearse(first, "--stages", "train")["train"]["tables"]
    assert [row["steps"] for row in entries["training"]] == [4, 4]
    assert [row["run"] for row in entries["success"]] == ["self_flow-0", "flow_matching-0"]

    one = ["--stages", "train", "train.arms=[self_flow]"]
    entries = rehearse(again, *one, "--resume", str(first))["train"]["tables"]
    assert "training" not in entries
    assert [row["run"] for row in entries["success"]] == ["self_flow-0"]

    entries = rehearse(longer, *one, "train.steps=6", "--resume", str(again))["train"]["tables"]
    assert [row["steps"] for row in entries["training"]] == [6]
    assert [row["run"] for row in entries["success"]] == ["self_flow-0"]


def test_a_run_that_goes_on_sets_its_earlier_evaluation_aside(tmp_path):
    run, kept = tmp_path / "run", tmp_path / "kept"
    shutil.copytree(ROOT / "checkpoints" / "self_flow", run / "checkpoint")
    (run / "metrics.jsonl").write_text("first\n")
    config = json.loads((run / "checkpoint" / "config.json").read_text())
    config["training"]["step"] = 30
    (run / "checkpoint" / "config.json").write_text(json.dumps(config))
    assert archive.keep(run, kept, "a-0", before=0) == 30
    assert archive.steps_done(kept, "a-0") == 30
    (kept / "evaluations" / "a-0").mkdir(parents=True)
    (run / "metrics.jsonl").write_text("second\n")
    assert archive.keep(run, kept, "a-0", before=30) == 60
    assert [path.name for path in (kept / "evaluations").iterdir()] == ["a-0-at-30"]
    assert (kept / "runs" / "a-0" / "metrics.jsonl").read_text() == "first\n"
    assert (kept / "runs" / "a-0" / "30-metrics.jsonl").read_text() == "second\n"
    assert archive.keep(tmp_path / "none", kept, "a-0", before=60) is None
    assert archive.steps_done(kept, "a-0") == 60


def test_training_leaves_time_to_pack_what_it_brings_back(tmp_path):
    bench = bench_in(tmp_path)
    study = train.Study(bench, recipe.load([], tiny=True))
    assert study.until["collect"] < study.until["train"] < study.until["evaluate"]
    assert bench.deadline - study.until["evaluate"] == pytest.approx(train.CLOSING, abs=0.1)
