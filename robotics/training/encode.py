"""Every frame of a data set to latents, with the codec that training will have."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robotics.data.augment import Augment
from robotics.data.cache import latents
from robotics.data.cameras import camera_sizes
from robotics.data.sources import open_dataset
from robotics.data.windows import WindowDataset
from robotics.embodiment.tables import load_robot
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
    _check_cameras(config)
    device = compute_device(config.device)
    with locked(out / ".lock"):  # one process at a time fits the codec and writes the key
        codec = _codec(config, out, checkpoint_dir)
        dataset = open_dataset(config, split, codec.base.image_size)
        key = latents.make_key(
            codec.base,
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
    total = sum(source.steps for source in mine) * variants
    with Progress(total, description="encoding", unit="frame", quiet=not progress) as bar:
        write = partial(
            latents.encode_shard, out, key, dataset, codec=codec.base,
            augment=augment, device=device, on_frames=bar.add,
        )  # fmt: skip
        for source in mine:
            if write(source):
                counts["written"] += 1
                counts["frames"] += source.steps * variants
            else:
                counts["skipped"] += 1
                bar.add(source.steps * variants)
    counts["seconds"] = time.perf_counter() - begun
    return counts


def _check_cameras(config: DictConfig) -> None:
    """ValueError for several cameras: a directory of latents is of one."""
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    cameras = list(camera_sizes(plain["dataset"], load_robot(plain["spec"])))
    if len(cameras) > 1:
        raise ValueError(
            f"expected a robot with one camera, got {', '.join(cameras)}; choose one with "
            f"dataset.cameras=[{cameras[0]}], or train from the pixels, with latents=null"
        )


def _codec(config: DictConfig, out: Path, checkpoint_dir: Path | None) -> ResidualCodec:
    """The checkpoint's codec, or the one already in `out`, or one fitted and put there."""
    there = (out / "codec").is_dir()
    if checkpoint_dir is not None:
        found = read_codecs(find_checkpoint(checkpoint_dir), ("video",)).get("video")
        codec = _of_frames(found)
        if there and latents.load_codec(out).hash() != codec.hash():
            raise ValueError(
                f"{out}: expected latents of the codec of {checkpoint_dir}, got another codec's; "
                "choose another --out, or delete this one"
            )
    elif there:
        return latents.load_codec(out)
    else:
        train: WindowDataset = open_dataset(config, config.dataset.train_split)
        plain: Any = OmegaConf.to_container(config.codec, resolve=True)
        (codec,) = map(_of_frames, fit_codecs(train, plain, config.seed).values())
    if not there:
        latents.save_codec(out, codec)
    return codec


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
