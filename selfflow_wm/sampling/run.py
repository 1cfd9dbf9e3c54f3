"""The loop over the images of one shard, and the files at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from selfflow_wm.defaults import SAMPLE_STEPS, SHIFT
from selfflow_wm.devices import to_device
from selfflow_wm.files import atomic_open
from selfflow_wm.flow.sampler import sample
from selfflow_wm.progress import Progress
from selfflow_wm.sampling.clips import Clips
from selfflow_wm.sampling.conditions import Captions, Labels, noise_seed
from selfflow_wm.sampling.decode import CodecDecoder
from selfflow_wm.sampling.parts import Parts, missing_numbers

GRID_IMAGES = 64


@dataclass(frozen=True)
class Solve:
    """How the flow is integrated; see `selfflow_wm.flow.sampler.sample`."""

    steps: int = SAMPLE_STEPS
    shift: float = SHIFT
    solver: str = "euler"
    guidance: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `sample`, without those at their defaults."""
        options: dict[str, Any] = {"steps": self.steps, "shift": self.shift}
        for name in ("solver", "guidance", "guidance_interval"):
            if getattr(self, name) != getattr(Solve, name):
                options[name] = getattr(self, name)
        return options


def shard_numbers(count: int, number: int, shards: int) -> range:
    """The image numbers of share `number` (from 1): consecutive, all shares as even as can be."""
    if shards < 1 or not 1 <= number <= shards:
        raise ValueError(f"expected a share from 1 to {shards}, got {number}")
    return range(count * (number - 1) // shards, count * number // shards)


def sample_images(
    model: Any,
    conditions: Labels | Captions,
    numbers: Sequence[int],
    solve: Solve,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    modality: str | None = None,
    clips: Clips | None = None,
) -> dict[str, Tensor]:
    """Latents (B, n, C) of the images `numbers`, each a function of its number and `seed` alone.

    Up to rounding, which differs between batch sizes and devices. By modality: those of `clips`;
    else `modality` alone, of a model of several (None: the only one). precision: "bfloat16" for
    autocast of the network; the state is float32.
    """
    device = torch.device(device)
    names = clips.mode.generated if clips else (modality,) if modality else model.layout.names
    ids, mask = conditions.text(numbers)
    generators = [torch.Generator().manual_seed(noise_seed(seed, n)) for n in numbers]
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        latents = sample(
            model,
            model.layout,
            clips.given(numbers) if clips else {},
            names,
            to_device(ids, device),
            to_device(mask, device),
            generator=generators,
            **solve.options(),
        )
    return {name: value.float() for name, value in latents.items()}


def run_shard(
    parts: Parts,
    model: Any,
    conditions: Labels | Captions,
    decoder: CodecDecoder | None,
    numbers: Sequence[int],
    solve: Solve,
    *,
    batch: int,
    seed: int,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    modality: str | None = None,
    clips: Clips | None = None,
) -> int:
    """Make the images of a shard that no part holds yet; returns their number.

    clips: instead of `decoder`, for video and audio."""
    todo = missing_numbers(numbers, parts.find())
    done = len(numbers) - len(todo)
    with Progress(len(numbers), done, description="sampling", unit="image") as progress:
        for start in range(0, len(todo), batch):
            some = todo[start : start + batch]
            latents = sample_images(
                model, conditions, some, solve,
                seed=seed, device=device, precision=precision, modality=modality, clips=clips,
            )  # fmt: skip
            if not all(value.isfinite().all() for value in latents.values()):
                raise ValueError(
                    f"expected finite latents, got nan or inf among images {some[0]}..{some[-1]}; "
                    "lower --guidance or use --precision float32"
                )
            if clips:
                parts.write(some, labels=None, **clips.decode(latents))
            else:
                [value] = latents.values()
                samples = decoder(value) if decoder else value.cpu()
                parts.write(some, samples.numpy(), conditions.labels(some))
            progress.add(len(some))
    return len(todo)


def finish(parts: Parts, count: int, pictures: bool, clips: Clips | None = None) -> list[Path]:
    """The files of a complete run; none while other shards' images are missing."""
    if missing_numbers(range(count), parts.find()):
        return []
    if clips:
        return clips.write(parts, count)
    if not pictures:
        return [parts.assemble("latents.npz", count)]
    grid = parts.out / "grid.png"
    picture = Image.fromarray(tile(parts.first(min(count, GRID_IMAGES))))
    with atomic_open(grid) as file:
        picture.save(file, format="PNG")
    return [parts.assemble("samples.npz", count), grid]


def tile(images: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, 3) as one picture, nearly square, row by row; black where none is left."""
    columns = int(np.ceil(len(images) ** 0.5))
    rows = -(-len(images) // columns)
    padding = np.zeros((rows * columns - len(images), *images.shape[1:]), images.dtype)
    return rearrange(np.concatenate([images, padding]), "(r c) h w d -> (r h) (c w) d", c=columns)
