"""Several data sets trained on as one: windows drawn by weight, statistics pooled by weight.

Sets of one robot (of one name in their tables) share its conventions and its normaliser, so they
must agree in what a state and an action mean, and the statistics are those of what is drawn: of a
set with share w, every step counts w / steps. (Octo and OpenVLA normalise each data set separately;
a prediction then means a different motion for each of them, and a checkpoint has to know which one
it acts for.) Sets of several robots are drawn by weight, too; a batch holds one robot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from robotics.data.conventions import differences
from robotics.data.statistics import EXACT_LIMIT
from robotics.data.window_steps import checked_indices
from robotics.data.windows import WindowDataset
from robotics.embodiment.coding import Coder
from robotics.embodiment.normalize import Quantiles
from robotics.embodiment.robot import Robot


class DatasetMixture:
    """The windows of several datasets one after the other, under one numbering.

    Args:
        parts: the sets by name.
        weights: of the windows drawn, what comes from each set, > 0; scaled to sum to 1.

    Raises:
        ValueError: no sets, other names, a weight not above 0, or sets of one robot that differ in
            their windows or in what a state or an action means.
    """

    def __init__(self, parts: Mapping[str, WindowDataset], weights: Mapping[str, float]) -> None:
        values = {name: float(value) for name, value in weights.items()}
        if not parts or set(parts) != set(values):
            raise ValueError(
                f"expected a weight for each of {sorted(parts)} and at least one set, got "
                f"{sorted(values)}; see configs/dataset/mixture_template.yaml."
            )
        if not all(np.isfinite(value) and value > 0 for value in values.values()):
            raise ValueError(f"expected weights above 0, got {values}; leave a set out instead.")
        self.parts = dict(parts)
        total = sum(values.values())
        self.shares = {name: values[name] / total for name in parts}
        """Share of each set among the windows drawn; sums to 1."""
        self.starts = np.cumsum([0] + [len(part) for part in parts.values()])
        """Number of each set's first window, and the number of windows at the end."""
        self.robots: dict[str, list[str]] = {}
        """Robot -> names of its sets."""
        for name, part in parts.items():
            self.robots.setdefault(part.robot.name, []).append(name)
        for names in self.robots.values():
            for name in names[1:]:
                _check_alike(names[0], parts[names[0]], name, parts[name])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def num_episodes(self) -> int:
        """Episodes of all sets."""
        return sum(part.num_episodes for part in self.parts.values())

    # ------------------------------------------------------------------ robots

    def of_robot(self, name: str) -> DatasetMixture:
        """The sets of the robot called `name`, and their shares of one another."""
        if name not in self.robots:
            raise ValueError(f"expected a robot out of {', '.join(self.robots)}, got {name!r}.")
        if len(self.robots) == 1:
            return self
        names = self.robots[name]
        return DatasetMixture({n: self.parts[n] for n in names}, {n: self.shares[n] for n in names})

    def windows_of(self, name: str, indices: ArrayLike) -> np.ndarray:
        """Of the windows `indices`, those of one robot, as `of_robot(name)` numbers them."""
        steps, found, begin = np.asarray(indices, np.int64), [], 0
        for number, (part, dataset) in enumerate(self.parts.items()):
            if part in self.robots[name]:
                first, end = self.starts[number : number + 2]
                found.append(steps[(steps >= first) & (steps < end)] - first + begin)
                begin += len(dataset)
        return np.concatenate(found)

    def robot_shares(self) -> dict[str, float]:
        """Share of each robot among the windows drawn; sums to 1."""
        return {
            robot: sum(self.shares[name] for name in names) for robot, names in self.robots.items()
        }

    def _first(self) -> WindowDataset:
        """Any set, all being of one robot; ValueError where they are not."""
        if len(self.robots) > 1:
            raise ValueError(
                f"expected sets of one robot, got those of {', '.join(self.robots)}; ask of_robot "
                "for those of one."
            )
        return next(iter(self.parts.values()))

    @property
    def robot(self) -> Robot:
        """The table of the one robot there is."""
        return self._first().robot

    @property
    def coder(self) -> Coder:
        """Of the one robot."""
        return self._first().coder

    @property
    def cameras(self) -> tuple[str, ...]:
        """Of the one robot."""
        return self._first().cameras

    @property
    def image_sizes(self) -> dict[str, tuple[int, int]]:
        """Of the one robot's cameras."""
        return self._first().image_sizes

    @property
    def image_size(self) -> tuple[int, int]:
        """Of the one robot's first camera."""
        return self._first().image_size

    @property
    def horizon(self) -> int:
        """Of the one robot's chunks."""
        return self._first().horizon

    @property
    def video_offsets(self) -> tuple[int, ...]:
        """Of the one robot's windows."""
        return self._first().video_offsets

    @property
    def history_offsets(self) -> tuple[int, ...]:
        """Of the one robot's windows."""
        return self._first().history_offsets

    # ------------------------------------------------------------------ windows

    def no_ops(self, position: float, rotation: float) -> np.ndarray:
        """bool (windows,), see `robotics.data.episodes.no_op_steps`."""
        return np.concatenate([part.no_ops(position, rotation) for part in self.parts.values()])

    @property
    def episode_start(self) -> np.ndarray:
        """int64 (windows,): the first window of every window's episode."""
        pairs = zip(self.starts.tolist(), self.parts.values(), strict=False)
        return np.concatenate([part.episode_start + start for start, part in pairs])

    @property
    def probabilities(self) -> np.ndarray:
        """float64 (windows,): how often each is drawn; sums to 1."""
        return np.concatenate(
            [np.full(len(part), self.shares[name] / len(part)) for name, part in self.parts.items()]
        )

    def batch(
        self, indices: ArrayLike, *, epochs: ArrayLike | None = None, **options: Any
    ) -> dict[str, Any]:
        """Windows of any of one robot's sets stacked in the order asked for, see
        `WindowDataset.batch`."""
        steps = checked_indices(indices, len(self))
        owner = np.searchsorted(self.starts, steps, side="right") - 1
        owners = [list(self.parts.values())[number].robot.name for number in np.unique(owner)]
        if len(set(owners)) > 1:
            raise ValueError(
                f"expected windows of one robot, got some of {', '.join(dict.fromkeys(owners))}; "
                "a batch holds one robot."
            )
        drawn = np.zeros_like(steps) if epochs is None else np.asarray(epochs, np.int64)
        merged: dict[str, Any] = {"robot": owners[0]}
        for number, part in enumerate(self.parts.values()):
            rows = np.flatnonzero(owner == number)
            if not len(rows):
                continue
            local = steps[rows] - self.starts[number]
            for name, values in part.batch(local, epochs=drawn[rows], **options).items():
                if name != "robot":
                    _scatter(merged, name, values, rows, len(steps))
        return merged

    def statistics(self) -> dict[str, Quantiles]:
        """Statistics {"state", "action"} of the one robot's steps as they are drawn: pooled by
        weight; see `WindowDataset.statistics`."""
        coder, parts = self.coder, self.parts.values()
        widths = {"state": coder.state_width, "action": coder.action_width}
        limit = EXACT_LIMIT // len(parts)
        return {
            group: pooled(
                [part.vectors(group, limit) for part in parts], list(self.shares.values())
            )
            for group, width in widths.items()
            if width
        }

    def describe(self, drawn: Mapping[str, float]) -> list[str]:
        """A line for each set: share, size, and its epochs if so many of its windows are drawn."""
        width = max(map(len, self.parts))
        return [
            f"{name:<{width}}  {self.shares[name]:6.1%}  {part.num_episodes} episodes, {len(part)} "
            f"windows, {drawn[name] / len(part):.3g} epochs"
            for name, part in self.parts.items()
        ]


