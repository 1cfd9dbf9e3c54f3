"""Between an environment and a checkpoint of the same robot: their tables, compared part by part.

The environment's table says what it shows and takes, the checkpoint's what its recordings had.
Where they say the same in other words (another form of a rotation, other units, another sense of
the gripper, another name of the only camera) the values are converted and the difference is noted;
where they mean something else (a delta against a target, another frame, another rate) the pair is
refused before the first step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from robotics.embodiment.columns import column
from robotics.embodiment.control import observed_values
from robotics.embodiment.parts import Part
from robotics.embodiment.recording import Camera
from robotics.embodiment.robot import Robot
from robotics.embodiment.rotation import as_quaternion, from_quaternion

Convert = Callable[[np.ndarray], np.ndarray]
_STILL = ("delta", "velocity", "pulse")
"""Modes in which zero keeps what is."""


class Bridge:
    """Observations of an environment to those of a checkpoint, and actions back.

    Args:
        harness: the environment's table; its paths are keys of its observations, and the parts of
            its action, one after the other, are its control.
        checkpoint: the table that a model was trained with.
        cameras: those that the model looks at; None: those that the table uses.

    Raises:
        ValueError: another embodiment, or differences that no transform bridges, with both sides.
    """

    def __init__(
        self, harness: Robot, checkpoint: Robot, cameras: Sequence[str] | None = None
    ) -> None:
        if harness.embodiment != checkpoint.embodiment:
            raise ValueError(
                f"expected a model for {harness.embodiment!r}, got one for "
                f"{checkpoint.embodiment!r}; its actions would be misread. Choose a checkpoint of "
                f"{harness.embodiment!r}, or fine-tune this one on data of that robot"
            )
        self.harness, self.checkpoint = harness, checkpoint
        self._problems: list[str] = []
        self._notes: list[str] = []
        if not math.isclose(harness.rate, checkpoint.rate, rel_tol=0.02):
            self._differ("rate", f"{harness.rate:g} Hz", f"{checkpoint.rate:g} Hz")
        self._cameras = self._match_cameras(checkpoint.used_cameras(cameras))
        self._state = self._match_state()
        self._action = self._match_action()
        self.notes: tuple[str, ...] = tuple(self._notes)
        """Differences that are bridged, each a line."""
        if self._problems:
            raise ValueError(
                f"robot: expected a checkpoint that fits the environment's {harness.name}, got one "
                f"of {checkpoint.name} that differs in what no transform bridges: "
                f"{'; '.join(self._problems)} (the environment's against the checkpoint's). Choose "
                "an environment that does as the recordings, or train on recordings that do as "
                "the environment"
            )
        self.reset()

    def reset(self) -> None:
        """Start an episode: grippers are open until they are told otherwise."""
        self._held = {part.name: np.zeros(part.width) for part in self.checkpoint.action}

    # ---------------------------------------------------------------- what is seen

    def observation(self, observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What the environment shows as the checkpoint's robot has it: "<camera>" and "state".

        ValueError for a key that is missing, malformed or not finite.
        """
        wanted = [source.path for source, _, _ in self._cameras.values()]
        wanted += [source.path for source, _, _ in self._state]
        keys = sorted({column(path).name for path in wanted})
        if missing := [key for key in keys if key not in observation]:
            raise ValueError(
                f"expected observation keys {keys}, got {sorted(observation)} without "
                f'{", ".join(missing)}; make the environment with obs_mode="rgb"'
            )
        found: dict[str, np.ndarray] = {}
        for name, (source, _, turns) in self._cameras.items():
            image = np.asarray(observation[column(source.path).name])
            if image.ndim != 3 or image.dtype != np.uint8:
                raise ValueError(
                    f"observation[{source.path!r}]: expected uint8 RGB (H, W, 3), got "
                    f"{image.dtype} {image.shape}"
                )
            found[name] = np.ascontiguousarray(np.rot90(image, -turns)) if turns else image
        if self._state:
            found["state"] = np.concatenate(
                [
                    convert(observed_values(observation, source))
                    for source, _, convert in self._state
                ]
            ).astype(np.float32)
        return found

    # ---------------------------------------------------------------- what is done

    def control(self, action: np.ndarray) -> np.ndarray:
        """An action (A,) as the checkpoint's recordings have it -> the environment's, float32."""
        slices = self.checkpoint.slices("action")
        found = []
        for target, source, convert in self._action:
            if source is None:
                found.append(np.zeros(target.width))
                continue
            values = np.asarray(action, np.float32)[slices[source.name]]
            if source.mode == "pulse" and target.mode != "pulse":
                closed = _closedness(values, source)
                held = self._held[source.name]
                told = 2 * closed - 1
                values = np.where(np.abs(told) > 1e-3, (told > 0) * 1.0, held)
                self._held[source.name] = values
            found.append(convert(values))
        return np.concatenate(found).astype(np.float32)

    # ---------------------------------------------------------------- comparing

    def _differ(self, place: str, harness: Any, checkpoint: Any) -> None:
        self._problems.append(f"{place}: {harness} against {checkpoint}")

    def _match_cameras(self, wanted: Sequence[Camera]) -> dict[str, tuple[Camera, Camera, int]]:
        """Of each of the checkpoint's cameras: the environment's, and quarters to turn it by."""
        there = {row.name: row for row in self.harness.cameras}
        found = {}
        for row in wanted:
            other = there.get(row.name)
            if other is None and len(wanted) == len(there) == 1:
                (other,) = there.values()
                self._notes.append(f"camera {other.name} shows what {row.name} recorded")
            if other is None and row.present is not None:
                self._notes.append(f"camera {row.name} is absent")
            elif other is None:
                self._differ(f"cameras.{row.name}", f"none ({', '.join(there)})", f"{row.view} one")
            elif other.view != row.view:
                self._differ(f"cameras.{row.name}", other.view, row.view)
            else:
                self._compare_sizes(other, row)
                found[row.name] = (other, row, (other.rotate - row.rotate) // 90 % 4)
        return found

    def _compare_sizes(self, harness: Camera, checkpoint: Camera) -> None:
        if harness.size and checkpoint.size and harness.size != checkpoint.size:
            sizes = [f"{size[0]} x {size[1]}" for size in (harness.size, checkpoint.size)]
            self._notes.append(
                f"cameras.{checkpoint.name}: {sizes[0]} where the recordings have {sizes[1]}"
            )
        if harness.rotate != checkpoint.rotate:
            turn = (harness.rotate - checkpoint.rotate) % 360
            self._notes.append(f"cameras.{checkpoint.name}: turned by {turn} degrees")

    def _match_state(self) -> list[tuple[Part, Part, Convert]]:
        """The checkpoint's parts in order: the environment's, its own, and the way between."""
        found = []
        for part in self.checkpoint.state:
            source = _counterpart(part, self.checkpoint.state, self.harness.state)
            place = f"state.{part.name}"
            if source is None:
                self._differ(place, _without(self.harness, "state"), _words(part))
            elif convert := self._convert(place, source, part, source, part):
                found.append((source, part, convert))
        return found

    def _match_action(self) -> list[tuple[Part, Part | None, Convert]]:
        """The environment's parts in order: its own, the checkpoint's, and the way between."""
        found, used = [], set()
        for part in self.harness.action:
            source = _counterpart(part, self.harness.action, self.checkpoint.action)
            place = f"action.{part.name}"
            if source is None:
                if part.mode in _STILL:
                    self._notes.append(f"{place} is never commanded: zeros")
                    found.append((part, None, _same))
                else:
                    self._differ(place, _words(part), _without(self.checkpoint, "action"))
                continue
            used.add(source.name)
            if self._same_mode(place, part, source) and (
                convert := self._convert(place, part, source, source, part)
            ):
                found.append((part, source, convert))
        for part in self.checkpoint.action:
            if part.name not in used and not any(
                _counterpart(row, self.harness.action, self.checkpoint.action) is part
                for row in self.harness.action
            ):
                place = f"action.{part.name}"
                self._differ(place, _without(self.harness, "action"), _words(part))
        return found

    def _same_mode(self, place: str, harness: Part, checkpoint: Part) -> bool:
        gripper = {"pulse", "absolute"}
        if harness.mode != checkpoint.mode:
            if harness.kind != "gripper" or {harness.mode, checkpoint.mode} != gripper:
                self._differ(f"{place}.mode", harness.mode, checkpoint.mode)
                return False
            self._notes.append(f"{place}: {checkpoint.mode} -> {harness.mode}")
        elif harness.mode == "delta" and harness.against != checkpoint.against:
            self._notes.append(
                f"{place}: added to the {harness.against} value where the recordings' is a change "
                f"of the {checkpoint.against} one"
            )
        return True

    def _convert(
        self, place: str, harness: Part, checkpoint: Part, source: Part, target: Part
    ) -> Convert | None:
        """From values of `source` to those of `target`; None, with the problem, where there is no
        way."""
        posed = harness.kind in ("position", "rotation")
        if posed and harness.frame != checkpoint.frame:
            self._differ(f"{place}.frame", harness.frame, checkpoint.frame)
            return None
        if harness.kind not in ("rotation", "gripper") and harness.width != checkpoint.width:
            self._differ(place, _words(harness), _words(checkpoint))
            return None
        if harness.kind == "gripper":
            return self._gripper(place, source, target)
        before, after = source.factor, target.factor
        same_scale = np.array_equal(before, after)
        if harness.kind == "rotation" and source.form != target.form:
            self._notes.append(f"{place}: {source.form} -> {target.form}")
            return lambda values: _turn(values * before, source, target) / after
        if same_scale:
            return _same
        scales = [f"{part.unit} times {part.scale}" for part in (source, target)]
        self._notes.append(f"{place}: {' -> '.join(scales)}")
        return lambda values: values * (before / after)

    def _gripper(self, place: str, source: Part, target: Part) -> Convert:
        ends = [(part.open, part.closed) for part in (source, target)]
        if source.mode == "pulse" and target.mode != "pulse":
            return lambda closed: _recorded(_as_many(closed, target), target)
        if source.mode == target.mode and ends[0] == ends[1] and source.width == target.width:
            return _same
        if source.mode != target.mode:  # a target becomes a command, repeated at every step

            def command(values: np.ndarray) -> np.ndarray:
                closed = _as_many(_closedness(values, source), target)
                return _recorded((closed > 0.5) * 1.0, target)

            return command
        words = [f"open {start}, closed {end}" for start, end in ends]
        self._notes.append(f"{place}: {' -> '.join(words)}")
        return lambda values: _recorded(_as_many(_closedness(values, source), target), target)


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _counterpart(part: Part, own: Sequence[Part], others: Sequence[Part]) -> Part | None:
    """The part of another table that means the same: of its name and kind, or the only one of a
    kind in both."""
    for other in others:
        if other.name == part.name and other.kind == part.kind:
            return other
    alike = [other for other in others if other.kind == part.kind]
    if len(alike) == 1 and sum(row.kind == part.kind for row in own) == 1:
        return alike[0]
    return None


def _turn(values: np.ndarray, source: Part, target: Part) -> np.ndarray:
    return from_quaternion(as_quaternion(values, str(source.form)), str(target.form))


def _closedness(values: np.ndarray, part: Part) -> np.ndarray:
    low, high = np.asarray(part.open), np.asarray(part.closed)
    return (np.asarray(values, np.float64) - low) / (high - low)


def _recorded(closed: np.ndarray, part: Part) -> np.ndarray:
    low, high = np.asarray(part.open), np.asarray(part.closed)
    return low + closed * (high - low)


def _as_many(closed: np.ndarray, part: Part) -> np.ndarray:
    """Of another number of fingers: their mean."""
    return closed if len(closed) == part.width else np.full(part.width, closed.mean())


def _words(part: Part) -> str:
    mode = f"{part.mode} " if part.mode else ""
    form = f" as {part.form}" if part.form else ""
    return f"{mode}{part.kind}{form} of {part.width} values in the {part.frame} frame"


def _without(robot: Robot, group: str) -> str:
    names = ", ".join(part.name for part in getattr(robot, group))
    return f"none ({names or 'nothing'})"
