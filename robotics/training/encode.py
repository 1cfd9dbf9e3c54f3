"""Every frame of a data set to latents, with the codec that training will have."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robotics.data.augment import Augment
from robotics.data.cache import latents
from robotics.data.cameras import camera_names
from robotics.data.sources import open_dataset
from robotics.data.windows import WindowDataset
from robotics.embodiment.robot import Robot
from robotics.embodiment.tables import load_robot
from robotics.model.modes import VIDEO, camera_of, kind_of, robot_of
from robotics.training.fit import fit_codecs
from selfflow_wm.checkpoints import find_checkpoint
from selfflow_wm.cli import Shard, compute_device
from selfflow_wm.codec import Codec, ResidualCodec
from selfflow_wm.files import locked
from selfflow_wm.progress import Progress
from selfflow_wm.training import checkpoint
from selfflow_wm.training.model_files import read_codecs

_CLIPS = (
    "expected a codec whose video is made of single frames' latents, got one of clips: each "
    "window's clip is encoded as a whole. Train from the pixels, with latents=null"
)


def encode(
    config: DictConfig,
    out: Path,
    *,
    split: str = "train",
    checkpoint_dir: Path | None = None,
    dtype: str = "float16",
    variants: int = 1,
    augment: Augment | None = None,
    shard: Shard = (1, 1),
    progress: bool = True,
) -> dict[str, Any]:
    """Write (or continue) the cache `out`; returns counts of this call: shards written and
    skipped, frames, seconds.

    shard: (i, n), this process's share: every n-th shard of the data from the i-th on, i from 1.
    ValueError for a slice as split (shards are encoded whole), or an `out` with another key.
    """
    number, ranks = shard
    if not 1 <= number <= ranks:
        raise ValueError(f"expected a share from 1 to {ranks}, got {number}")
    if "[" in split:
        raise ValueError(f"expected a whole split, got {split!r}: shards are encoded whole")
    if checkpoint_dir is None and "video" in config.codec:  # before anything is opened or fitted
        raise ValueError(_CLIPS)
    robot = load_robot(_plain(config.spec))
    cameras = camera_names(_plain(config.dataset), robot)
    if (out / "key.json").is_file():
        _check_key(out, robot.recorded_cameras(cameras))
    device = compute_device(config.device)
    with locked(out / ".lock"):  # one process at a time fits the codecs and writes the key
        codecs = _codecs(config, out, robot, cameras, checkpoint_dir)
        sizes = {camera: codec.base.image_size for camera, codec in codecs.items()}
        dataset = open_dataset(config, split, sizes)
        recorded = latents.of_recorded(codecs, dataset.robot)
        images = {camera: codec.base for camera, codec in recorded.items()}
        key = latents.make_key(
            images,
            dataset.robot.rate,
            dataset,
            dtype=dtype,
            variants=variants,
            augment=augment,
        )
        _claim(out, key)
    mine = dataset.sources[number - 1 :: ranks]
    counts = {"written": 0, "skipped": 0, "frames": 0, "seconds": 0.0}
    begun = time.perf_counter()
    total = sum(source.steps for source in mine) * variants * len(images)
    with Progress(total, description="encoding", unit="frame", quiet=not progress) as bar:
        write = partial(
            latents.encode_shard, out, key, dataset,
            augment=augment, device=device, on_frames=bar.add,
        )  # fmt: skip
        for source in mine:
            frames, written = source.steps * variants, 0
            for camera, codec in images.items():
                if write(source, camera, codec):
                    written += 1
                else:
                    bar.add(frames)
            counts["written" if written else "skipped"] += 1
            counts["frames"] += frames * written
    counts["seconds"] = time.perf_counter() - begun
    return counts


def _plain(section: Any) -> Any:
    """A part of the configuration as plain values."""
    if not OmegaConf.is_config(section):
        return section
    return OmegaConf.to_container(section, resolve=True)


def _check_key(out: Path, cameras: Sequence[str]) -> None:
    """ValueError for a directory that holds latents of other cameras or of an earlier version."""
    latents.read_key(out, cameras)
    if latents.camera_folder(out, cameras[0]) == out:
        raise ValueError(
            f"{out}: expected latents of version {latents.VERSION}, got those of version 1, which "
            "can be trained from and not added to; choose another --out"
        )


def _codecs(
    config: DictConfig,
    out: Path,
    robot: Robot,
    cameras: Sequence[str],
    checkpoint_dir: Path | None,
) -> dict[str, ResidualCodec]:
    """Camera -> the checkpoint's codec, or the one already in `out`, or one fitted and put
    there."""
    there = [camera for camera in cameras if latents.has_codec(out, camera)]
    if checkpoint_dir is not None:
        found = _of_checkpoint(checkpoint_dir, robot, cameras)
        for camera in there:
            if latents.load_codec(out, camera).hash() != found[camera].hash():
                raise ValueError(
                    f"{out}: expected latents of the codec of {checkpoint_dir}, got another "
                    "codec's; choose another --out, or delete this one"
                )
    elif len(there) == len(cameras):
        return {camera: latents.load_codec(out, camera) for camera in cameras}
    else:
        train: WindowDataset = open_dataset(config, config.dataset.train_split)
        fitted = fit_codecs(train, _plain(config.codec), config.seed)
        found = {camera: _of_frames(fitted[camera]) for camera in cameras}
    for camera in cameras:
        if camera not in there:
            latents.save_codec(out, camera, found[camera])
    return found


def _of_checkpoint(place: Path, robot: Robot, cameras: Sequence[str]) -> dict[str, ResidualCodec]:
    """The codecs of a checkpoint by camera; the only one of a checkpoint is that of an only
    camera, whatever its name."""
    rows = {n: c for n, c in read_codecs(find_checkpoint(place)).items() if kind_of(n) == VIDEO}
    if len(rows) == len(cameras) == 1:
        return {cameras[0]: _of_frames(next(iter(rows.values())))}
    mine = {camera_of(n): c for n, c in rows.items() if robot_of(n) in (None, robot.name)}
    if missing := [camera for camera in cameras if camera not in mine]:
        raise ValueError(
            f"{place}: expected codecs of the cameras {', '.join(cameras)} of robot {robot.name}, "
            f"got none of {', '.join(missing)} but {', '.join(rows) or 'none'}; choose cameras "
            "with dataset.cameras=[...], or leave --checkpoint out"
        )
    return {camera: _of_frames(mine[camera]) for camera in cameras}


def _of_frames(codec: Codec | None) -> ResidualCodec:
    if not isinstance(codec, ResidualCodec):
        raise ValueError(_CLIPS)
    return codec


def _claim(out: Path, key: dict[str, Any]) -> None:
    """Put the key into `out`, or refuse if another one is there."""
    if not (out / "key.json").is_file():
        checkpoint.write_json(out / "key.json", key)
        return
    before = latents.read_key(out)
    if differing := sorted(name for name in key if key[name] != before.get(name)):
        raise ValueError(
            f"{out}: expected latents of these settings, got a directory with other "
            f"{', '.join(differing)}; rerun its command, choose another --out, or delete it"
        )
