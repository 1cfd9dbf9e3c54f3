import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.results.results import grouped, means, summarize
from selfflow_wm.intervals import Z95, independent_trials, wilson


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_solve_the_score_equation(case):
    successes, episodes = case
    rate = successes / episodes
    low, high = wilson(successes, episodes)
    assert 0 <= low <= rate <= high <= 1
    for bound in {low, high} - {0.0, 1.0}:
        score = (rate - bound) ** 2
        assert score == pytest.approx(Z95**2 * bound * (1 - bound) / episodes, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("n", "points"), [(24, 18.6), (60, 12.3), (108, 9.3), (300, 5.6)])
def test_wilson_half_widths_at_one_half(n, points):
    low, high = wilson(n // 2, n)
    assert 50 * (high - low) == pytest.approx(points, abs=0.05)


def test_wilson_at_the_ends():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 20)[0] == 0.0
    assert wilson(20, 20)[1] == 1.0
    with pytest.raises(ValueError, match="expected .*, got "):
        wilson(3, 2)


SEEDS = itertools.count()


def record(success, *, success_any=None, steps=10, latency=(), stages=None):
    return {
        "seed": next(SEEDS),
        "status": "success" if success else "failure", "success": success,
        "success_any": success if success_any is None else success_any, "steps": steps,
        "terminated": success, "latency_ms": list(latency),
        "stages": stages or {"object_grasped": success},
    }  # fmt: skip


def test_a_crash_is_an_error_and_never_a_failure():
    records = [record(True), {"status": "error", "error": "boom"}, record(True)]
    summary = summarize("pick_coke_can", records)
    assert summary["errors"] == 1
    assert summary["episodes"] == 2
    assert summary["success_last_step"]["rate"] == 1.0
    nothing = summarize("pick_coke_can", records[1:2])
    assert nothing["success_last_step"]["rate"] is None
    assert nothing["mean_steps"] is None


def turns(outcomes):
    """Records of cells run as often as `outcomes` has columns."""
    return [
        record(won) | {"cell": f"cell {cell} #{turn}"}
        for cell, row in enumerate(outcomes) for turn, won in enumerate(row, 1)
    ]  # fmt: skip


def test_the_same_cells_twice_count_as_what_they_are_worth_together():
    once = summarize("move_near", [record(n < 3) for n in range(10)])["success_last_step"]
    same = summarize("move_near", turns([(n < 3, n < 3) for n in range(10)]))["success_last_step"]
    assert (same["count"], same["of"], same["rate"]) == (6, 20, once["rate"])
    # Two runs that always agree are one.
    assert same["independent"] == 10
    assert (same["low"], same["high"]) == pytest.approx((once["low"], once["high"]))
    # Turns that never agree tell as much as other cells would.
    other = summarize("move_near", turns([(True, False)] * 10))["success_last_step"]
    assert other["independent"] == 20
    assert (other["low"], other["high"]) == pytest.approx(wilson(10, 20))
    some = summarize(
        "move_near", turns([(True, True)] * 4 + [(True, False)] * 3 + [(False,) * 2] * 3)
    )
    assert 10 < some["success_last_step"]["independent"] < 20
    pooled_means = means({"move_near": some, "pick_coke_can": some}, {})["micro"]
    doubled = 2 * some["success_last_step"]["independent"]
    bounds = pooled_means["success_last_step"]
    assert (bounds["low"], bounds["high"]) == pytest.approx(wilson(0.55 * doubled, doubled))
    assert "independent" not in once


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=40))
def test_trials_are_worth_between_their_groups_and_their_number(case):
    flags, groups = zip(*case, strict=True)
    worth = independent_trials(flags, groups)
    assert len(set(groups)) <= worth <= len(flags)
    assert independent_trials(flags, range(len(flags))) == len(flags)


def test_trials_of_groups_keep_the_level():
    random = np.random.default_rng(0)
    inside = naive = 0
    for _ in range(400):
        easy = random.random(30) < 0.5  # each start is won always or never
        flags = np.repeat(easy, 2).tolist()
        share = sum(flags) / 60
        trials = independent_trials(flags, np.repeat(np.arange(30), 2).tolist())
        low, high = wilson(share * trials, trials)
        inside += low <= 0.5 <= high
        low, high = wilson(sum(flags), 60)
        naive += low <= 0.5 <= high
    assert inside / 400 > 0.92
    assert naive / 400 < 0.9, "without groups the interval is too narrow"


def test_rates_stages_steps_and_latency():
    records = [
        record(True, steps=10, latency=[1.0, 2.0]),
        record(False, success_any=True, steps=20, stages={"object_grasped": True}, latency=[3.0]),
        record(False, steps=30),
    ]
    summary = summarize("pick_coke_can", records)
    assert summary["success_last_step"]["count"] == 1
    assert summary["success_any_step"]["count"] == 2
    assert summary["stages"]["object_grasped"]["count"] == 2
    assert summary["stages"]["object_lifted"]["count"] == 0
    assert summary["mean_steps"] == 20
    assert summary["policy_latency_ms"] == {"calls": 3, "p50": 2.0, "p95": 2.9}


