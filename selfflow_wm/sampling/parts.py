"""Samples on disk during a run: whole parts or none, from any number of processes.

OUT/settings.json                    what makes the samples what they are
OUT/parts/part_00000000_00000063.npz image numbers and arrays of one batch
OUT/samples.npz or latents.npz       all of them in order, once none is missing
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfflow_wm.files import atomic_open, differing, read_json, write_json


def missing_numbers(wanted: Sequence[int], done: Mapping[int, Any]) -> list[int]:
    """Those of `wanted` that no part holds, in order."""
    return [number for number in wanted if number not in done]


def claim_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Write `out`/settings.json, or ValueError when what stands there differs."""
    file = Path(out) / "settings.json"
    # Through JSON once, so that tuples equal the lists they come back as.
    settings = json.loads(json.dumps(settings))
    if not file.exists():
        write_json(file, settings)
    before = read_json(file)
    if changed := differing(before, settings):
        now = {key: settings.get(key) for key in changed}
        then = {key: before.get(key) for key in changed}
        raise ValueError(
            f"{out}: expected the settings its samples were made with, {then}, got {now}; give "
            "another --out, or delete this one"
        )


class Parts:
    """The parts under `out`; ValueError when they were made with other `settings`.

    Processes need not know of each other: a part's name and content follow from the image
    numbers in it, and an existing part is never written again.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out = Path(out)
        self.folder = self.out / "parts"
        self.folder.mkdir(parents=True, exist_ok=True)
        claim_settings(self.out, settings)

    def write(
        self,
        numbers: Sequence[int],
        samples: np.ndarray,
        labels: np.ndarray | None,
        **more: np.ndarray,
    ) -> None:
        """Add one batch of samples, numbered in ascending order; more: of them, by name."""
        arrays = {"numbers": np.asarray(numbers, np.int64), "samples": samples, **more}
        if labels is not None:
            arrays["labels"] = labels
        path = self.folder / f"part_{numbers[0]:08d}_{numbers[-1]:08d}.npz"
        with atomic_open(path) as file:
            np.savez(file, **arrays)

    def find(self) -> dict[int, tuple[Path, int]]:
        """Image number -> the part that holds it and its row there."""
        found = {}
        for path in sorted(self.folder.glob("part_*.npz")):
            for row, number in enumerate(self._read(path, "numbers")["numbers"].tolist()):
                found[number] = (path, row)
        return found

    def assemble(self, name: str, count: int, array: str = "samples") -> Path:
        """Write samples 0..count - 1 in order to `name`, as ADM's evaluation reads them.

        `arr_0` holds the samples (or another `array` of theirs), `arr_1` the class labels of
        class-conditional ones. One part at a time is in memory: 50,000 images of 256 pixels are
        10 GB.
        """
        found = self.find()
        if missing := missing_numbers(range(count), found):
            raise ValueError(f"expected all {count} samples, got {len(missing)} too few; run again")
        first = next(self._rows(found, 1))
        path = self.out / name
        with (
            atomic_open(path) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
        ):
            with archive.open("arr_0.npy", "w", force_zip64=True) as member:
                sample = first[array]
                header = {"shape": (count, *sample.shape), "fortran_order": False}
                header["descr"] = np.lib.format.dtype_to_descr(sample.dtype)
                np.lib.format.write_array_header_1_0(member, header)
                labels = []
                for row in self._rows(found, count):
                    member.write(np.ascontiguousarray(row[array]).tobytes())
                    labels.append(row.get("labels"))
            if "labels" in first:
                with archive.open("arr_1.npy", "w") as member:
                    np.lib.format.write_array(member, np.array(labels, np.int64))
        return path

    def first(self, count: int) -> np.ndarray:
        """Samples 0..count - 1, stacked."""
        return np.stack([row["samples"] for row in self.rows(count)])

    def rows(self, count: int) -> Iterator[dict[str, np.ndarray]]:
        """Samples 0..count - 1, each with all its arrays."""
        return self._rows(self.find(), count)

    def _rows(self, found: Mapping[int, tuple[Path, int]], count: int) -> Iterator[dict]:
        opened, arrays = None, {}
        for number in range(count):
            path, row = found[number]
            if path != opened:
                opened, arrays = path, self._read(path)
            yield {key: value[row] for key, value in arrays.items()}

    def _read(self, path: Path, *names: str) -> dict[str, np.ndarray]:
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in names or file.files}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path}: expected a part of this run, got an unreadable file ({error}); delete "
                "it, its images will be made again"
            ) from None
