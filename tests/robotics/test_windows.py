"""What a window holds: history, masks at the ends, no-ops, and the order unchanged by options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robotics.data.augment import Augment
from robotics.data.batches import ModeStream
from robotics.data.episodes import keypose_steps, no_op_steps, run_ends
from robotics.data.streams import WindowStream
from robotics.data.windows import WindowDataset, action_window, history_window, video_window
from robotics.embodiment.coding import Coder
from robotics.embodiment.tables import shipped
from robotics.model.modes import MODES, robot_schedule
from robotics.training.build import build, compose_config
from selfflow_wm.flow.time_laws import UniformTime
from selfflow_wm.objective import FlowMatching

SIZE = (32, 48)


@pytest.fixture(scope="module")
def with_history(rt1_directory):
    return WindowDataset(
        rt1_directory, SIZE, history=3, history_stride=2, spec="embedded", progress=False
    )


def test_history_is_the_past_oldest_first_and_masked_at_the_start(with_history, windows):
    assert with_history.history_offsets == (6, 4, 2)
    batch = with_history.batch(range(len(with_history)))
    for steps in with_history.episodes:
        for t, window in enumerate(steps):
            for place, offset in enumerate((6, 4, 2)):
                assert batch["history_valid"][window, place] == (t >= offset)
                frame = batch["history/head"][window, place]
                expected = windows.frames([window - offset])[0] if t >= offset else 0
                np.testing.assert_array_equal(frame, np.broadcast_to(expected, frame.shape))
    crossing = with_history.episodes[0][7]  # the instruction changes here: the past was still seen
    assert batch["history_valid"][crossing].tolist() == [True, True, True]
    assert "history/head" not in windows.batch([0])
    plain = windows.batch(range(len(windows)))
    for name, values in plain.items():
        np.testing.assert_array_equal(batch[name], values)
    with pytest.raises(ValueError, match="history >= 0"):
        WindowDataset("nowhere", SIZE, history=1, history_stride=0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 7), st.data())
def test_no_valid_step_is_a_clamped_duplicate(lengths, horizon, data):
    """Each valid entry is the very step asked for, of the same episode; all others are masked."""
    episode = np.repeat(np.arange(len(lengths)), lengths)
    end = np.cumsum(lengths)[episode]
    start = end - np.array(lengths)[episode]
    task = np.array([data.draw(st.integers(0, 1)) for _ in episode])
    segment_end = run_ends(np.stack([episode, task], axis=1))
    steps = np.arange(len(episode))
    offsets = np.arange(1, horizon + 1)
    windows = {
        "action": (*action_window(steps, segment_end, horizon), np.arange(horizon)),
        "video": (*video_window(steps, segment_end, end, offsets), offsets),
        "history": (*history_window(steps, start, offsets), -offsets),
    }
    for name, (index, valid, offset) in windows.items():
        wanted = steps[:, None] + offset
        exists = (wanted >= start[:, None]) & (wanted < end[:, None])
        np.testing.assert_array_equal(index[valid], wanted[valid])
        assert not (valid & ~exists).any()
        if name == "action":
            assert (task[index] == task[steps][:, None])[valid].all()
        if name == "history":
            np.testing.assert_array_equal(valid, exists)
        for row, mask in zip(index, valid, strict=True):
            assert len(set(row[mask].tolist())) == mask.sum()


@pytest.mark.parametrize("mode", ["policy", "forward", "joint"])
def test_what_padding_holds_reaches_neither_the_loss_nor_its_gradient(world, windows, mode):
    """The last windows of an episode, with rubbish where nothing was recorded."""
    samples = windows.batch([s for e in windows.episodes for s in list(e)[-5:]])
    rubbish = {name: np.array(samples[name]) for name in ("action", "video/head")}
    assert not samples["action_valid"].all() and not samples["video_valid"].all()
    rubbish["action"][~samples["action_valid"]] = 3.0
    rubbish["video/head"][~samples["video_valid"]] = 200
    world.backbone.requires_grad_(True)
    results = []
    for values in (samples, samples | rubbish):
        batch = world.encode(values, MODES[mode])
        generator = torch.Generator().manual_seed(0)
        objective = FlowMatching(UniformTime(), caption_dropout=0.0)
        total = objective.loss(world.backbone, None, batch, generator).total
        gradient = torch.autograd.grad(total, list(world.backbone.parameters()), allow_unused=True)
        results.append([total.detach(), *(g for g in gradient if g is not None)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    batch = world.encode(samples | {"action": samples["action"] + 1}, MODES[mode])
    total = objective.loss(world.backbone, None, batch, torch.Generator().manual_seed(0)).total
    assert not torch.allclose(total, results[0][0], rtol=1e-5, atol=1e-6)  # what is valid counts


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.integers(0, 1)), min_size=1),
        min_size=1,
        max_size=4,
    )
)
def test_the_keypose_is_at_the_next_change_of_the_gripper_or_the_end(episodes):
    number = np.repeat(np.arange(len(episodes)), [len(steps) for steps in episodes])
    command, task = np.array([step for steps in episodes for step in steps]).T
    start = np.searchsorted(number, number)
    end = run_ends(np.stack([number, task], axis=1))
    found = keypose_steps(command[:, None], start, end)
    for t in range(len(number)):
        held = next((command[i] for i in range(t, start[t] - 1, -1) if command[i]), 0.0)
        expected = end[t] - 1
        for later in range(t + 1, end[t]):
            if command[later] and command[later] != held:
                expected = later
                break
        assert found[t] == expected


def test_a_keyframe_is_where_any_gripper_changes():
    left, right = np.array([[-1, -1, 1, 1, 1, 1.0], [1, 1, 1, 1, -1, -1.0]])
    start, end = np.zeros(6, int), np.full(6, 6)
    both = keypose_steps(np.column_stack([left, right]), start, end)
    assert both.tolist() == [2, 2, 4, 4, 5, 5]
    assert keypose_steps(np.zeros((6, 0)), start, end).tolist() == [5] * 6


def test_windows_hold_the_state_of_their_keyframe(windows):
    batch = windows.batch(range(len(windows)))
    for steps in windows.episodes:
        last = windows.states[steps[-1]]
        np.testing.assert_array_equal(batch["keypose"][steps[-1]], last)


def test_no_ops_are_the_steps_that_command_nothing():
    coder = Coder(shipped("rt1"))
    gripper, terminate = (coder.action_names.index(name) for name in ("gripper", "terminate"))
    actions = np.zeros((8, coder.action_width), np.float32)
    actions[:, terminate] = -1
    actions[1, 0] = 2e-3  # moves
    actions[2, 4] = 0.02  # turns
    actions[3:5, gripper] = 1  # closes, keeps closing
    actions[6, gripper] = 1  # the other episode's first command, not a repetition
    actions[7, terminate] = 1  # terminates
    actions[7, gripper] = 1
    start = np.array([0, 0, 0, 0, 0, 0, 6, 6])
    still = no_op_steps(actions, start, coder, position=1e-3, rotation=1e-2)
    assert still.tolist() == [True, False, False, False, True, True, False, False]
    actions[5, gripper] = 1  # the same command across the boundary is a new one
    assert not no_op_steps(actions, start, coder, 1e-3, 1e-2)[6]


def test_a_filtered_stream_shows_the_windows_kept_once_an_epoch(windows):
    keep = np.flatnonzero(np.arange(len(windows)) % 3 != 0)
    stream = WindowStream(windows, seed=1, keep=keep)
    drawn, epochs = stream.draw(2 * len(keep) + 3)
    for epoch in (0, 1):
        assert sorted(drawn[epochs == epoch]) == keep.tolist()
    other = WindowStream(windows, seed=1, keep=keep)
    other.load_state_dict(stream.state_dict())
    np.testing.assert_array_equal(other.indices(9), stream.indices(9))
    with pytest.raises(ValueError, match="same data"):
        WindowStream(windows, seed=1).load_state_dict(stream.state_dict())
    with pytest.raises(ValueError, match="loosen the filter"):
        WindowStream(windows, keep=keep[:0])


def test_the_order_is_the_seeds_permutation(windows):
    """Runs of one seed see one order, from version to version."""
    drawn, epochs = WindowStream(windows, seed=4).draw(2 * len(windows))
    for epoch in (0, 1):
        expected = np.random.default_rng([4, epoch]).permutation(len(windows))
        np.testing.assert_array_equal(drawn[epochs == epoch], expected)


def test_options_of_the_configuration_reach_the_stream(rt1_directory, tiny_overrides, tmp_path):
    words = [*tiny_overrides, f"data={rt1_directory}", "modes=policy_only"]
    words += ['dataset.train_split="train[:5]"', 'dataset.validation_split="train[5:]"']
    words += ["modes.policy.batch_size=4", "trainer.validation_batches=1"]
    chosen = ["augment=crop_colour", "no_ops={position: 0.1, rotation: 0.2}"]
    plain = build(compose_config([*words, f"out={tmp_path / 'a'}"])).trainer.batches
    other = build(compose_config([*words, *chosen, f"out={tmp_path / 'b'}"])).trainer.batches
    assert plain.augment is None and plain.windows.keep is None and plain.latents is None
    assert isinstance(other.augment, Augment) and other.augment.crop == 0.92
    dataset = other.windows.dataset
    still = dataset.no_ops(0.1, 0.2)
    assert 0 < still.sum() < len(dataset)
    np.testing.assert_array_equal(other.windows.keep, np.flatnonzero(~still))


def test_augmented_streams_resume_exactly_and_differ_by_epoch(world, windows):
    shares = {"joint": {"probability": 1, "batch_size": 40}}

    def stream(seed=1, augment_seed=1, **changes):
        augment = Augment(0.8, 0.2, 0.2, 0.2, 5, seed=augment_seed)
        return ModeStream(
            windows, world, robot_schedule(shares, seed=seed), seed=seed, augment=augment, **changes
        )

    straight = stream()
    batches = [next(straight) for _ in range(3)]  # 65 windows: the second spans two epochs
    half = stream()
    next(half)
    resumed = stream()
    resumed.load_state_dict(half.state_dict())
    for expected in batches[1:]:
        got = next(resumed)
        assert all(torch.equal(got.latents[k], v) for k, v in expected.latents.items())
    other = next(stream(augment_seed=2))
    assert not torch.equal(other.latents["image/head"], batches[0].latents["image/head"])
    assert torch.equal(other.latents["action"], batches[0].latents["action"])
