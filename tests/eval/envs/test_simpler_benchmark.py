"""The arithmetic of `benchmarks.simpler`; the simulators themselves are in test_simpler_real."""

import numpy as np
import pytest

from benchmarks.simpler import PARTS, SERIAL, Script, Side, compare, summarise, table
from benchmarks.simpler_sides import Clock

STATE = [["robot", [0.0, 1.0]], ["apple", [2.0]]]


def episode(total, state=STATE, success=True):
    parts = dict.fromkeys(PARTS, total / len(PARTS))
    return {"total": total, "seconds": parts, "state": state, "success": success, "steps": 7}


def test_a_state_is_equal_only_number_by_number():
    assert compare(STATE, STATE) == 0
    assert compare(STATE, [["robot", [0.0, 1.0]], ["apple", [2.5]]]) == 0.5
    assert compare(STATE, [["robot", [0.0, 1.0]], ["can", [2.0]]]) == float("inf")
    assert compare(STATE, [["robot", [0.0]], ["apple", [2.0]]]) == float("inf")
    assert compare(STATE, STATE[:1]) == float("inf")


def test_ratios_are_taken_within_a_round():
    chunks, every = Side("chunks of 6", 2), Side("every step")

    def one(wall, *cells):
        return {"wall": wall, "cells": dict(zip((0, 8), cells, strict=True))}

    rounds = [
        {SERIAL: one(12 * busy, episode(4 * busy), episode(8 * busy)),
         chunks: one(3 * busy, episode(2 * busy), episode(3 * busy)),
         every: one(6 * busy, episode(2 * busy), episode(4 * busy, success=busy < 9))}
        for busy in (1, 9, 2)
    ]  # fmt: skip
    found = summarise(rounds)
    assert [row["times_upstream"] for row in found.values()] == [1, 4, 2]
    assert found[SERIAL]["total"] == 12 and found[chunks]["total"] == 3
    assert found[chunks]["seconds"]["render"] == pytest.approx(5 / len(PARTS))
    assert found[chunks]["same_outcomes"] and not found[every]["same_outcomes"]
    lines = table(found).splitlines()
    assert lines[2].startswith("chunks of 6, 2 workers ") and "identical" in lines[2]
    assert lines[3].startswith("every step ") and "DIFFER" in lines[3]


def test_a_script_looks_once_a_chunk_and_ends_with_its_actions():
    controls = np.arange(14, dtype=np.float32).reshape(2, 7)
    script = Script(controls, [False, True], chunk=3)
    script.reset("open top drawer", seed=1)
    looks, actions = [], []
    for _ in range(4):
        looks.append(script.needs_observation)
        actions.append(script.act({"image": np.zeros(1)} if looks[-1] else None))
    assert looks == [True, False, False, True]
    np.testing.assert_array_equal(actions[1].control, controls[1])
    assert [action.terminate for action in actions] == [False, True, True, True]
    script.instruct("place apple into top drawer")
    assert script.needs_observation


def test_a_clock_gives_every_second_to_the_innermost_part(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = Clock()

    def spend(seconds):
        now[0] += seconds

    def build():
        spend(5)
        clock.part("render", spend, 2)
        spend(1)

    spend(3)
    clock.part("build", build)
    clock.part("physics", spend, 4)
    clock.part("policy", spend, 0.5)
    spent = {name: seconds for name, seconds in clock.seconds.items() if seconds}
    assert spent == {"overhead": 3, "build": 6, "render": 2, "physics": 4, "policy": 0.5}
