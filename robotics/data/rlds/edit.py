"""Changes to one serialised record: other instructions, fewer steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robotics.data.rlds.convert import parse_example
from robotics.data.rlds.schema import Leaf
from robotics.embodiment.columns import column
from robotics.embodiment.recording import Instruction
from robotics.embodiment.robot import Robot

FIRST = ("steps/is_first",)
LAST = ("steps/is_last", "steps/is_terminal", "steps/reward", "steps/discount")
"""Features whose value at the first or last step belongs to that end, wherever it is."""


def relabelled(
    record: bytes,
    where: str,
    instruction: Instruction,
    stored: Mapping[str, Leaf],
    text: str | None,
    texts: Sequence[tuple[str, str]],
) -> bytes:
    """The record with other instructions; the same bytes where nothing changes.

    Args:
        record: serialised `tf.train.Example`.
        where: the episode, for messages.
        instruction: where instructions are.
        stored: how features are stored.
        text: the instruction of the whole episode, of every path; None: see `texts`.
        texts: (as it is, as it is to be), the spaces around it ignored; the first that fits counts.

    Raises:
        ValueError: no `Example`, or characters that do not fit.
    """
    example = parse_example(record, where)
    features, changed = example.features.feature, False
    for path in instruction.paths:
        key = column(path).key
        if key not in features:
            continue
        if stored[key].kind == "bytes_list":
            values = features[key].bytes_list.value
            for step, value in enumerate(values):
                new = _new(value.decode("utf-8", "replace"), text, texts)
                if new is not None and new.encode() != value:
                    values[step], changed = new.encode(), True
        else:
            changed |= _characters(features[key].int64_list.value, stored[key], where, text, texts)
    return example.SerializeToString() if changed else record


def _new(old: str, text: str | None, texts: Sequence[tuple[str, str]]) -> str | None:
    if text is not None:
        return text
    return next((new for before, new in texts if before.strip() == old.strip()), None)


def _characters(
    values: Any, leaf: Leaf, where: str, text: str | None, texts: Sequence[tuple[str, str]]
) -> bool:
    """Instructions as code points, padded with 0 to the feature's width."""
    width, changed = leaf.width or len(values), False
    for start in range(0, len(values), width):
        codes = list(values[start : start + width])
        end = codes.index(0) if 0 in codes else width
        new = _new("".join(map(chr, codes[:end])), text, texts)
        if new is None:
            continue
        if len(new) > width:
            raise ValueError(
                f"{where}: expected an instruction of at most {width} characters, got {len(new)}; "
                "shorten it"
            )
        row = [ord(letter) for letter in new] + [0] * (width - len(new))
        if row != codes:
            values[start : start + width], changed = row, True
    return changed


def trimmed(
    record: bytes, where: str, stored: Mapping[str, Leaf], first: int, last: int, robot: Robot
) -> bytes:
    """The record with steps first ... last - 1 alone; what marks the ends stays at the ends.

    Raises:
        ValueError: no `Example`, or steps that hold sequences of varying length.
    """
    example = parse_example(record, where)
    features = example.features.feature
    ends = {*LAST, *(column(path).key for path in (robot.terminate, robot.reward) if path)}
    for key in features:
        if not key.startswith("steps/"):
            continue
        leaf = stored.get(key)
        if leaf is None or not leaf.width:
            raise ValueError(
                f"{where}: expected steps of a fixed number of values, got {key!r} of varying "
                "length; leave --trim-idle out"
            )
        values: Any = getattr(features[key], leaf.kind).value
        rows = list(values)
        kept = rows[first * leaf.width : last * leaf.width]
        if key in FIRST:
            kept[: leaf.width] = rows[: leaf.width]
        if key in ends:
            kept[-leaf.width :] = rows[-leaf.width :]
        del values[:]
        values.extend(kept)
    return example.SerializeToString()
