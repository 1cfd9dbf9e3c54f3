"""Instructions of steps, of which several may say the same."""

from __future__ import annotations

import numpy as np

_STREAM = 11  # separates these draws from others with the same seed


class Texts:
    """The instructions of n steps.

    Args:
        texts: distinct ones.
        number: int (n, K) into `texts`, for K that say the same; some may be empty.
        seed: of the draws.
    """

    def __init__(self, texts: np.ndarray, number: np.ndarray, seed: int) -> None:
        self.texts, self.number, self.seed = texts, number, seed

    def draw(self, steps: np.ndarray, epochs: np.ndarray) -> list[str]:
        """An instruction of each step (B,): of several that are not empty, one that follows from
        the seed, the epoch and the step; "" where there is none."""
        number = self.number[steps]
        if number.shape[1] == 1:
            return self.texts[number[:, 0]].tolist()
        found = []
        for row, step, epoch in zip(number, steps.tolist(), epochs.tolist(), strict=True):
            choices = [text for text in self.texts[row].tolist() if text.strip()]
            if len(choices) < 2:
                found.append("".join(choices))
                continue
            generator = np.random.default_rng([self.seed, _STREAM, epoch, step])
            found.append(choices[generator.integers(len(choices))])
        return found

    def without(self) -> int:
        """How many steps have no instruction."""
        blank = np.array([not str(text).strip() for text in self.texts], bool)
        return int(blank[self.number].all(axis=1).sum())