def _check_alike(name: str, one: WindowDataset, other_name: str, other: WindowDataset) -> None:
    """ValueError where two sets of one robot differ in their windows or in what they mean."""
    shapes = [
        (part.image_sizes, part.horizon, part.video_offsets, part.history_offsets)
        for part in (one, other)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "expected sets of one robot with the same cameras, image sizes, horizon, video offsets "
            f"and history, got {shapes[0]} of {name} and {shapes[1]} of {other_name}; open them "
            "with the same settings."
        )
    check_same_robot(name, one.robot, other_name, other.robot)


def check_same_robot(name: str, one: Robot, other_name: str, other: Robot) -> None:
    """ValueError where the sets `name` and `other_name`, of robots of one name, differ in what a
    state or an action means."""
    if lines := differences(one, other):
        raise ValueError(
            f"data.{other_name}: expected what robot {one.name} is in data.{name}, got another "
            f"{'; another '.join(lines)}. They would share one normaliser: correct a table, or "
            "give one of them another name, which makes it another robot with its own."
        )


def _scatter(merged: dict[str, Any], name: str, values: Any, rows: np.ndarray, count: int) -> None:
    """Put the rows of one set into the whole batch."""
    if isinstance(values, np.ndarray):
        if name not in merged:
            # A camera without a flag is there in every episode of its set.
            make = np.ones if name.startswith("camera_valid/") else np.empty
            merged[name] = make((count, *values.shape[1:]), values.dtype)
        merged[name][rows] = values
        return
    column = merged.setdefault(name, [None] * count)
    for row, value in zip(rows.tolist(), values, strict=True):
        column[row] = value


def pooled(arrays: Sequence[np.ndarray], shares: Sequence[float]) -> Quantiles:
    """Statistics of vectors drawn with probability shares[i] from arrays[i] (n_i, D).

    Quantiles interpolate linearly between the sorted values at the weight that lies below each,
    which for equal weights is numpy's quantile.
    """
    weights = np.concatenate(
        [
            np.full(len(array), share / len(array))
            for array, share in zip(arrays, shares, strict=True)
        ]
    )
    weights /= weights.sum()
    columns = []
    for dimension in range(arrays[0].shape[1]):
        values = np.concatenate([array[:, dimension] for array in arrays]).astype(np.float64)
        mean = float(weights @ values)
        std = float(np.sqrt(weights @ (values - mean) ** 2))
        order = np.argsort(values, kind="stable")
        values, sorted_weights = values[order], weights[order]
        below = np.cumsum(sorted_weights) - sorted_weights
        below /= below[-1] if below[-1] > 0 else 1.0
        q01, q99 = np.interp([0.01, 0.99], below, values).tolist()
        columns.append((q01, q99, mean, std, float(values[0]), float(values[-1])))
    return Quantiles(*zip(*columns, strict=True), count=len(weights))


def shuffled(dataset: WindowDataset | DatasetMixture, generator: np.random.Generator) -> np.ndarray:
    """All windows in random order; of a mixture, those drawn more often tend to come earlier."""
    if isinstance(dataset, WindowDataset):
        return generator.permutation(len(dataset))
    # Each waits for an exponential time of its rate: sampling by weight without replacement.
    return np.argsort(generator.exponential(size=len(dataset)) / dataset.probabilities)
