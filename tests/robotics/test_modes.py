"""Modes as rows, and their mixture as a function of step and seed."""

from __future__ import annotations

from collections import Counter

import pytest

from robotics.model.modes import MODES, Share, mode, robot_schedule


def test_every_mode_generates_what_it_is_not_given():
    for row in MODES.values():
        assert row.generated and not set(row.given) & set(row.generated)
    assert "video" not in MODES["policy"].present
    assert "action" not in MODES["video"].present
    with pytest.raises(ValueError, match="expected a mode out of"):
        mode("backward")


def test_the_mixture_draws_by_step_and_seed_alone():
    shares = {"policy": Share(0.7, 8), "video": Share(0.2, 2), "forward": Share(0.1, 4)}
    first = [robot_schedule(shares, seed=3).draw(step).name for step in range(2000)]
    backwards = robot_schedule(shares, seed=3)
    assert first == [backwards.draw(step).name for step in reversed(range(2000))][::-1]
    assert first != [robot_schedule(shares, seed=4).draw(step).name for step in range(2000)]
    counts = Counter(first)
    for name, share in shares.items():
        assert counts[name] / 2000 == pytest.approx(share.probability, abs=0.035)


def test_probabilities_are_relative_and_zero_leaves_a_mode_out():
    mixture = robot_schedule({"policy": {"probability": 3, "batch_size": 8}, "video": Share(0, 1)})
    assert mixture.names == ("policy",)
    assert {mixture.draw(step).name for step in range(50)} == {"policy"}


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {"policy": Share(0.0, 8)},
        {"policy": Share(-1.0, 8)},
        {"policy": Share(1.0, 0)},
        {"backward": Share(1.0, 8)},
    ],
)
def test_impossible_mixtures_are_refused(shares):
    with pytest.raises(ValueError, match="expected"):
        robot_schedule(shares)
