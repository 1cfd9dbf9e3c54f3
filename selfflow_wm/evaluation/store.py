"""Measurements on disk during an evaluation: whole batches or none.

OUT/measured/KEY/MODE/batch_00000000.npz   of one batch: numbers of the samples, their columns and
                                           features, and the samples themselves of the first few
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from selfflow_wm.files import atomic_open
from selfflow_wm.sampling.parts import missing_numbers

RAW = "raw/"
"""Prefix of the samples that are kept to be shown."""


class Measured:
    """The measured samples of one mode and one origin (a checkpoint, or true renderings)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def missing(self, count: int) -> list[int]:
        """Those of the samples 0..count - 1 that are not there."""
        return missing_numbers(range(count), self._found())

    def write(
        self,
        numbers: Sequence[int],
        columns: Mapping[str, np.ndarray],
        raw: Mapping[str, np.ndarray],
    ) -> None:
        """Add a batch: a row of every column for each number, and of `raw` for the first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays = {"numbers": np.asarray(numbers, np.int64), **columns}
        arrays |= {RAW + name: value for name, value in raw.items()}
        path = self.folder / f"batch_{numbers[0]:08d}.npz"
        with atomic_open(path) as file:
            np.savez_compressed(file, **arrays)

    def columns(self, count: int) -> dict[str, np.ndarray]:
        """Every column of the samples 0..count - 1, in order."""
        parts = [self._read(path) for path in self._paths()]
        numbers = np.concatenate([part["numbers"] for part in parts])
        order = np.argsort(numbers)
        order = order[np.searchsorted(numbers[order], np.arange(count))]
        names = [name for name in parts[0] if name != "numbers" and not name.startswith(RAW)]
        return {name: np.concatenate([part[name] for part in parts])[order] for name in names}

    def raw(self, count: int) -> dict[str, np.ndarray]:
        """The first samples themselves, at most `count`, by modality."""
        shown: dict[str, list[np.ndarray]] = {}
        for path in self._paths():
            for name, value in self._read(path).items():
                if name.startswith(RAW):
                    shown.setdefault(name.removeprefix(RAW), []).append(value)
        return {name: np.concatenate(values)[:count] for name, values in shown.items()}

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("batch_*.npz"))

    def _found(self) -> dict[int, Path]:
        return {
            number: path
            for path in self._paths()
            for number in self._read(path)["numbers"].tolist()
        }

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path}: expected measurements of this run, got an unreadable file ({error}); "
                "delete it, they will be made again"
            ) from None
