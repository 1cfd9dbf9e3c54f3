"""The Inception network of FID (Szegedy et al. 2016; Heusel et al. 2017), from weights on the disk.

The network of the TensorFlow graph that FID was defined with: average pools that leave the padding
out, and a maximum in the last block. Names are those of the state dict that is commonly passed
around (pt_inception-2015-12-05), which is the user's to bring.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from selfflow_wm.codec.weights import file_digest
from selfflow_wm.interop.official import read_state_dict

SIDE, WIDTH = 299, 2048


class _Conv(nn.Module):
    """Convolution, batch norm, relu; an odd kernel (k, l) keeps the size unless told otherwise."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int] = (1, 1),
        stride: int = 1,
        padding: bool = True,
    ) -> None:
        super().__init__()
        around = (kernel[0] // 2, kernel[1] // 2) if padding else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, around, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class _MixedA(nn.Module):
    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(inputs, 64)
        self.branch5x5_1, self.branch5x5_2 = _Conv(inputs, 48), _Conv(48, 64, (5, 5))
        self.branch3x3dbl_1 = _Conv(inputs, 64)
        self.branch3x3dbl_2, self.branch3x3dbl_3 = _Conv(64, 96, (3, 3)), _Conv(96, 96, (3, 3))
        self.branch_pool = _Conv(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_average(x))], 1)


class _MixedB(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = _Conv(288, 384, (3, 3), 2, padding=False)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(288, 64), _Conv(64, 96, (3, 3))
        self.branch3x3dbl_3 = _Conv(96, 96, (3, 3), 2, padding=False)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class _MixedC(nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        row, column, c = (1, 7), (7, 1), inner
        self.branch1x1 = _Conv(768, 192)
        self.branch7x7_1, self.branch7x7_2 = _Conv(768, c), _Conv(c, c, row)
        self.branch7x7_3 = _Conv(c, 192, column)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = _Conv(768, c), _Conv(c, c, column)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = _Conv(c, c, row), _Conv(c, c, column)
        self.branch7x7dbl_5 = _Conv(c, 192, row)
        self.branch_pool = _Conv(768, 192)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average(x))], 1)


class _MixedD(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = _Conv(768, 192)
        self.branch3x3_2 = _Conv(192, 320, (3, 3), 2, padding=False)
        self.branch7x7x3_1, self.branch7x7x3_2 = _Conv(768, 192), _Conv(192, 192, (1, 7))
        self.branch7x7x3_3 = _Conv(192, 192, (7, 1))
        self.branch7x7x3_4 = _Conv(192, 192, (3, 3), 2, padding=False)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        three = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, 2)], 1)


class _MixedE(nn.Module):
    def __init__(self, inputs: int, maximum: bool) -> None:
        super().__init__()
        row, column = (1, 3), (3, 1)
        self.branch1x1 = _Conv(inputs, 320)
        self.branch3x3_1 = _Conv(inputs, 384)
        self.branch3x3_2a, self.branch3x3_2b = _Conv(384, 384, row), _Conv(384, 384, column)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Conv(inputs, 448), _Conv(448, 384, (3, 3))
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _Conv(384, 384, row), _Conv(384, 384, column)
        self.branch_pool = _Conv(inputs, 192)
        self.maximum = maximum

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, 1, 1) if self.maximum else _average(x)
        parts = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([*parts, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """Pictures in [-1, 1] (B, 3, 299, 299) to their 2048 pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, (3, 3), 2, padding=False)
        self.Conv2d_2a_3x3 = _Conv(32, 32, (3, 3), padding=False)
        self.Conv2d_2b_3x3 = _Conv(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = _Conv(64, 80)
        self.Conv2d_4a_3x3 = _Conv(80, 192, (3, 3), padding=False)
        self.Mixed_5b, self.Mixed_5c = _MixedA(192, 32), _MixedA(256, 64)
        self.Mixed_5d, self.Mixed_6a = _MixedA(288, 64), _MixedB()
        self.Mixed_6b, self.Mixed_6c = _MixedC(128), _MixedC(160)
        self.Mixed_6d, self.Mixed_6e = _MixedC(160), _MixedC(192)
        self.Mixed_7a = _MixedD()
        self.Mixed_7b, self.Mixed_7c = _MixedE(1280, False), _MixedE(2048, True)

    def forward(self, x: Float[Tensor, "B 3 299 299"]) -> Float[Tensor, "B 2048"]:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6e(self.Mixed_6d(x))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


class InceptionFeatures:
    """Features of uint8 pictures of any size, scaled as clean-fid does (Parmar et al. 2022): each
    channel by Pillow's bicubic filter in float32, without rounding.

    weights: the file of the state dict, .pth (read without running code) or .safetensors.
    """

    mixed_sizes: ClassVar = True
    """A list of pictures of several sizes will do as a batch."""

    def __init__(self, weights: Path | str | None, device: torch.device | str = "cpu") -> None:
        if not weights:
            raise ValueError("--features image=inception: expected inception:WEIGHTS, got no file")
        path = Path(weights)
        self.network = load_inception(path).to(device)
        self.device = torch.device(device)
        self.name = f"Inception {file_digest(path)[:12]}, clean-fid's scaling"

    @torch.no_grad()
    def __call__(
        self, samples: UInt8[np.ndarray, "B H W 3"] | Sequence[np.ndarray]
    ) -> Float[np.ndarray, "B 2048"]:
        """Of a batch, or of pictures of several sizes, 32 at a time."""
        rows = []
        for start in range(0, len(samples), 32):
            pixels = torch.from_numpy(np.stack([_scaled(x) for x in samples[start : start + 32]]))
            rows.append(self.network((pixels.to(self.device) - 128) / 128).cpu().numpy())
        return np.concatenate(rows)


def _scaled(picture: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "3 299 299"]:
    planes = [Image.fromarray(plane) for plane in picture.transpose(2, 0, 1).astype(np.float32)]
    return np.stack([np.asarray(p.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for p in planes])


def load_inception(path: Path) -> Inception:
    """The network in evaluation mode; ValueError for other weights or none."""
    if not path.is_file():
        raise ValueError(
            f"{path}: expected the weights of FID's Inception, got nothing there; put "
            "pt_inception-2015-12-05-6726825d.pth (of pytorch-fid) there, nothing is downloaded"
        )
    network = Inception()
    # The classifier is not needed; what counts the batches of a norm may be missing.
    kept = {
        n: v for n, v in read_state_dict(path).items() if not n.startswith(("fc.", "AuxLogits."))
    }
    missing, extra = network.load_state_dict(kept, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or extra:
        raise ValueError(
            f"{path}: expected the tensors of FID's Inception, got {len(missing)} too few and "
            f"{len(extra)} others, such as {[*missing, *extra][0]}; is it another network?"
        )
    return network.eval().requires_grad_(False)
