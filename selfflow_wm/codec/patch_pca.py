"""Principal components of image patches: a linear autoencoder that one matmul computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from selfflow_wm.codec.base import ImageCodec, check_frames, check_image_size, check_latents, take
from selfflow_wm.codec.principal import check_whitening, latent_scale, principal_axes, subset

_STD_FLOOR = 1e-3
"""In units of pixels scaled to [-1, 1]: components flatter than this are not amplified."""


def _scaled(pixels: Tensor) -> Tensor:
    """uint8 to float64 in [-1, 1]."""
    return pixels.double() / 127.5 - 1.0


class PatchPCA(ImageCodec):
    """Non-overlapping `patch` x `patch` pixels to their first principal components.

    A token holds a square of `pack` x `pack` patches. Components of large patches are waves
    across the patch; those of small ones, packed, say where in the token a thing is.

    Pixels are scaled to [-1, 1]. Component c has coefficient standard deviation std_c over the
    fitted patches, and its latent is coeff_c / (std_c^p * g). The exponent `whitening` = p
    runs from 0 (one global scale; a component keeps its share of the variance) to 1 (every
    component has variance 1, fine detail weighs as much as brightness); g makes the mean
    variance over components 1, so the noise of the flow has the scale of the data. The
    reconstruction error does not depend on p.

    Args:
        image_size: (H, W) pixels, both divisible by `patch`.
        patch: side of a patch in pixels.
        channels: values of a token, pack^2 times the components kept of a patch, of which there
            are at most 3 * patch^2.
        whitening: p in [0, 1].
        per_position: subtract the mean patch of each place of the grid instead of the mean of all
            patches. Under a camera that hardly moves, what stands still then goes to zero and
            what is left are the things that differ: objects, the robot, the light.
        pack: side of a token in patches.
    """

    kind = "patch_pca"

    def __init__(
        self,
        image_size: Sequence[int],
        patch: int,
        channels: int,
        whitening: float = 0.5,
        per_position: bool = False,
        pack: int = 1,
    ) -> None:
        side = patch * pack
        height, width = self.image_size = check_image_size(image_size, side)
        if channels % pack**2 or not 1 <= channels // pack**2 <= 3 * patch**2:
            raise ValueError(
                f"expected channels in 1..{3 * side**2}, a multiple of pack^2 = {pack**2}, "
                f"got {channels}"
            )
        self.patch, self.channels = int(patch), int(channels)
        self.whitening = check_whitening(whitening)
        self.per_position, self.pack = bool(per_position), int(pack)
        self.components = channels // pack**2
        self._cells = (height // patch) * (width // patch)
        self.grid = (1, height // side, width // side)
        self._mean: Tensor | None = None

    @property
    def config(self) -> dict[str, Any]:
        # Left out when off: the fingerprints of codecs from before they existed stay valid.
        off = {"per_position": False, "pack": 1}
        return {k: v for k, v in super().config.items() if k not in off or v != off[k]}

    def fit(
        self,
        images: UInt8[Tensor, "... H W 3"],
        max_patches: int = 100_000,
        seed: int = 0,
    ) -> PatchPCA:
        """Fit on `images`, on a random subset of `max_patches` of their patches. Returns self.

        The covariance is accumulated and decomposed in float64, and each component's largest
        weight is positive, so that the same patches give the same codec.
        """
        frames = self._patches(check_frames(images, self.image_size)).flatten(0, -3)
        patches = frames.flatten(0, 1)
        places = torch.arange(frames.shape[1]).repeat(len(frames))
        chosen = subset(len(patches), max_patches, seed)
        patches, places = patches[chosen], places[chosen]
        if len(patches) <= self.components:
            raise ValueError(
                f"expected more than {self.components} patches to fit, got {len(patches)}; give "
                "more images or keep fewer channels"
            )
        mean = self._mean_patches(patches, places)
        centred = (
            _scaled(chunk) - (mean[place] if self.per_position else mean)
            for chunk, place in zip(patches.split(8192), places.split(8192), strict=True)
        )
        self._set(mean, *principal_axes(centred, self.components))
        return self

    def _mean_patches(self, patches: Tensor, places: Tensor) -> Tensor:
        """The mean patch in float64, (D,) or one for each place of the grid (n, D)."""
        rows = self._cells if self.per_position else 1
        sums = torch.zeros(rows, patches.shape[1], dtype=torch.float64)
        counts = torch.zeros(rows, 1, dtype=torch.float64)
        places = places if self.per_position else torch.zeros_like(places)
        for chunk, place in zip(patches.split(8192), places.split(8192), strict=True):
            sums.index_add_(0, place, _scaled(chunk))
            counts.index_add_(0, place, torch.ones(len(place), 1, dtype=torch.float64))
        mean = sums / counts.clamp(min=1)
        return mean if self.per_position else mean[0]

    def _set(self, mean: Tensor, basis: Tensor, std: Tensor) -> None:
        """Hold the fit in float32 and fold the pixel and latent scales into one affine map."""
        self._mean, self._basis, self._std = (
            x.to(torch.float32).contiguous() for x in (mean, basis, std)
        )
        mean, basis, std = self._mean.double(), self._basis.double(), self._std.double()
        scale = latent_scale(std, self.whitening, _STD_FLOOR)
        encoder = basis / scale
        decoder = (basis * scale).T
        self._encode_weight = (encoder / 127.5).float()
        self._encode_bias = (-(mean + 1.0) @ encoder).float()
        self._decode_weight = (decoder * 127.5).float()
        self._decode_bias = ((mean + 1.0) * 127.5).float()

    def _patches(self, images: Tensor) -> Tensor:
        return rearrange(
            images,
            "... (h p) (w q) c -> ... (h w) (p q c)",
            p=self.patch,
            q=self.patch,
        )

    def encode(self, images: UInt8[Tensor, "... H W 3"]) -> Float[Tensor, "... n C"]:
        """Latents of uint8 images; mean 0 and mean variance 1 over the fitted patches."""
        self.fitted(self._mean)
        patches = self._patches(check_frames(images, self.image_size)).to(torch.float32)
        device = patches.device
        flat = patches.flatten(0, -2)
        latents = (flat @ self._encode_weight.to(device)).view(*patches.shape[:-1], -1)
        return rearrange(
            latents + self._encode_bias.to(device),
            "... (h i w j) c -> ... (h w) (i j c)",
            h=self.grid[1],
            i=self.pack,
            j=self.pack,
        )

    def decode(self, latents: Float[Tensor, "... n C"]) -> UInt8[Tensor, "... H W 3"]:
        """The images that latents stand for, rounded and clipped to uint8."""
        self.fitted(self._mean)
        check_latents(latents, self)
        device = latents.device
        latents = rearrange(
            latents.float(),
            "... (h w) (i j c) -> ... (h i w j) c",
            h=self.grid[1],
            i=self.pack,
            j=self.pack,
        )
        pixels = latents @ self._decode_weight.to(device) + self._decode_bias.to(device)
        return rearrange(
            pixels.round().clamp(0, 255).to(torch.uint8),
            "... (h w) (p q c) -> ... (h p) (w q) c",
            h=self.image_size[0] // self.patch,
            p=self.patch,
            q=self.patch,
        )

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.fitted(self._mean), "basis": self._basis, "std": self._std}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> PatchPCA:
        codec = cls.from_config(config)
        size = 3 * codec.patch**2
        places = (codec._cells,) if codec.per_position else ()
        codec._set(
            take(tensors, "mean", (*places, size)),
            take(tensors, "basis", (size, codec.components)),
            take(tensors, "std", (codec.components,)),
        )
        return codec
