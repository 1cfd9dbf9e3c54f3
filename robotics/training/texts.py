"""The instructions of the data: how long they are, and what is said of them before training."""

from __future__ import annotations

from robotics.data.batches import Dataset
from robotics.data.mixture import DatasetMixture

LONGEST = 256
"""Bytes that the model reads at most where the configuration states no length."""
_STEP = 16
_SHOWN = 60
"""Characters of an instruction in a line."""


def texts_of(dataset: Dataset) -> set[str]:
    """The distinct instructions of all sets."""
    parts = dataset.parts.values() if isinstance(dataset, DatasetMixture) else [dataset]
    return {str(text) for part in parts for text in part.instructions}


def sizes(dataset: Dataset) -> dict[str, int]:
    """Instruction -> bytes without surrounding blanks, in order."""
    return {text: len(text.strip().encode()) for text in sorted(texts_of(dataset))}


def text_length(dataset: Dataset, stated: int | None) -> int:
    """Bytes of an instruction that the model reads: as stated, or the longest of the data, rounded
    up to a multiple of 16, at most `LONGEST`."""
    if stated is not None:
        return int(stated)
    longest = max(sizes(dataset).values(), default=0)
    return min(LONGEST, max(1, -(-longest // _STEP)) * _STEP)


def text_lines(dataset: Dataset, length: int) -> list[str]:
    """Lines on the instructions that the model sees the beginning of, and on missing ones."""
    found = sizes(dataset)
    cut = [text for text, size in found.items() if size > length]
    lines = []
    if cut:
        example = cut[0] if len(cut[0]) <= _SHOWN else f"{cut[0][:_SHOWN]}..."
        lines.append(
            f"text        {len(cut)} of {len(found)} instructions are cut after {length} bytes, "
            f"such as {example!r}; layout.text_length={max(found.values())} keeps them whole"
        )
    if empty := _without(dataset):
        steps, total = empty
        lines.append(
            f"text        {steps} of {total} steps have no instruction"
            + ("" if steps < total else ": the model is trained without")
        )
    return lines


def _without(dataset: Dataset) -> tuple[int, int] | None:
    """Steps without an instruction, and all; None where every step has one."""
    parts = dataset.parts.values() if isinstance(dataset, DatasetMixture) else [dataset]
    empty = sum(part.steps_without_instruction for part in parts)
    return (empty, len(dataset)) if empty else None
