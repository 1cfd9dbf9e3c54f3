"""Features of frozen layers at a uniform noise level, with noise that never changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor

from selfflow_wm.flow.noising import interpolate, mode_levels
from selfflow_wm.flow.sampler import draw_noise
from selfflow_wm.layout import Batch, Layout, null_caption, only_row

Labelled = tuple[Batch, Int[Tensor, "B"]]

POOLS = ("mean", "none")


@dataclass(frozen=True)
class Features:
    """M rows: one per sample, or one per valid token of every sample."""

    values: Float[Tensor, "M D"]
    labels: Int[Tensor, "M"]
    sample: Int[Tensor, "M"]
    """Index of the row's sample, 0, 1, ... in the order of the batches."""


@torch.no_grad()
def extract(
    model: Callable,
    layout: Layout,
    batches: Iterable[Labelled],
    layer: int,
    level: float,
    *,
    modality: str,
    pool: str = "mean",
    seed: int = 0,
    captions: bool = False,
    device: torch.device | str = "cpu",
) -> Features:
    """The tokens of `modality` after block `layer` (counted from 1) at noise level `level`.

    Every generated modality of a batch sits at t = `level`, given ones at 0. A sample's noise
    depends on `seed` and its index alone: the same for every layer, level and checkpoint, and
    whatever the batch size.

    pool: "mean" over the valid tokens of a sample, or "none", a row per valid token.
    captions: False replaces every caption by the null caption: a caption may name the label.
    ValueError on batches that do not fit the layout, or without `modality`.
    """
    _check(level, pool, seed)
    values, labels, samples, seen = [], [], [], 0
    given, modality = modality, only_row(modality, layout.names)
    for batch, label in batches:
        if modality != given:
            batch = _renamed(batch, given, modality)
        _check_batch(batch, label, layout, modality)
        index = torch.arange(seen, seen + batch.batch_size)
        tokens = _tokens(model, layout, batch.to(device), layer, level, index, modality, captions,
                         seed)  # fmt: skip
        valid = batch.valid.get(modality)
        valid = torch.ones(tokens.shape[:2]) if valid is None else valid.float()
        rows, row = _pool(tokens.float(), valid.to(tokens.device), pool)
        values.append(rows)
        labels.append(label.cpu()[row.cpu()])
        samples.append(index[row.cpu()])
        seen += batch.batch_size
    if not values:
        raise ValueError("expected at least one labelled batch, got none")
    return Features(torch.cat(values), torch.cat(labels), torch.cat(samples))


def _tokens(
    model: Callable,
    layout: Layout,
    batch: Batch,
    layer: int,
    level: float,
    index: Int[Tensor, "B"],
    modality: str,
    captions: bool,
    seed: int,
) -> Float[Tensor, "B n D"]:
    ids, mask = batch.text_ids, batch.text_mask
    if not captions:
        everyone = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        ids, mask = null_caption(ids, mask, everyone, layout.null_id)
    t = torch.full((len(ids),), float(level), device=ids.device)
    # The CPU generator reads 32 bits of a seed. An odd step spreads the seeds over them, so that
    # the samples of one hardly meet those of the next.
    starts = [(seed * 0x9E3779B1 + int(i)) % (1 << 32) for i in index]
    generators = [torch.Generator().manual_seed(start) for start in starts]
    noise = draw_noise(layout, batch.generated, len(ids), generators)
    noisy = dict(batch.latents)
    for name in batch.generated:
        noisy[name] = interpolate(noisy[name], noise[name].to(noisy[name]), t)
    return model(
        noisy,
        mode_levels(layout, batch.latents, batch.given, t),
        ids,
        mask,
        valid=batch.valid,
        feature_layer=layer,
        stop_at_feature=True,
        outputs=frozenset([modality]),
    ).features


def _pool(
    tokens: Float[Tensor, "B n D"], valid: Float[Tensor, "B n"], pool: str
) -> tuple[Float[Tensor, "M D"], Int[Tensor, "M"]]:
    """Rows, and the row of the batch each came from."""
    batch_size, count = valid.shape
    row = torch.arange(batch_size, device=tokens.device)
    if pool == "none":
        keep = rearrange(valid, "b n -> (b n)").bool()
        return rearrange(tokens, "b n d -> (b n) d")[keep], row.repeat_interleave(count)[keep]
    total = valid.sum(1, keepdim=True)
    if (total == 0).any():
        raise ValueError("expected a valid token in every sample, got a sample without; drop it")
    weight = rearrange(valid / total, "b n -> b n 1")
    return reduce(tokens * weight, "b n d -> b d", "sum"), row


def _check(level: float, pool: str, seed: int) -> None:
    if not 0.0 <= level <= 1.0:
        raise ValueError(f"expected a noise level in [0, 1], got {level}")
    if pool not in POOLS:
        raise ValueError(f"expected a pool among {POOLS}, got {pool!r}")
    if not 0 <= seed < 1 << 31:
        raise ValueError(f"expected a seed in 0..2^31 - 1, got {seed}")


def _renamed(batch: Batch, before: str, now: str) -> Batch:
    """The batch with another name for one of its modalities."""
    latents, valid = (
        {now if name == before else name: value for name, value in values.items()}
        for values in (batch.latents, batch.valid)
    )
    return replace(batch, latents=latents, valid=valid)


def _check_batch(batch: Batch, label: Tensor, layout: Layout, modality: str) -> None:
    batch.check(layout)
    if modality not in batch.latents:
        raise ValueError(
            f"expected batches with the modality {modality!r}, got {tuple(batch.latents)}; "
            "probe one of these"
        )
    if label.shape != (batch.batch_size,) or label.is_floating_point():
        raise ValueError(
            f"expected integer labels of shape ({batch.batch_size},), got {label.dtype} "
            f"{tuple(label.shape)}"
        )