def test_the_mean_counts_each_task_the_same_and_says_how_many():
    many = summarize("move_near", [record(False) for _ in range(9)] + [record(True)])
    few = summarize("pick_coke_can", [record(True)])
    mean = means({"move_near": many, "pick_coke_can": few}, {})["macro_tasks"]
    assert mean["success_last_step"]["rate"] == pytest.approx(0.55)
    assert mean["name"] == "mean of 2 tasks"
    assert means({"move_near": many}, {}) == {}
    assert means({"move_near": many, "pick_coke_can": summarize("pick_coke_can", [])}, {}) == {}


def test_every_mean_has_its_name_and_its_own_weights():
    tasks = {
        "open_drawer": summarize("open_drawer", [record(True) for _ in range(4)]),
        "close_drawer": summarize("close_drawer", [record(False) for _ in range(4)]),
        "move_near": summarize("move_near", [record(True) for _ in range(2)]),
    }
    found = means(tasks, {})
    rates = {key: mean["success_last_step"]["rate"] for key, mean in found.items()}
    assert rates == pytest.approx({"micro": 0.6, "macro_tasks": 2 / 3, "simpler_rows": 0.75})
    assert found["micro"]["name"] == "all 10 episodes pooled"
    assert found["simpler_rows"]["name"] == "mean of 2 rows (drawers as one)"
    micro = found["micro"]["success_last_step"]
    assert (micro["low"], micro["high"]) == wilson(6, 10)
    place = {
        **tasks,
        "open_drawer_place": summarize("open_drawer_place", [record(False) for _ in range(3)]),
    }
    rows = {key: means(place, {})[key] for key in ("simpler_rows", "without_place")}
    assert rows["simpler_rows"]["success_last_step"]["rate"] == pytest.approx(0.5)
    assert rows["without_place"]["success_last_step"] == found["simpler_rows"]["success_last_step"]
    assert rows["without_place"]["name"].startswith("mean of 2 rows (drawers as one, without open")
    assert means({"move_near": tasks["move_near"]}, {}) == {}
    assert means({**tasks, "pick_coke_can": summarize("pick_coke_can", [])}, {}) == {}


def test_variants_count_the_same_whatever_their_size():
    records = (
        [record(True) for _ in range(6)] + [record(False) for _ in range(2)] + [{"status": "error"}]
    )
    rows = grouped(records, ["plain"] * 6 + ["red"] * 3)
    assert {name: (row["count"], row["of"]) for name, row in rows.items()} == {
        "plain": (6, 6), "red": (0, 2)
    }  # fmt: skip
    variants = {"pick_coke_can": {"success_last_step": rows, "success_any_step": rows}}
    found = means({"pick_coke_can": summarize("pick_coke_can", records)}, variants)
    assert found["macro_variants"]["success_last_step"]["rate"] == 0.5
    assert found["macro_variants"]["name"] == "mean of 2 variants"


def test_a_grid_gives_rates_by_cell_and_variant():
    from eval.envs.mujoco import Mujoco
    from eval.envs.simpler import Simpler
    from eval.results.results import _add_cells

    records = [{**record(seed % 2 == 0), "seed": seed} for seed in range(14)]
    summaries = {"open_drawer_place": summarize("open_drawer_place", records)}
    variants = _add_cells(Simpler(protocol="paper"), {"open_drawer_place": records}, summaries)
    summary = summaries["open_drawer_place"]
    assert [row["of"] for row in summary["cells"].values()] == [2] * 7
    # Cell 0 is run as episodes 0 and 7, of which one succeeded.
    assert next(iter(summary["cells"].values()))["count"] == 1
    assert sum(row["of"] for row in summary["variants"].values()) == 14
    assert len(summary["variants"]) == 4
    assert means(summaries, variants)["macro_variants"]["name"] == "mean of 4 variants"
    assert _add_cells(Mujoco(), {"open_drawer_place": records}, summaries) == {}


def test_a_checkpoint_says_what_training_it_is_of(tmp_path):
    from eval.policies.spec import PolicySpec, trained

    def checkpoint(name, **training):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"training": training}))
        return trained(PolicySpec("checkpoint", str(tmp_path / name)))

    objective = {"_target_": "selfflow_wm.objective.SelfFlow"}
    one = checkpoint("checkpoint", objective=objective, out="runs/a", seed=1, step=500)
    old = checkpoint("step_00001000", objective=objective, out="runs/a", seed=1)
    other = checkpoint("other", objective=objective, out="runs/b", seed=1)
    assert (one["step"], old["step"], other["step"]) == (500, 1000, None)
    assert one["id"] == old["id"] != other["id"]
    assert (one["objective"], one["run"], one["seed"]) == ("SelfFlow", "runs/a", 1)
    assert trained(PolicySpec("expert")) is None
