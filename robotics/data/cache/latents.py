"""The latent cache: every frame's latents, encoded once, memory-mapped, and refused when stale.

A cache directory holds `key.json` (what the latents depend on) and a folder for each camera with
`codec/` (the codec that made its latents) and one `SHARD.npy` (variants, steps, n, C) for every
shard of the dataset, named by the contents of the shard and the size of its frames.
`python -m robotics.encode` writes it; `latents=DIR` trains from it. Directories of version 1, of
one camera and without folders, are read as they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zlib import crc32

import numpy as np
import torch
from numpy.typing import ArrayLike

from robotics.data.augment import Augment, apply
from robotics.data.recordings import Source
from robotics.data.windows import WindowDataset
from robotics.embodiment.robot import Robot
from selfflow_wm.codec import ResidualCodec, codec_from_state
from selfflow_wm.codec.base import ImageCodec
from selfflow_wm.files import atomic_file
from selfflow_wm.training import checkpoint

VERSION = 2
"""Raise it when the meaning of a stored latent changes."""
DTYPES = ("float16", "float32")
CHUNK = 64
"""Frames encoded at a time."""
_UNNAMED = ""
"""The one camera of version 1, whose key has no name for it."""
_STREAM = 8  # separates the draws of variants from others with the same seed


class LatentCache:
    """Windows of `dataset` with latents in place of frames.

    Args:
        directory: written by `python -m robotics.encode`.
        dataset: any split of the data that was encoded, read with the same cameras.
        codecs: camera -> the image codec of the model to train.
        control_hz: rate of the dataset's steps.
        seed: decides, with the epoch, which variant a window gets.

    Raises:
        ValueError: no complete cache, or one of other cameras, codecs, frame sizes, rate or data.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        dataset: WindowDataset,
        codecs: Mapping[str, ImageCodec],
        *,
        control_hz: float,
        seed: int = 0,
    ) -> None:
        directory = Path(directory)
        recorded = of_recorded(codecs, dataset.robot)
        key = read_key(directory, list(recorded))
        check_same(directory, model_key(recorded, control_hz), key)
        missing = [source.name for source in dataset.sources if source.name not in key["shards"]]
        if missing:
            raise ValueError(
                f"{directory}: expected latents of {len(dataset.sources)} shards of this dataset, "
                f"got none of {len(missing)} of them ({missing[0]} ...): the data or the frames' "
                "size changed since; encode again into another directory: python -m robotics.encode"
            )
        self.dataset, self.variants, self.seed = dataset, int(key["variants"]), int(seed)
        self._maps = {
            camera: [_open(directory, key, camera, source) for source in dataset.sources]
            for camera in recorded
        }
        self._starts = np.cumsum([0] + [source.steps for source in dataset.sources])
        self._blank: dict[str, np.ndarray] = {}
        """Camera -> float32 (n, C), a black frame's latents."""
        for camera, codec in recorded.items():
            black = torch.zeros(1, *codec.image_size, 3, dtype=torch.uint8)
            self._blank[camera] = codec.encode(black)[0].cpu().numpy()

    def batch(
        self, indices: ArrayLike, epochs: ArrayLike | None = None, *, video: bool = True
    ) -> dict[str, Any]:
        """`WindowDataset.batch` without frames, but for each camera with image_latents/CAMERA
        float32 (B, n, C) and, if wanted, video_latents/CAMERA (B, F, n, C); with history,
        history_latents/CAMERA (B, P, n, C). What does not exist is a black frame's latents, as it
        is when encoded from pixels. All frames of a window are of one variant, drawn by (seed,
        epoch, window). epochs: (B,), default 0."""
        steps = np.asarray(indices, np.int64).reshape(-1)
        rows = np.zeros_like(steps) if epochs is None else np.asarray(epochs, np.int64)
        dataset = self.dataset
        samples = dataset.batch(steps, video=video, pixels=False, epochs=rows)
        variant = self._variants(steps, rows)
        kinds = {"image": (steps[:, None], np.ones((len(steps), 1), bool))}
        if video:
            kinds["video"] = dataset.video_steps(steps)
        if dataset.history_offsets:
            kinds["history"] = dataset.history_steps(steps)
        for camera, chosen in dataset.views.draw(steps, rows).items():
            for kind, (index, valid) in kinds.items():
                found = self._frames(camera, chosen, index, valid, variant)
                samples[f"{kind}_latents/{camera}"] = found[:, 0] if kind == "image" else found
        return samples

    def _frames(
        self,
        camera: str,
        chosen: np.ndarray,
        index: np.ndarray,
        valid: np.ndarray,
        variant: np.ndarray,
    ) -> np.ndarray:
        """float32 (B, F, n, C), see `Views.frames`."""
        frames = np.empty((*index.shape, *self._blank[camera].shape), np.float32)
        variants = np.broadcast_to(variant[:, None], index.shape)
        for number, name in enumerate(self.dataset.views.names[camera]):
            rows = chosen == number
            frames[rows] = self.latents(name, index[rows], variants[rows])
        frames[~valid] = self._blank[camera]
        return frames

    def latents(self, camera: str, steps: np.ndarray, variants: np.ndarray) -> np.ndarray:
        """float32 (..., n, C) of a recorded camera's frames of `steps` (...) in the given variants
        (...)."""
        flat, chosen = self.dataset.recorded_steps(steps).reshape(-1), variants.reshape(-1)
        shards = np.searchsorted(self._starts, flat, side="right") - 1
        places = flat - self._starts[shards]
        maps, shape = self._maps[camera], self._blank[camera].shape
        out = np.empty((len(flat), *shape), np.float32)
        for row, (shard, variant, place) in enumerate(zip(shards, chosen, places, strict=True)):
            out[row] = maps[shard][variant, place]
        return out.reshape(*steps.shape, *shape)

    def _variants(self, steps: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        if self.variants == 1:
            return np.zeros_like(steps)
        draws = [
            np.random.default_rng([self.seed, _STREAM, int(epoch), int(step)])
            for epoch, step in zip(epochs, steps, strict=True)
        ]
        return np.array([draw.integers(self.variants) for draw in draws])


def of_recorded(codecs: Mapping[str, Any], robot: Robot) -> dict[str, Any]:
    """What a model has of each camera, of every recorded one that may give its pictures."""
    names = list(codecs)
    of = {name: robot.camera(name).instead_of for name in robot.recorded_cameras(names)}
    return {name: codecs[name if name in codecs else str(of[name])] for name in of}


def model_key(codecs: Mapping[str, ImageCodec], control_hz: float) -> dict[str, Any]:
    """The part of a key that the model to train decides."""
    return {
        "version": VERSION,
        "control_hz": float(control_hz),
        "cameras": {
            camera: {
                "codec": codec.hash(),
                "image_size": list(codec.image_size),
                "latent_shape": [codec.grid[1] * codec.grid[2], codec.channels],
            }
            for camera, codec in codecs.items()
        },
    }


def check_same(directory: Path, expected: Mapping[str, Any], key: Mapping[str, Any]) -> None:
    """ValueError unless latents with `key` are those that `expected`, a `model_key` of the same
    cameras, asks for."""
    wanted, found = _settings(expected), _settings(key)
    if stale := sorted(name for name in wanted if wanted[name] != found[name]):
        raise ValueError(
            f"{directory}: expected latents with "
            + ", ".join(f"{name} {_short(wanted[name])}" for name in stale)
            + ", got "
            + ", ".join(f"{name} {_short(found[name])}" for name in stale)
            + "; encode again into another directory: python -m robotics.encode"
        )


def _settings(key: Mapping[str, Any]) -> dict[str, Any]:
    """What a model and its latents have in common, by names in words."""
    cameras: Mapping[str, Mapping[str, Any]] = key["cameras"]
    prefix = {camera: f"camera {camera}'s " if len(cameras) > 1 else "" for camera in cameras}
    return {"control_hz": key["control_hz"]} | {
        prefix[camera] + name: value
        for camera, row in cameras.items()
        for name, value in row.items()
    }


def make_key(
    codecs: Mapping[str, ImageCodec],
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
    return {
        **model_key(codecs, control_hz),
        "dtype": dtype,
        "variants": variants,
        "augment": None if augment is None else augment.config,
        "shards": {source.name: source.steps for source in dataset.sources},
    }


def read_key(directory: Path, cameras: Sequence[str] | None = None) -> dict[str, Any]:
    """The key of a cache directory, in the present version.

    cameras: those that the data are read with. ValueError when there is no key, one of another
    version, or one of other cameras.
    """
    _present(directory / "key.json")
    key = checkpoint.read_json(directory / "key.json")
    if key.get("version") not in (1, VERSION):
        raise ValueError(
            f"{directory}: expected a latent cache of version {VERSION}, got "
            f"{key.get('version')}; encode again into another directory: python -m robotics.encode"
        )
    if key["version"] == 1:
        row = {name: key.pop(name) for name in ("codec", "image_size", "latent_shape")}
        key |= {"version": VERSION, "cameras": {_UNNAMED: row | {"folder": "."}}}
    if cameras is not None:
        key["cameras"] = _of_cameras(directory, key["cameras"], cameras)
    return key


def _of_cameras(
    directory: Path, found: Mapping[str, Any], cameras: Sequence[str]
) -> dict[str, Any]:
    if list(found) == [_UNNAMED] and len(cameras) == 1:
        return {cameras[0]: found[_UNNAMED]}
    if set(found) != set(cameras):
        named = [camera for camera in found if camera != _UNNAMED]
        choice = f"read them with dataset.cameras=[{','.join(named)}], or " if named else ""
        raise ValueError(
            f"{directory}: expected latents of the cameras {', '.join(cameras)}, got those of "
            f"{', '.join(named) or 'one camera'}; {choice}encode again into another directory: "
            "python -m robotics.encode"
        )
    return {camera: found[camera] for camera in cameras}


def camera_folder(directory: Path, camera: str, key: Mapping[str, Any] | None = None) -> Path:
    """Where a camera's codec and latents are. key: of the directory, default read."""
    if key is None:
        key = read_key(directory) if (directory / "key.json").is_file() else {}
    rows = key.get("cameras", {})
    row = rows.get(camera, rows.get(_UNNAMED, {}))
    return directory / row.get("folder", quote(camera, safe=""))


def _present(path: Path) -> None:
    if not path.exists():
        raise ValueError(
            f"{path.parent}: expected a latent cache with {path.name}, got none; write one with "
            "python -m robotics.encode --data DIR --out DIR"
        )


def has_codec(directory: Path, camera: str) -> bool:
    """Whether a camera's codec is there already."""
    return (camera_folder(directory, camera) / "codec").is_dir()


def save_codec(directory: Path, camera: str, codec: ResidualCodec) -> None:
    """Keep a camera's fitted codec beside its latents."""
    folder = camera_folder(directory, camera)
    folder.mkdir(parents=True, exist_ok=True)
    with checkpoint.atomic_directory(folder / "codec") as temporary:
        checkpoint.write_json(temporary / "config.json", codec.config)
        checkpoint.save_tensors(temporary / "codec.safetensors", codec.state_dict())


def load_codec(directory: Path, camera: str) -> ResidualCodec:
    """The codec kept by `save_codec`; ValueError when there is none."""
    folder = camera_folder(directory, camera) / "codec"
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
    camera: str,
    codec: ImageCodec,
    *,
    augment: Augment | None = None,
    device: torch.device | str = "cpu",
    on_frames: Callable[[int], None] = lambda count: None,
) -> bool:
    """Write the latents of one shard's frames of a camera in one piece; returns False where they
    exist.

    A variant's transform is one for a whole episode, so it is consistent across every window, and
    follows from the seed, the variant, the shard's contents, the episode's place in it and the
    camera's among those that are read.
    """
    final = _file(directory, key, camera, source)
    if final.is_file():
        _open(directory, key, camera, source)
        return False
    first = sum(s.steps for s in dataset.sources[: dataset.sources.index(source)])
    recorded = dataset.recorded_episodes
    episodes = [e for e in recorded if first <= e.start < first + source.steps]
    shape = (key["variants"], source.steps, *key["cameras"][camera]["latent_shape"])
    # The first camera's draw is the same whatever other cameras there are, as in `Augment`.
    place = list(key["cameras"]).index(camera)
    with atomic_file(final) as temporary:
        out = np.lib.format.open_memmap(temporary, "w+", np.dtype(key["dtype"]), shape)
        for variant in range(key["variants"]):
            for number, episode in enumerate(episodes):
                drawing = (
                    variant,
                    crc32(source.name.encode()),
                    number,
                    *([place] if place else []),
                )
                drawn = augment and augment.draw(*drawing)
                for begin in range(episode.start, episode.stop, CHUNK):
                    steps = np.arange(begin, min(begin + CHUNK, episode.stop))
                    frames = dataset.recorded_frames(steps, camera)
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


def _file(directory: Path, key: Mapping[str, Any], camera: str, source: Source) -> Path:
    return camera_folder(directory, camera, key) / f"{source.name}.npy"


def _open(directory: Path, key: Mapping[str, Any], camera: str, source: Source) -> np.ndarray:
    """Latents (variants, steps, n, C) of a source's steps."""
    path = _file(directory, key, camera, source)
    stored = key["shards"][source.name]
    shape = (key["variants"], stored, *key["cameras"][camera]["latent_shape"])
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
    return array[:, source.first : source.first + source.steps]


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)
