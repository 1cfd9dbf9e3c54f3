"""Quantile statistics and the normaliser."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from robotics.embodiment.coding import Coder, Field
from robotics.embodiment.normalize import (
    SPARSE_LIMIT,
    Normalizer,
    Quantiles,
    warnings,
)
from robotics.embodiment.tables import load_robot


def action_normalizer(statistics, kind="quantiles", rotation_floor=1e-3):
    """As RT-1's models were trained: the arm scaled, gripper and terminate left alone."""
    floors = [1e-3] * 3 + [rotation_floor] * 3 + [1e-3] * 2
    return Normalizer(statistics, [True] * 6 + [False] * 2, floors, kind)


def of_rt1(statistics, kind="quantiles", rotation_floor=None):
    fields = Coder(load_robot("rt1")).fields("action")
    return Normalizer.of_fields(statistics, fields, kind, rotation_floor)


values = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.floats(-100, 100, width=32),
)


@settings(max_examples=100, deadline=None)
@given(values)
def test_denormalise_inverts_normalise(data):
    normalizer = Normalizer(Quantiles.of(data))
    normalised = normalizer.normalise(data)
    assert np.isfinite(normalised).all()
    np.testing.assert_allclose(normalizer.denormalise(normalised), data, rtol=1e-5, atol=1e-4)


def test_quantiles_go_to_plus_and_minus_one_without_clipping():
    data = np.random.default_rng(0).normal(3, 2, (1000, 3))
    statistics = Quantiles.of(data)
    normalizer = Normalizer(statistics)
    np.testing.assert_allclose(normalizer.normalise(statistics.q01), -1, atol=1e-6)
    np.testing.assert_allclose(normalizer.normalise(statistics.q99), 1, atol=1e-6)
    assert normalizer.normalise(data).max() > 1
    np.testing.assert_allclose(statistics.mean, data.mean(0))
    assert statistics.count == 1000


def test_a_constant_dimension_becomes_zero_and_comes_back():
    data = np.tile([0.5, -2.0], (10, 1))
    normalizer = Normalizer(Quantiles.of(data))
    np.testing.assert_array_equal(normalizer.normalise(data), 0)
    np.testing.assert_allclose(normalizer.denormalise(np.zeros((1, 2))), data[:1])


def test_actions_leave_gripper_and_terminate_alone():
    data = np.random.default_rng(0).normal(0, 0.05, (200, 8))
    data[:, 6:] = np.sign(data[:, 6:])
    normalised = of_rt1(Quantiles.of(data)).normalise(data)
    np.testing.assert_array_equal(normalised[:, 6:], data[:, 6:])
    assert np.abs(normalised[:, :6]).max() > 1
    states = Coder(load_robot("rt1")).fields("state")
    assert all(Normalizer.of_fields(Quantiles.of(data), states).scaled)


def test_a_motion_that_hardly_occurs_is_not_blown_up():
    data = np.zeros((1000, 8))
    data[0, 0] = 0.05
    assert np.abs(of_rt1(Quantiles.of(data)).normalise(data)).max() <= 50


@settings(max_examples=20, deadline=None)
@given(values)
def test_json_round_trip(data):
    normalizer = Normalizer(Quantiles.of(data), scaled=np.arange(data.shape[1]) % 2 == 0, floor=0.1)
    again = Normalizer.from_dict(json.loads(json.dumps(normalizer.to_dict())))
    assert again == normalizer
    np.testing.assert_array_equal(again.normalise(data), normalizer.normalise(data))


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(3), [[np.nan]]])
def test_statistics_need_finite_vectors(bad):
    with pytest.raises(ValueError, match="expected finite values"):
        Quantiles.of(bad)


