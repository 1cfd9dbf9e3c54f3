"""How good imagined frames and actions are: errors per window, pooled, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from einops import rearrange, reduce

from selfflow_wm.intervals import Bootstrap, percentiles

DRAWS = 2000
"""Resamples of episodes behind an interval."""

MOVING = 8.0
"""A patch moves when its pixels change by more than this on average (of 255)."""

LARGEST_PATCH = 16
"""Pixels."""


def patch_side(height: int, width: int) -> int:
    """The side of the square patches that frames are judged in: the largest that divides both,
    up to `LARGEST_PATCH` pixels."""
    common = math.gcd(height, width)
    return max(side for side in range(1, LARGEST_PATCH + 1) if common % side == 0)


def squared_errors(true: np.ndarray, predicted: np.ndarray, patch: int) -> np.ndarray:
    """Mean squared error of every patch: uint8 (W, F, H, W', 3) twice -> (W, F, patches)."""
    difference = true.astype(np.float32) - predicted.astype(np.float32)
    return reduce(difference**2, "w f (h p) (v q) c -> w f (h v)", "mean", p=patch, q=patch).astype(
        np.float64
    )


def moving_patches(current: np.ndarray, true: np.ndarray, patch: int) -> np.ndarray:
    """Which patches of the true future frames differ from the current frame: (W, F, patches)."""
    change = np.abs(true.astype(np.float32) - current[:, None].astype(np.float32))
    return reduce(change, "w f (h p) (v q) c -> w f (h v)", "mean", p=patch, q=patch) > MOVING


def ssim(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Structural similarity of each frame, (W, F), by scikit-image (window 7, per channel)."""
    from skimage.metrics import structural_similarity

    flat = [rearrange(frames, "w f h v c -> (w f) h v c") for frames in (true, predicted)]
    values = [structural_similarity(a, b, channel_axis=2) for a, b in zip(*flat, strict=True)]
    return np.asarray(values).reshape(true.shape[:2])


def interval(point: float, resampled: np.ndarray) -> dict[str, Any]:
    """{"mean", "low", "high"}: an estimate and its 95% percentile interval; None if undefined."""
    low, high = percentiles(resampled)
    if not np.isfinite(point) or low is None:
        return {"mean": None, "low": None, "high": None}
    return {"mean": float(point), "low": low, "high": high}


def video_scores(
    current: np.ndarray,
    true: np.ndarray,
    valid: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    episode: np.ndarray,
) -> dict[str, Any]:
    """PSNR (dB) and SSIM of each prediction and their gain over the one called "copy".

    current uint8 (W, H, W', 3); true and predictions uint8 (W, F, H, W', 3); valid (W, F).
    PSNR is that of the squared error pooled over windows: a still window copied perfectly would
    otherwise count as infinite. Reported for all windows ("all"), for windows in which a patch
    moves ("moving windows"), and for the moving patches alone ("moving patches"). Which patches
    move is read off the true frames, for all predictions alike; "patch" among the counts is their
    side (see `patch_side`).
    """
    patch = patch_side(*true.shape[2:4])
    moving = moving_patches(current, true, patch) & valid[..., None]
    windows = moving.any(axis=(1, 2), keepdims=True)
    bootstrap = Bootstrap(episode, DRAWS)
    errors = {name: squared_errors(true, frames, patch) for name, frames in predictions.items()}
    similarity = {name: ssim(true, frames) for name, frames in predictions.items()}
    every = np.broadcast_to(valid[..., None], moving.shape)
    regions = {
        "all": every,
        "moving windows": every & windows,
        "moving patches": moving,
    }
    counts = {
        "windows": len(current),
        "episodes": len(bootstrap.names),
        "moving": int(windows.sum()),
        "patch": patch,
    }
    report: dict[str, Any] = {"counts": counts}
    for region, mask in regions.items():
        psnr = {name: _psnr(bootstrap, error, mask) for name, error in errors.items()}
        rows = {"PSNR": psnr}
        if region != "moving patches":
            frames = mask.any(-1)
            rows["SSIM"] = {
                name: bootstrap.ratio((value * frames).sum(1), frames.sum(1))
                for name, value in similarity.items()
            }
        report[region] = {metric: _with_gain(values) for metric, values in rows.items()}
    return report


def _psnr(bootstrap: Bootstrap, error: np.ndarray, mask: np.ndarray) -> tuple[float, np.ndarray]:
    point, resampled = bootstrap.ratio((error * mask).sum((1, 2)), mask.sum((1, 2)))
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(255**2 / np.float64(point))), 10 * np.log10(255**2 / resampled)


def _with_gain(values: Mapping[str, tuple[float, np.ndarray]]) -> dict[str, Any]:
    rows = {name: interval(*value) for name, value in values.items()}
    copy = values["copy"]
    for name, value in values.items():
        if name != "copy":
            with np.errstate(invalid="ignore"):  # two perfect ones: infinity minus infinity
                rows[f"{name} - copy"] = interval(value[0] - copy[0], value[1] - copy[1])
    return rows


def action_scores(
    true: np.ndarray, valid: np.ndarray, predictions: Mapping[str, np.ndarray], episode: np.ndarray
) -> dict[str, Any]:
    """Mean squared error of normalised motions (W, n, D) and its share of the "mean"'s.

    valid (W, n). A share of 1 is no better than always predicting the data's mean action, 0 is
    perfect.
    """
    bootstrap = Bootstrap(episode, DRAWS)
    squared = {
        name: bootstrap.ratio((((true - p) ** 2).mean(-1) * valid).sum(1), valid.sum(1))
        for name, p in predictions.items()
    }
    base = squared["mean"]
    rows = {name: {"MSE": interval(*value)} for name, value in squared.items()}
    for name, value in squared.items():
        rows[name]["share"] = interval(value[0] / base[0], value[1] / base[1])
    return rows
