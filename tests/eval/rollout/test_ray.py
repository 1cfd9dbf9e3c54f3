"""Episodes as Ray actors; skipped without the extra `ray`."""

import sys
import types

import pytest
from eval_runs import lines, plain, run_here, words

from eval.simpler import main


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'selfflow-wm\[ray\]'"):
        main(words(tmp_path / "run", "--executor", "ray"))
    assert not (tmp_path / "run").exists()


class LateRay(types.ModuleType):
    """Ray on a machine that is too busy for its first `late` starts."""

    def __init__(self, late: int) -> None:
        super().__init__("ray")
        self.late, self.starts, self.ends = late, 0, 0

    def is_initialized(self) -> bool:
        return False

    def init(self, **_: object) -> None:
        self.starts += 1
        if self.starts <= self.late:
            raise Exception("The current node timed out\nduring startup.")

    def shutdown(self) -> None:
        self.ends += 1

    def cluster_resources(self) -> dict:
        return {"CPU": 4.0}


@pytest.mark.parametrize("late", [0, 2, 3])
def test_ray_may_be_late_to_start_but_not_for_ever(monkeypatch, late):
    from eval.envs.contract import Limits
    from eval.rollout.ray_pool import RayPool

    ray = LateRay(late)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    pool = RayPool(None, 2, limits=Limits(), retries=0)
    if late < 3:
        pool._connect()
        assert (ray.starts, ray.ends) == (late + 1, late)
    else:
        with pytest.raises(ValueError, match="3 times, The current node timed out during startup"):
            pool._connect()


def test_ray_gives_the_same_records_also_after_a_crash(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs the extra ray: pip install 'selfflow-wm[ray]'")
    monkeypatch.setenv("FAKE_ENV_MARK", str(tmp_path / "mark"))
    out, more = tmp_path / "run", ("--executor", "ray", "--workers", "2")
    changes = {"task": "move_near", "policy": "random"}
    assert main(words(out, *more, backend="make_dying_once", **changes)) == 0
    run_here(words(tmp_path / "quiet", **changes))
    assert plain(lines(out)) == plain(lines(tmp_path / "quiet"))
    assert [r["seed"] for r in lines(out) if r["retries"]] == [1_000_003]


def test_an_actor_that_is_lost_is_replaced(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs the extra ray: pip install 'selfflow-wm[ray]'")
    from eval.envs.contract import Limits
    from eval.policies.spec import PolicySpec
    from eval.rollout.plan import Job
    from eval.rollout.ray_pool import RayPool
    from eval.rollout.run import EvalSetup

    jobs = [Job("move_near", seed, seed, video=False) for seed in range(3)]
    setup = EvalSetup(PolicySpec("random"), "fake_env:make", "", tuple(jobs))
    queue = iter(jobs)
    with RayPool(setup, 1, limits=Limits(), retries=1) as pool:
        outcomes = []
        for outcome in pool.run(lambda: next(queue, None)):
            outcomes.append(outcome)
            if len(outcomes) == 1:
                ray.kill(pool._idle[0])
    assert [o.job.seed for o in outcomes] == [0, 1, 2]
    assert [len(o.retried) for o in outcomes] == [0, 1, 0]
    assert all(o.error is None for o in outcomes)
