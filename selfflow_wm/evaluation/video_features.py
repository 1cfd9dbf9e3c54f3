"""Networks whose features FVDs are of, from the disk: I3D as TorchScript, VideoMAE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from selfflow_wm.codec.weights import file_digest, in_batches
from selfflow_wm.evaluation import local_models

I3D_OPTION, VIDEOMAE_OPTION = "--features video=i3d", "--features video=videomae"

I3D_VALUES, VIDEOMAE_VALUES = 1 << 24, 1 << 24
"""Input values (pixels times channels) that the networks take at once."""


class I3DFeatures:
    """Features by the TorchScript I3D that FVD (Unterthiner et al. 2018) is usually measured with
    in PyTorch, i3d_torchscript.pt of StyleGAN-V (Skorokhodov et al. 2022), which scales by itself.

    weights: the file. TorchScript is a program, so take it from a source you trust.
    Any module with its signature will do: float32 (B, 3, T, H, W) in 0..255 and the flags
    rescale, resize and return_features, all True, to (B, D).
    """

    def __init__(self, weights: Path | str | None, device: torch.device | str = "cpu") -> None:
        if not weights:
            raise ValueError(f"{I3D_OPTION}: expected i3d:FILE, got no file")
        path = Path(weights)
        if not path.is_file():
            raise ValueError(
                f"{path}: expected the TorchScript of I3D, got nothing there; put StyleGAN-V's "
                "i3d_torchscript.pt there, nothing is downloaded"
            )
        try:
            self.network = torch.jit.load(str(path), map_location=device).eval()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: expected TorchScript, got {_last_line(error)}") from None
        self.device = torch.device(device)
        self.name = f"I3D {file_digest(path)[:12]}"

    def __call__(self, samples: UInt8[np.ndarray, "B T H W 3"]) -> Float[np.ndarray, "B D"]:
        """Features; ValueError with the network's error for videos that it can't take."""
        try:
            features = in_batches(self._extract, torch.from_numpy(samples.copy()), I3D_VALUES)
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, torch.jit.Error) as error:
            raise ValueError(
                f"{self.name}: expected videos that it can take, got {samples.shape[1:]}: "
                f"{_last_line(error)}; I3D halves the time several times, give it 10 frames or more"
            ) from None
        if not isinstance(features, Tensor) or features.ndim != 2:
            raise ValueError(f"{self.name}: expected features (B, D), got another result")
        return features.cpu().numpy()

    def _extract(self, videos: Tensor) -> Tensor:
        pixels = rearrange(videos.to(self.device).float(), "b t h w c -> b c t h w").contiguous()
        try:
            return self.network(pixels, rescale=True, resize=True, return_features=True).float()
        except RuntimeError as error:
            # TorchScript loses the type that `in_batches` waits for.
            if "out of memory" in str(error):
                raise torch.cuda.OutOfMemoryError(str(error)) from None
            raise


def _last_line(error: Exception) -> str:
    """TorchScript's errors are tracebacks."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


class VideoMAEFeatures:
    """The mean over the tokens of a VideoMAE (Tong et al. 2022) in transformers' format.

    A video is given to it as its own preparation would: as many frames as the model takes, spread
    evenly from the first to the last (some twice if there are fewer), their shorter side scaled to
    its size (bilinear, antialiased), cropped in the middle, normalised by preprocessor_config.json.
    A fine-tuned model's norm of the mean is applied; its classifier is not.

    path: a local directory. Needs the extra `evaluation`.
    """

    def __init__(self, path: Path | str | None, device: torch.device | str = "cpu") -> None:
        path, config = local_models.open_directory(VIDEOMAE_OPTION, path, "videomae")
        settings = local_models.read_settings(
            path, "preprocessor_config.json", "video_preprocessor_config.json"
        )
        tuned = "VideoMAEForVideoClassification" in (config.get("architectures") or [])
        if tuned:
            model: Any = local_models.load(
                path, "VideoMAEForVideoClassification", ("videomae.", "fc_norm."), device
            )
            self.network, self.norm = model.videomae, model.fc_norm
        else:
            self.network = local_models.load(path, "VideoMAEModel", ("",), device)
            self.norm = None
        try:
            mean, std = (torch.tensor(settings[name]) for name in ("image_mean", "image_std"))
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{path}: expected image_mean and image_std in preprocessor_config.json, got none"
            ) from None
        self.mean, self.std = (x.float().view(-1, 1, 1).to(device) for x in (mean, std))
        side = self.network.config.image_size
        self.size = (side, side) if isinstance(side, int) else tuple(side)
        self.frames = int(self.network.config.num_frames)
        self.device = torch.device(device)
        self.name = (
            f"VideoMAE {local_models.digest(path)}, {self.frames} frames spread evenly, "
            "mean over tokens"
        )

    def __call__(self, samples: UInt8[np.ndarray, "B T H W 3"]) -> Float[np.ndarray, "B D"]:
        """Of videos of any number of frames and any size."""
        which = np.linspace(0, samples.shape[1] - 1, self.frames).round().astype(int)
        videos = torch.from_numpy(samples[:, which])
        return in_batches(self._extract, videos, VIDEOMAE_VALUES).cpu().numpy()

    def _extract(self, videos: UInt8[Tensor, "b t h w 3"]) -> Float[Tensor, "b D"]:
        frames = rearrange(videos.to(self.device).float(), "b t h w c -> (b t) c h w") / 255
        pixels = (_cover(frames, self.size) - self.mean) / self.std
        hidden = self.network(
            pixel_values=rearrange(pixels, "(b t) c h w -> b t c h w", t=self.frames)
        ).last_hidden_state
        mean = hidden.mean(1)
        return mean if self.norm is None else self.norm(mean)


def _cover(frames: Float[Tensor, "n 3 h w"], size: tuple[int, int]) -> Float[Tensor, "n 3 H W"]:
    """Scaled until they cover (H, W), cropped in the middle."""
    height, width = frames.shape[2:]
    scale = max(size[0] / height, size[1] / width)
    scaled = (max(size[0], round(height * scale)), max(size[1], round(width * scale)))
    frames = F.interpolate(
        frames, size=scaled, mode="bilinear", align_corners=False, antialias=True
    )
    top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    return frames[:, :, top : top + size[0], left : left + size[1]]
