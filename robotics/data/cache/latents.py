"""The latent cache: every frame's latents, encoded once, memory-mapped, and refused when stale.

A cache directory holds `key.json` (what the latents depend on), `codec/` (the codec that made them)
and one `SHARD.npy` (variants, steps, n, C) for every shard of the dataset, named by the contents of
the shard and the size of its frames. `python -m robotics.encode` writes it; `latents=DIR` trains
from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import ArrayLike

from robotics.data.augment import Augment, apply
from robotics.data.recordings import Source
from robotics.data.windows import WindowDataset
from selfflow_wm.codec import ResidualCodec, codec_from_state
from selfflow_wm.codec.base import ImageCodec
from selfflow_wm.files import atomic_file
from selfflow_wm.training import checkpoint

VERSION = 1
"""Raise it when the meaning of a stored latent changes."""
DTYPES = ("float16", "float32")
CHUNK = 64
"""Frames encoded at a time."""
_STREAM = 8  # separates the draws of variants from others with the same seed


class LatentCache:
    """Windows of `dataset` with latents in place of frames.

    Args:
        directory: written by `python -m robotics.encode`.
        dataset: any split of the data that was encoded, read with one camera.
        codec: the image codec of the model to train.
        control_hz: rate of the dataset's steps.
        seed: decides, with the epoch, which variant a window gets.

    Raises:
        ValueError: no complete cache, or one of another codec, frame size, rate or data.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        dataset: WindowDataset,
        codec: ImageCodec,
        *,
        control_hz: float,
        seed: int = 0,
    ) -> None:
        directory = Path(directory)
        key = read_key(directory)
        expected = codec_key(codec, control_hz)
        stale = sorted(name for name in expected if expected[name] != key[name])
        if stale:
            raise ValueError(
                f"{directory}: expected latents with "
                + ", ".join(f"{name} {_short(expected[name])}" for name in stale)
                + ", got "
                + ", ".join(f"{name} {_short(key[name])}" for name in stale)
                + "; encode again into another directory: python -m robotics.encode"
            )
        missing = [source.name for source in dataset.sources if source.name not in key["shards"]]
        if missing:
            raise ValueError(
                f"{directory}: expected latents of {len(dataset.sources)} shards of this dataset, "
                f"got none of {len(missing)} of them ({missing[0]} ...): the data or the frames' "
                "size changed since; encode again into another directory: python -m robotics.encode"
            )
        self.camera = only_camera(dataset)
        self.dataset, self.variants, self.seed = dataset, int(key["variants"]), int(seed)
        self._maps = []
        for source in dataset.sources:
            whole = _open(directory, key, source.name)
            self._maps.append(whole[:, source.first : source.first + source.steps])
        self._starts = np.cumsum([0] + [source.steps for source in dataset.sources])
        blank = torch.zeros(1, *codec.image_size, 3, dtype=torch.uint8)
        self._blank = codec.encode(blank)[0].cpu().numpy()

    def batch(
        self, indices: ArrayLike, epochs: ArrayLike | None = None, *, video: bool = True
    ) -> dict[str, Any]:
        """`WindowDataset.batch` without frames, but with image_latents/CAMERA float32 (B, n, C)
        and, if wanted, video_latents/CAMERA (B, F, n, C); with history, history_latents/CAMERA
        (B, P, n, C). What does not exist is a black frame's latents, as it is when encoded from
        pixels. All frames of a window are of one variant, drawn by (seed, epoch, window). epochs:
        (B,), default 0."""
        steps = np.asarray(indices, np.int64).reshape(-1)
        rows = np.zeros_like(steps) if epochs is None else np.asarray(epochs, np.int64)
        dataset, camera = self.dataset, self.camera
        samples = dataset.batch(steps, video=video, pixels=False, epochs=rows)
        variant = self._variants(steps, rows)
        samples[f"image_latents/{camera}"] = self.latents(steps, variant)
        if video:
            found = self._frames(*dataset.video_steps(steps), variant)
            samples[f"video_latents/{camera}"] = found
        if dataset.history_offsets:
            found = self._frames(*dataset.history_steps(steps), variant)
            samples[f"history_latents/{camera}"] = found
        return samples

    def _frames(self, index: np.ndarray, valid: np.ndarray, variant: np.ndarray) -> np.ndarray:
        frames = self.latents(index, np.broadcast_to(variant[:, None], index.shape))
        frames[~valid] = self._blank
        return frames

    def latents(self, steps: np.ndarray, variants: np.ndarray) -> np.ndarray:
        """float32 (..., n, C) of the frames of `steps` (...) in the given variants (...)."""
        flat, chosen = self.dataset.recorded_steps(steps).reshape(-1), variants.reshape(-1)
        shards = np.searchsorted(self._starts, flat, side="right") - 1
        places = flat - self._starts[shards]
        out = np.empty((len(flat), *self._blank.shape), np.float32)
        for row, (shard, variant, place) in enumerate(zip(shards, chosen, places, strict=True)):
            out[row] = self._maps[shard][variant, place]
        return out.reshape(*steps.shape, *self._blank.shape)

    def _variants(self, steps: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        if self.variants == 1:
            return np.zeros_like(steps)
        draws = [
            np.random.default_rng([self.seed, _STREAM, int(epoch), int(step)])
            for epoch, step in zip(epochs, steps, strict=True)
        ]
        return np.array([draw.integers(self.variants) for draw in draws])


def only_camera(dataset: WindowDataset) -> str:
    """The one camera whose frames a directory of latents holds; ValueError where there are more."""
    if len(dataset.cameras) > 1:
        raise ValueError(
            f"expected a data set read with one camera, got {', '.join(dataset.cameras)}: latents "
            f"are of one. Write dataset.cameras=[{dataset.cameras[0]}], or train from the pixels, "
            "with latents=null"
        )
    return dataset.cameras[0]


def codec_key(codec: ImageCodec, control_hz: float) -> dict[str, Any]:
    """The part of a key that the model to train decides."""
    return {
        "version": VERSION,
        "codec": codec.hash(),
        "image_size": list(codec.image_size),
        "latent_shape": [codec.grid[1] * codec.grid[2], codec.channels],
        "control_hz": float(control_hz),
    }


def make_key(
    codec: ImageCodec,
    control_hz: float,
    dataset: WindowDataset,
    *,
    dtype: str,
    variants: int,
    augment: Augment | None,
) -> dict[str, Any]:
    """All that the latents of `dataset` depend on, as JSON values."""
    if dtype not in DTYPES:
        raise ValueError(f"expected a dtype out of {DTYPES}, got {dtype!r}")
    if variants < 1 or (variants > 1 and augment is None):
        raise ValueError(
            f"expected variants >= 1, and an augmentation for more than one, got {variants} with "
            f"{'one' if augment else 'none'}; add --augment crop_colour"
        )
    only_camera(dataset)
    return {
        **codec_key(codec, control_hz),
        "dtype": dtype,
        "variants": variants,
        "augment": None if augment is None else augment.config,
        "shards": {source.name: source.steps for source in dataset.sources},
    }


def read_key(directory: Path) -> dict[str, Any]:
    """The key of a cache directory; ValueError when there is none or of another version."""
    _present(directory / "key.json")
    key = checkpoint.read_json(directory / "key.json")
    if key.get("version") != VERSION:
        raise ValueError(
            f"{directory}: expected a latent cache of version {VERSION}, got "
            f"{key.get('version')}; encode again into another directory"
        )
    return key


def _present(path: Path) -> None:
    if not path.exists():
        raise ValueError(
            f"{path.parent}: expected a latent cache with {path.name}, got none; write one with "
            "python -m robotics.encode --data DIR --out DIR"
        )


def save_codec(directory: Path, codec: ResidualCodec) -> None:
    """Keep the fitted codec beside the latents."""
    with checkpoint.atomic_directory(directory / "codec") as temporary:
        checkpoint.write_json(temporary / "config.json", codec.config)
        checkpoint.save_tensors(temporary / "codec.safetensors", codec.state_dict())


def load_codec(directory: Path) -> ResidualCodec:
    """The codec kept by `save_codec`; ValueError when there is none."""
    folder = Path(directory) / "codec"
    _present(folder)
    config = checkpoint.read_json(folder / "config.json")
    codec = codec_from_state(config, checkpoint.load_tensors(folder / "codec.safetensors"))
    if not isinstance(codec, ResidualCodec):
        raise ValueError(f"{folder}: expected a residual video codec, got {codec.kind!r}")
    return codec


def encode_shard(
    directory: Path,
    key: Mapping[str, Any],
    dataset: WindowDataset,
    source: Source,
    codec: ImageCodec,
    *,
    augment: Augment | None = None,
    device: torch.device | str = "cpu",
    on_frames: Callable[[int], None] = lambda count: None,
) -> bool:
    """Write the latents of one shard in one piece; returns False where they exist.

    A variant's transform is one for a whole episode, so it is consistent across every window, and
    follows from the seed, the variant, the shard's contents and the episode's place in it.
    """
    final = directory / f"{source.name}.npy"
    if final.is_file():
        _open(directory, key, source.name)
        return False
    first = sum(s.steps for s in dataset.sources[: dataset.sources.index(source)])
    recorded = dataset.recorded_episodes
    episodes = [e for e in recorded if first <= e.start < first + source.steps]
    shape = (key["variants"], source.steps, *key["latent_shape"])
    with atomic_file(final) as temporary:
        out = np.lib.format.open_memmap(temporary, "w+", np.dtype(key["dtype"]), shape)
        for variant in range(key["variants"]):
            for number, episode in enumerate(episodes):
                drawn = augment and augment.draw(variant, crc32(source.name.encode()), number)
                for begin in range(episode.start, episode.stop, CHUNK):
                    steps = np.arange(begin, min(begin + CHUNK, episode.stop))
                    frames = dataset.recorded_frames(steps)
                    if drawn:
                        frames = np.stack([apply(frame, *drawn) for frame in frames])
                    out[variant, steps - first] = _encoded(codec, frames, out.dtype, device)
                    on_frames(len(steps))
        out.flush()
        del out
    return True


def _encoded(
    codec: ImageCodec, frames: np.ndarray, dtype: np.dtype, device: torch.device | str
) -> np.ndarray:
    latents = codec.encode(torch.as_tensor(frames).to(device)).cpu().numpy()
    with np.errstate(over="ignore"):
        stored = latents.astype(dtype)
    if not np.isfinite(stored).all():
        raise ValueError(
            f"expected latents within the range of {dtype}, got up to {np.abs(latents).max():.3g}; "
            "store float32 with --dtype float32"
        )
    return stored


def _open(directory: Path, key: Mapping[str, Any], name: str) -> np.ndarray:
    path = directory / f"{name}.npy"
    shape = (key["variants"], key["shards"][name], *key["latent_shape"])
    if not path.is_file():
        raise ValueError(
            f"{path}: expected the latents of this shard, got no file: encoding has not finished. "
            "Rerun the same python -m robotics.encode command, which resumes"
        )
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.shape != shape or array.dtype != np.dtype(key["dtype"]):
        raise ValueError(
            f"{path}: expected {key['dtype']} {shape}, got {array.dtype} {array.shape}; delete the "
            "file and encode again"
        )
    return array


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)
