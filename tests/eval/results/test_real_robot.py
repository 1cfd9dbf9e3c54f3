import pytest

from eval.results.real_robot import (
    PUBLISHED,
    REAL,
    against_real,
    mean_maximum_rank_violation,
    parse_policies,
    pearson,
)

UPSTREAM = {
    "pick_coke_can": (0.03133333333333336, 0.9754339621228817),
    "move_near": (0.11099999999999999, 0.8560966643118902),
    "open_drawer": (0.0, 0.9831664917316731),
    "close_drawer": (0.12333333333333335, 0.7712328181593621),
    "open_drawer_place": (0.0, 0.96917180614324),
    "widowx_spoon_on_towel": (0.0, 0.8269440858336992),
    "widowx_carrot_on_plate": (0.11133333333333333, 0.571367598454572),
    "widowx_stack_cube": (0.0, 0.9999971428653062),
    "widowx_put_eggplant_in_basket": (0.0, 0.9894145664016768),
    "drawer": (0.055499999999999994, 0.9159229202650544),
}
"""MMRV and Pearson of the published tables by mean_maximum_rank_violation and pearson_correlation
of simpler_env/utils/metrics.py (simpler-env/SimplerEnv at 4ab7178), called as its
tools/calc_metrics.py does; `drawer` on the means of both drawer tasks."""


def test_the_published_tables_agree_with_upstreams_functions():
    rows = {row["task"]: row for row in against_real(PUBLISHED)}
    assert rows.keys() == UPSTREAM.keys()
    for task, (mmrv, r) in UPSTREAM.items():
        assert rows[task]["mmrv"] == pytest.approx(mmrv, abs=1e-12)
        # Upstream adds 1e-8 to the denominator.
        assert rows[task]["pearson"] == pytest.approx(r, abs=5e-6)


def test_mmrv_by_hand():
    assert mean_maximum_rank_violation([0.1, 0.2, 0.3], [0.4, 0.5, 0.9]) == 0.0
    # Reversed: each policy's worst is its largest real distance, 0.5, 0.4 and 0.5.
    assert mean_maximum_rank_violation([3, 2, 1], [0.4, 0.5, 0.9]) == pytest.approx(1.4 / 3)
    # A tie in the simulator that reality does not have is a violation for one direction of it.
    assert mean_maximum_rank_violation([0, 0], [0.2, 0.5]) == pytest.approx(0.3 / 2)


def test_pearson_by_hand_and_where_it_is_not_defined():
    assert pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert pearson([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert pearson([1, 0, 0], [1, 1, 0]) == pytest.approx(0.5)
    assert pearson([0.2, 0.2], [0.1, 0.5]) is None
    with pytest.raises(ValueError, match="expected .*, got "):
        pearson([1.0], [1.0])


def test_the_table_says_what_the_paper_says_of_rt1():
    row = [REAL[task]["rt-1-converged"] for task in REAL if not task.startswith("widowx")]
    assert row == [0.853, 0.633, 0.815, 0.926, 0.185]


def test_policies_without_a_real_number_and_lonely_ones_are_left_out():
    rows = against_real(
        {
            "move_near": {"rt-1-x": 0.3, "octo-small": 0.2},
            "pick_coke_can": {"rt-1-x": 0.5, "octo-base": 0.1},
        }
    )
    assert [row["task"] for row in rows] == ["pick_coke_can"]
    assert rows[0]["real"] == [0.760, 0.293]
    assert rows[0]["mmrv"] == 0.0


@pytest.mark.parametrize("words", ["rt-1-x", "rt-1-x,rt-1-x", "rt-1-x,gpt"])
def test_policies_are_named_once_each(words):
    with pytest.raises(ValueError, match="expected .*, got "):
        parse_policies(words, 2)
    assert parse_policies("rt-1-x, octo-base", 2) == ["rt-1-x", "octo-base"]
