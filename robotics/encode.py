"""Encode every frame of an RLDS data set once, so that training reads latents, not pictures.

python -m robotics.encode --data DIR --out DIR experiment=embedded
python -m robotics.encode --data DIR --out DIR --checkpoint runs/sf/checkpoint experiment=embedded
"""

from __future__ import annotations

import argparse
import fcntl
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robotics.data.augment import Augment
from robotics.data.cache import latents
from robotics.data.windows import WindowDataset
from robotics.embodiment.table import embodiment
from robotics.finetune import compose_config, open_dataset, pick_device
from robotics.model.files import read_codec
from robotics.training.fit import fit_codecs
from selfflow_wm.cli import Parser, exit_code
from selfflow_wm.codec import PairedCodec, ResidualCodec
from selfflow_wm.training import checkpoint

HELP = """\
Words after the flags are those of python -m robotics.finetune (experiment=..., dataset=...,
codec=..., embodiment=..., seed=...): they say which frames and, without --checkpoint, which codec
is fitted to dataset.train_split. Then train with the same words and latents=OUT.

Repeat the command to go on after an interruption. To share the work, give each process its --shard;
the directory is complete when all have finished. Latents take, per variant and frame, tokens x
channels x 2 bytes (float16): 12 KiB for 96 x 128 pixels in patches of 16 with 128 channels.

    python -m robotics.encode --data data/demo --out latents/demo experiment=embedded
    python -m robotics.encode --data data/demo --out latents/aug experiment=embedded \\
        --variants 4 --augment crop_colour --shard 0/2
    python -m robotics.finetune experiment=embedded data=data/demo latents=latents/demo out=runs/a
"""


_CLIPS = (
    "expected a codec whose video is made of single frames' latents, got one of clips: each "
    "window's clip has latents of its own. Train from the pixels, with latents=null"
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
    shard: tuple[int, int] = (0, 1),
    progress: bool = True,
) -> dict[str, Any]:
    """Write (or go on writing) the cache `out`; returns counts of this call: shards written and
    skipped, frames, seconds.

    shard: (i, n), this process's part: every n-th shard of the data from the i-th on.
    ValueError for a slice as split (shards are encoded whole), or an `out` with another key.
    """
    number, ranks = shard
    if not 0 <= number < ranks:
        raise ValueError(f"expected --shard i/n with 0 <= i < n, got {number}/{ranks}")
    if "[" in split:
        raise ValueError(f"expected a whole split, got {split!r}: shards are encoded whole")
    if checkpoint_dir is None and "video" in config.codec:  # before anything is opened or fitted
        raise ValueError(_CLIPS)
    device = pick_device(config.device)
    with _locked(out):
        codec = _codec(config, out, checkpoint_dir)
        dataset = open_dataset(config, split, codec.base.image_size)
        key = latents.make_key(
            codec.base,
            embodiment(config.embodiment).control_hz,
            dataset,
            dtype=dtype,
            variants=variants,
            augment=augment,
        )
        _claim(out, key)
    mine = dataset.sources[number::ranks]
    counts = {"written": 0, "skipped": 0, "frames": 0, "seconds": 0.0}
    begun = time.perf_counter()
    with _progress(sum(source.steps for source in mine) * variants, progress) as advance:
        for source in mine:
            written = latents.encode_shard(
                out,
                key,
                dataset,
                source,
                codec.base,
                augment=augment,
                device=device,
                on_frames=advance,
            )
            counts["written" if written else "skipped"] += 1
            if written:
                counts["frames"] += source.steps * variants
            else:
                advance(source.steps * variants)
    counts["seconds"] = time.perf_counter() - begun
    return counts


def _codec(config: DictConfig, out: Path, checkpoint_dir: Path | None) -> ResidualCodec:
    """The checkpoint's codec, or the one already in `out`, or one fitted and put there."""
    there = (out / "codec").is_dir()
    if checkpoint_dir is not None:
        codec = _of_frames(read_codec(checkpoint_dir))
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
        codec = _of_frames(fit_codecs(train, plain, config.seed))
    if not there:
        latents.save_codec(out, codec)
    return codec


def _of_frames(codec: ResidualCodec | PairedCodec) -> ResidualCodec:
    if not isinstance(codec, ResidualCodec):
        raise ValueError(_CLIPS)
    return codec


def _claim(out: Path, key: dict[str, Any]) -> None:
    """Put the key into `out`, or refuse if another one is there."""
    if not (out / "key.json").is_file():
        with checkpoint.atomic_file(out / "key.json") as temporary:
            checkpoint.write_json(temporary, key)
        return
    before = latents.read_key(out)
    if differing := sorted(name for name in key if key[name] != before.get(name)):
        raise ValueError(
            f"{out}: expected latents of these settings, got a directory with other "
            f"{', '.join(differing)}; repeat its command, choose another --out, or delete it"
        )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """One process at a time fits the codec and writes the key."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _progress(frames: int, shown: bool) -> Iterator[Any]:
    """Yields what to call with a number of frames done; shows the rate and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    class Rate(TextColumn):
        def render(self, task):
            self.text_format = f"{task.speed or 0:.0f} frames/s, ETA"
            return super().render(task)

    columns = (TextColumn("encoding"), BarColumn(), MofNCompleteColumn(), Rate(""), Remaining())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("encoding", total=frames)
        yield lambda count: bar.advance(task, count)


def _shard(text: str) -> tuple[int, int]:
    try:
        number, ranks = (int(part) for part in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected i/n such as 0/4, got {text!r}") from None
    return number, ranks


def main(argv: Sequence[str] | None = None) -> int:
    """Entry; returns the exit status, see `selfflow_wm.cli.exit_code`."""
    parser = Parser(prog="python -m robotics.encode", description=__doc__, epilog=HELP)
    parser.add_argument("--data", required=True, help="RLDS data set")
    parser.add_argument("--out", required=True, type=Path, help="directory of the latents")
    parser.add_argument("--checkpoint", type=Path, help="take the codec of this checkpoint")
    parser.add_argument("--split", default="train", help="whole split to encode; train")
    parser.add_argument("--dtype", default="float16", choices=latents.DTYPES)
    parser.add_argument("--variants", type=int, default=1, help="augmented variants; 1")
    parser.add_argument("--augment", metavar="NAME", help="a file of configs/augment")
    parser.add_argument("--shard", type=_shard, default=(0, 1), metavar="i/n", help="0/1")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="see below")
    given = parser.parse_intermixed_args(argv)
    return exit_code(lambda: _work(given), resumable=True)


def _work(given: argparse.Namespace) -> None:
    words = [*given.overrides, f"data={given.data}"]
    config = compose_config([*words, *([f"augment={given.augment}"] if given.augment else [])])
    settings: Any = OmegaConf.to_container(config.augment) if given.augment else None
    counts = encode(
        config,
        given.out,
        split=given.split,
        checkpoint_dir=given.checkpoint,
        dtype=given.dtype,
        variants=given.variants,
        augment=None if settings is None else Augment(**settings, seed=config.seed),
        shard=given.shard,
    )
    rate = counts["frames"] / max(counts["seconds"], 1e-9)
    print(
        f"{counts['written']} shards written, {counts['skipped']} there already; "
        f"{counts['frames']} frames in {counts['seconds']:.1f} s ({rate:.0f} frames/s); {given.out}"
    )


if __name__ == "__main__":
    sys.exit(main())
