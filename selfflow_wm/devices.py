"""Copies to the device that neither side waits for."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor` on `device`; a copy from the host to a GPU goes through pinned memory, and the host
    does not wait for it.

    A plain `.to` from pageable memory would wait until the GPU has done all that was asked of it
    before. The way back, from a GPU to the CPU, has to wait and does.
    """
    device = torch.device(device)
    if tensor.device == device:
        return tensor
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type != "cpu")
