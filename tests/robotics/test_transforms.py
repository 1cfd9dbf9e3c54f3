"""Each step between a recording and the model, and its inverse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from robotics.embodiment.rotation import as_quaternion
from robotics.embodiment.transforms import (
    Affine,
    Context,
    Form,
    FromStart,
    Reversed,
    Summed,
    Turns,
    Vectors,
)

QUATERNION = "quaternion_xyzw"
ANYTHING = st.floats(-5, 5, width=32)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(np.array([0.5, -2.0, 1e-3]), np.array([3.0, 0.0, -1.0])),
        Form("euler_zyx", "rot6d"),
        Form("axis_angle", QUATERNION),
        FromStart(Vectors("place")),
        FromStart(Vectors("place", "turn")),
        Summed(Vectors("place")),
        Summed(Vectors("place", "turn")),
        Reversed(Summed(Vectors("place", "turn"))),
        FromStart(Turns("turn")),
        FromStart(Turns("turn", own_axes=True)),
        Summed(Turns("turn")),
        Reversed(Summed(Turns("turn", own_axes=True))),
    ],
    ids=str,
)
@settings(max_examples=30, deadline=None)
@given(numbers=arrays(np.float64, (2, 4, 3), elements=ANYTHING), seed=st.integers(0, 1000))
def test_every_transform_has_an_inverse(transform, numbers, seed):
    rng = np.random.default_rng(seed)
    turn = Rotation.random(2, rng).as_quat()[:, None]
    path = Rotation.random(8, rng).as_quat().reshape(2, 4, 4)
    context = Context({"place": rng.normal(0, 1, (2, 1, 3)), "turn": turn}, {"turn": path})
    rotation = isinstance(transform, Form) or "Turns" in str(transform)
    values, form = numbers, "axis_angle"
    if "Turns" in str(transform):
        values, form = as_quaternion(numbers, form), QUATERNION
    elif isinstance(transform, Form):
        form = transform.source
    there = transform.forward(values, context)
    back = transform.inverse(there, context)
    if rotation:
        values, back = as_quaternion(values, form), as_quaternion(back, form)
        back = np.where((back * values).sum(-1, keepdims=True) < 0, -back, back)
    np.testing.assert_allclose(back, values, atol=1e-6)
