"""The toy world as sources to train on: rendered on the fly, nothing on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfflow_wm.data.source import JOINT
from selfflow_wm.data.toy import truth
from selfflow_wm.data.toy.config import SPLITS, ToyConfig
from selfflow_wm.data.toy.world import ToyWorld

RENDERED: dict[str, tuple[str, ...]] = {
    "image": ("sign",),
    "video": ("shapes", "figure"),
    "audio": ("sound",),
    JOINT: ("bounce", "tap"),
}
"""Kinds of sources, and the kinds of the toy world that take turns in them."""


class ToySource:
    """Sample n is the toy world's n-th of a split, the same in every process and every run.

    Validation gets samples of another split (`held_out`), which shares no seed with training; of
    what only the test split shows (`data.toy.config`) neither has any.

    Args:
        kind: of `data.source.KINDS`.
        samples: how many there are. Nothing is kept of them, so many cost no more than few.
        split: of `data.toy.SPLITS`.
        world: a `ToyConfig`, or its arguments.
    """

    def __init__(
        self,
        kind: str,
        samples: int = 100_000,
        split: str = "train",
        world: ToyConfig | Mapping[str, Any] | None = None,
    ) -> None:
        if kind not in RENDERED:
            raise ValueError(f"expected a kind out of {sorted(RENDERED)}, got {kind!r}")
        if split not in SPLITS or not 1 <= samples <= len(SPLITS[split]):
            raise ValueError(
                f"expected a split out of {sorted(SPLITS)} and samples within it, got {split!r} "
                f"and {samples}; take fewer"
            )
        self.kind, self.samples, self.split = kind, samples, split
        config = world if isinstance(world, ToyConfig) else ToyConfig(**dict(world or {}))
        self.world = ToyWorld(config)

    def __len__(self) -> int:
        return self.samples

    def rendering(self, index: int) -> truth.Sample:
        """Sample `index` with its ground truth."""
        kinds = RENDERED[self.kind]
        return self.world.sample(kinds[index % len(kinds)], self.world.seed(self.split, index))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return as_sample(self.rendering(index), self.world.config)

    def held_out(self, count: int) -> ToySource:
        """As many samples of the validation split."""
        return ToySource(self.kind, count, "validation", self.world.config)


def as_sample(made: truth.Sample, config: ToyConfig) -> dict[str, Any]:
    """A rendering as `data.source.Sample`."""
    sample: dict[str, Any] = {"caption": made.caption}
    if made.image is not None:
        sample["image"] = made.image
    if made.video is not None:
        sample["video"] = made.video
    if made.audio is not None:
        sample |= {"audio": made.audio[None], "sample_rate": config.sample_rate}
    return sample
