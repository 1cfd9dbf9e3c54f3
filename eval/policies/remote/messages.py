"""msgpack with numpy arrays, as openpi writes them; nothing is pickled."""

from __future__ import annotations

from typing import Any, cast

import msgpack
import numpy as np

MAX_BYTES = 1 << 26
"""Of one message, either way."""
_KINDS = "biufSU"


def pack(value: Any) -> bytes:
    """Maps, lists, text, numbers and numpy arrays or scalars of numbers to bytes."""
    return cast(bytes, msgpack.packb(value, default=_encode))


def unpack(data: bytes) -> Any:
    """The value of `pack`; `ValueError` for anything else than whole messages of such values.

    Arrays are copies that may be written to.
    """
    try:
        return msgpack.unpackb(data, object_hook=_decode)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(
            f"message: expected msgpack with numeric arrays, got {type(error).__name__}: {error}; "
            "check that both sides speak openpi's protocol"
        ) from None


def _encode(value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"expected numbers, text, maps, lists or arrays, got {type(value)}")
    if value.dtype.kind not in _KINDS:
        raise ValueError(f"expected an array of numbers, got dtype {value.dtype}")
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return {
        b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str,
        b"shape": value.shape,
    }  # fmt: skip


def _decode(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" not in value and b"__npgeneric__" not in value:
        return value
    dtype = np.dtype(value[b"dtype"])
    if dtype.kind not in _KINDS:
        raise ValueError(f"an array of dtype {dtype}")
    if b"__npgeneric__" in value:
        return dtype.type(value[b"data"])
    return np.frombuffer(value[b"data"], dtype).reshape(value[b"shape"]).copy()
