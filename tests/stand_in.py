"""A stand-in for a GPU, to find on a CPU where the host would have to wait for one.

Tensors on torch's meta device have shapes and no numbers, and whatever would wait for a GPU is an
operator of its own: reading a scalar, results whose shape depends on numbers, copies.
`no_waiting` lets no such operator through.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import torch
from torch.optim import optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = "meta"
aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense,  # item, float, bool, tolist, `if tensor`
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
}


class Waited(AssertionError):
    """The host would have had to wait for the device."""


class _Host(torch.Generator):
    """meta has no generators: one of the host's in its place."""

    def __new__(cls, device="cpu"):
        device = torch.device(device)
        return super().__new__(cls, device="cpu" if device.type == DEVICE else device)


class _Made(TorchFunctionMode):
    """What a generator draws is drawn on the device, as by a generator of the device, if `draws`;
    nothing is made there out of numbers of the host."""

    def __init__(self, draws):
        super().__init__()
        self.draws = draws

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if self.draws and kwargs.get("generator") is not None and "device" in kwargs:
            kwargs["device"] = DEVICE
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if args[0].device.type == DEVICE and any(isinstance(i, list) for i in index):
                raise Waited(f"{func.__name__} by a list, a copy that is waited for")
        numbers = func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
        result = func(*args, **kwargs)
        source = args[0] if func is not torch.Tensor.new_tensor else args[1]
        if numbers and result.device.type == DEVICE and not isinstance(source, torch.Tensor):
            raise Waited(f"{func.__name__} of numbers of the host, a copy that is waited for")
        return result


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        here = [x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        packet = func.overloadpacket
        if DEVICE in here and (packet in WAITS or func is aten.repeat_interleave.Tensor):
            raise Waited(f"{func}")
        if packet in (aten.index, aten.index_put, aten.index_put_, aten._unsafe_index):
            _check_indices(func, args)
        if packet in (aten.copy_, aten._to_copy):
            _check_copy(func, args, kwargs)
        return func(*args, **kwargs)


def _check_indices(func, args):
    for index in args[1]:
        if index is not None and args[0].device.type == DEVICE:
            if index.dtype in (torch.bool, torch.uint8):
                raise Waited(f"{func} by a mask, whose result has the shape of its numbers")
            if index.device.type != DEVICE:
                raise Waited(f"{func} by indices on the host")


def _check_copy(func, args, kwargs):
    if func.overloadpacket is aten.copy_:
        target, source = args[:2]
        late, target = kwargs.get("non_blocking") or any(args[2:]), target.device.type
    else:
        source, late = args[0], kwargs.get("non_blocking")
        target = torch.device(kwargs.get("device") or source.device).type
    source = source.device.type
    if source == DEVICE and target != DEVICE:
        raise Waited(f"{func} from the device to the host")
    if source != DEVICE and target == DEVICE and not late:
        raise Waited(f"{func} from the host to the device, waited for")


@contextmanager
def no_waiting(draws: bool = True):
    """Raises `Waited` where the host would wait for the device.

    draws: what generators draw is drawn on the device, also by those that are the host's."""
    with _Made(draws), _Operators():
        yield


def use(monkeypatch):
    """Let generators, autocast and the fused optimiser take the device, which has none of them."""
    autocast = torch.autocast
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda device, *args, **options: (
            nullcontext() if device == DEVICE else autocast(device, *args, **options)
        ),
    )
    monkeypatch.setattr(torch, "Generator", _Host)
    supported = optimizer._get_fused_kernels_supported_devices()
    monkeypatch.setattr(
        optimizer, "_get_fused_kernels_supported_devices", lambda: [*supported, DEVICE]
    )