def test_malformed_inputs_are_refused():
    normalizer = Normalizer(Quantiles.of(np.ones((2, 3))))
    with pytest.raises(ValueError, match=r"expected values \(\.\.\., 3\)"):
        normalizer.normalise(np.ones((2, 4)))
    with pytest.raises(ValueError, match="expected 3 booleans"):
        Normalizer(normalizer.statistics, scaled=[True])
    broken = normalizer.to_dict()
    del broken["statistics"]["q01"]
    with pytest.raises(ValueError, match="expected a normaliser"):
        Normalizer.from_dict(broken)


def test_standard_gives_mean_zero_and_deviation_one_and_survives_its_file_form():
    data = np.random.default_rng(0).normal(3, 2, (1000, 3))
    normalizer = Normalizer(Quantiles.of(data), kind="standard")
    normalised = normalizer.normalise(data)
    np.testing.assert_allclose(normalised.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(normalised.std(0), 1, atol=1e-5)
    again = Normalizer.from_dict(normalizer.to_dict())
    np.testing.assert_allclose(again.denormalise(normalised), data, atol=1e-5)
    assert again == normalizer != Normalizer(Quantiles.of(data))
    with pytest.raises(ValueError, match="quantiles"):
        Normalizer(Quantiles.of(data), kind="log")


def test_minmax_puts_every_value_in_the_unit_range_and_comes_back():
    data = np.random.default_rng(0).normal(3, 2, (1000, 3)) ** 3
    normalizer = Normalizer(Quantiles.of(data), kind="minmax")
    normalised = normalizer.normalise(data)
    np.testing.assert_allclose(normalised.min(0), -1, atol=1e-6)
    np.testing.assert_allclose(normalised.max(0), 1, atol=1e-6)
    np.testing.assert_allclose(normalizer.denormalise(normalised), data, rtol=1e-4, atol=1e-3)
    assert Normalizer.from_dict(json.loads(json.dumps(normalizer.to_dict()))) == normalizer


def test_clipping_is_asked_for_and_limits_the_scaled_dimensions_alone():
    data = np.random.default_rng(0).normal(0, 0.05, (200, 8))
    normalizer = of_rt1(Quantiles.of(data))
    far = np.full((1, 8), 9.0)
    assert normalizer.denormalise(normalizer.normalise(far)) == pytest.approx(far)
    clipped = normalizer.clip(far)
    np.testing.assert_allclose(clipped[0, :6], data.max(0)[:6], rtol=1e-6)
    np.testing.assert_array_equal(clipped[0, 6:], 9.0)
    np.testing.assert_array_equal(normalizer.clip(data), data.astype(np.float32))


def test_small_rotations_are_not_scaled_up_beyond_their_floor():
    data = np.random.default_rng(0).normal(0, 0.01, (500, 8))
    statistics = Quantiles.of(data)
    deviation = of_rt1(statistics, "standard", rotation_floor=0.1).normalise(data).std(0)
    np.testing.assert_allclose(deviation[:3], 1, atol=1e-3)
    np.testing.assert_allclose(deviation[3:6], 0.1, rtol=0.1)
    with pytest.raises(ValueError, match="floor"):
        Normalizer(statistics, floor=[0.1, 0.2])


# ---------------------------------------------------------------- of a robot's fields


@pytest.mark.parametrize("kind", ["quantiles", "standard", "minmax"])
def test_rt1_normalises_as_it_always_did(kind):
    rng = np.random.default_rng(0)
    data = rng.normal(0, 0.05, (1000, 8)).astype(np.float32)
    data[::100] *= 40  # a few outliers, as the data have
    data[:, 6:] = rng.integers(-1, 2, (1000, 2))
    statistics = Quantiles.of(data)
    coder = Coder(load_robot("rt1"))
    action = Normalizer.of_fields(statistics, coder.fields("action"), kind, rotation_floor=0.1)
    before = action_normalizer(statistics, kind, rotation_floor=0.1)
    assert action == before
    assert action.normalise(data).tobytes() == before.normalise(data).tobytes()
    state = Normalizer.of_fields(statistics, coder.fields("state"), kind)
    before = Normalizer(statistics, floor=1e-2, kind=kind)
    assert state.normalise(data).tobytes() == before.normalise(data).tobytes()
    assert warnings(statistics, coder.fields("action")) == []


def fields(count, **entries):
    return [Field(f"joints.{n}", "joints", **entries) for n in range(count)]


@pytest.mark.parametrize("kind", ["quantiles", "standard", "minmax"])
def test_a_sparse_dimension_stays_small_and_is_named(kind):
    data = np.random.default_rng(0).normal(0, 0.5, (100_000, 3))
    data[:, 1] = 0
    data[::20_000, 1] = [3.0, -2.0, 1.0, 0.5, 0.2]
    data[:, 2] = 0.7
    statistics = Quantiles.of(data)
    normalizer = Normalizer.of_fields(statistics, fields(3), kind)
    normalised = normalizer.normalise(data)
    assert np.abs(normalised).max() <= SPARSE_LIMIT + 1e-6
    assert np.abs(normalised[:, 1]).max() >= 1  # and is not lost
    np.testing.assert_allclose(normalizer.denormalise(normalised), data, atol=1e-5)
    again = Normalizer.from_dict(json.loads(json.dumps(normalizer.to_dict())))
    assert again == normalizer
    sparse, dead = warnings(statistics, fields(3))
    assert sparse.startswith("joints.1:") and "-2 and 3" in sparse
    assert dead.startswith("joints.2:") and "0.7" in dead
    assert warnings(statistics, fields(3, normalise="none")) == []


@pytest.mark.parametrize("turns", [True, False])
def test_constant_values_of_a_rotation_are_named_where_it_never_turns(turns):
    """A turn about z: four of the six values of a matrix's two rows or columns move."""
    row = {"path": "turn", "kind": "rotation", "form": "euler_z"}
    table = {
        "extends": "rt1",
        "state": dict.fromkeys(("position", "rotation", "gripper")),
    }
    coder = Coder(load_robot({**table, "state": {**table["state"], "yaw": row}}))
    angles = np.linspace(-1, 1, 50)[:, None] * turns
    statistics = Quantiles.of(coder.state(angles))
    assert len(warnings(statistics, coder.fields("state"))) == (0 if turns else coder.state_width)


def test_a_dense_dimension_keeps_its_scale_however_far_its_outliers():
    data = np.random.default_rng(0).normal(0, 0.1, (1000, 1))
    data[0] = 22.0
    statistics = Quantiles.of(data)
    np.testing.assert_array_equal(
        Normalizer.of_fields(statistics, fields(1)).normalise(data),
        Normalizer(statistics, floor=1e-3).normalise(data),
    )
    assert warnings(statistics, fields(1)) == []


def test_every_field_may_have_its_own_kind():
    data = np.random.default_rng(0).normal(3, 2, (1000, 4))
    kinds = ["default", "standard", "minmax", "none"]
    rows = [Field(kind, "joints", kind) for kind in kinds]
    normalizer = Normalizer.of_fields(Quantiles.of(data), rows, "quantiles")
    got = normalizer.normalise(data)
    for index, kind in enumerate(("quantiles", "standard", "minmax")):
        alone = Normalizer(Quantiles.of(data[:, index : index + 1]), kind=kind)
        np.testing.assert_allclose(got[:, index], alone.normalise(data[:, index : index + 1])[:, 0])
    np.testing.assert_array_equal(got[:, 3], data[:, 3].astype(np.float32))
    again = Normalizer.from_dict(json.loads(json.dumps(normalizer.to_dict())))
    np.testing.assert_array_equal(again.normalise(data), got)
    with pytest.raises(ValueError, match="expected statistics of 2 values"):
        Normalizer.of_fields(Quantiles.of(data), rows[:2])
    with pytest.raises(ValueError, match=r"normalizer\.kind: expected one of"):
        Normalizer.of_fields(Quantiles.of(data), rows, "log")
    with pytest.raises(ValueError, match="one kind of normaliser or 4"):
        Normalizer(Quantiles.of(data), kind=["standard"])
