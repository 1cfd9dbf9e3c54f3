"""The toy world: from an integer to a sample."""

from __future__ import annotations

from selfflow_wm.data.toy.clips import figure, shapes
from selfflow_wm.data.toy.config import KINDS, SPLITS, ToyConfig
from selfflow_wm.data.toy.contacts import bounce, tap
from selfflow_wm.data.toy.signs import sign
from selfflow_wm.data.toy.sounds import sound
from selfflow_wm.data.toy.truth import Sample

_MAKERS = dict(zip(KINDS, (sign, shapes, figure, sound, bounce, tap), strict=True))


class ToyWorld:
    """Samples rendered on the fly: the same for a seed in every process, without end.

    A seed belongs to one split (`SPLITS`). Some words, and a fifth of the pairs of attributes,
    appear only in samples of the test split, whose ground truth says so.
    """

    def __init__(self, config: ToyConfig | None = None) -> None:
        self.config = config or ToyConfig()

    def sample(self, kind: str, seed: int) -> Sample:
        """What `seed` shows of a kind of `KINDS`. ValueError for other kinds and seeds."""
        if kind not in _MAKERS:
            raise ValueError(f"expected a kind of {KINDS}, got {kind!r}")
        return _MAKERS[kind](seed, self.config)

    def seed(self, split: str, index: int) -> int:
        """The seed of a split's sample number `index`."""
        if split not in SPLITS:
            raise ValueError(f"expected a split of {tuple(SPLITS)}, got {split!r}")
        seeds = SPLITS[split]
        if not 0 <= index < len(seeds):
            raise ValueError(f"expected an index in 0..{len(seeds) - 1} of {split}, got {index}")
        return seeds[index]
