"""Messages between two processes over a pipe or a socket: JSON and raw array bytes.

Nothing is pickled, so neither side has to trust or match the other's Python and numpy. A
message is two unsigned 32-bit lengths (big endian), a JSON object, and the bytes of its arrays one
after another; the object's `"arrays"` lists their name, dtype and shape. Standard library and
numpy only, because the simulator's interpreter imports this module, too.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from math import prod
from typing import Any

import numpy as np

_LENGTHS = struct.Struct("!II")
_MAX_BYTES = 1 << 28
_KINDS = "biuf"
"""Array kinds that may travel: bool, integers, floats."""


class Closed(EOFError):
    """The other side is gone."""


class TimedOut(TimeoutError):
    """The other side did not answer in time."""


def encode(header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> bytes:
    """One message; `header` holds JSON values, `arrays` numpy arrays of numbers.

    Raises `ValueError` for an array that is not of numbers.
    """
    listed, parts = [], []
    for name, value in (arrays or {}).items():
        array = np.ascontiguousarray(value)
        if array.dtype.kind not in _KINDS:
            raise ValueError(
                f"message: expected arrays of numbers, got {name} of dtype {array.dtype}; "
                "send text in the header"
            )
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        listed.append({"name": name, "dtype": array.dtype.str, "shape": list(np.shape(value))})
        parts.append(array.tobytes())
    text = json.dumps({**header, "arrays": listed}, allow_nan=False).encode()
    body = b"".join(parts)
    return _LENGTHS.pack(len(text), len(body)) + text + body


def decode(text: bytes, body: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of one message; `ValueError` when its parts do not fit together."""
    header = json.loads(text)
    arrays: dict[str, np.ndarray] = {}
    start = 0
    for entry in header.pop("arrays", []):
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        size = dtype.itemsize * prod(shape)
        if dtype.kind not in _KINDS or start + size > len(body):
            raise ValueError(
                f"message: expected {size} bytes of numbers for {entry['name']}, got "
                f"{len(body) - start} and dtype {dtype}; use one version on both sides"
            )
        arrays[entry["name"]] = np.frombuffer(body, dtype, prod(shape), start).reshape(shape).copy()
        start += size
    if start != len(body):
        raise ValueError(
            f"message: expected {start} bytes of arrays, got {len(body)}; "
            "use one version on both sides"
        )
    return header, arrays


def send(fd: int, header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
    """Write one message to a pipe; `Closed` when nobody reads it."""
    view = memoryview(encode(header, arrays))
    try:
        while view:
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        raise Closed("the pipe is closed") from None


def receive(fd: int, timeout: float | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read one message from a pipe.

    Args:
        fd: descriptor of the reading end.
        timeout: seconds for the whole message; None: no limit.

    Raises:
        Closed: the pipe was closed. TimedOut: no whole message in time. ValueError: a bad message.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    text_size, body_size = _LENGTHS.unpack(_read(fd, _LENGTHS.size, deadline))
    if text_size + body_size > _MAX_BYTES:
        raise ValueError(
            f"message: expected at most {_MAX_BYTES} bytes, got {text_size + body_size}; "
            "keep the simulator's output off the pipe"
        )
    return decode(_read(fd, text_size, deadline), _read(fd, body_size, deadline))


def _read(fd: int, count: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise TimedOut(f"{len(parts)} of {count} bytes arrived in time")
        piece = os.read(fd, min(count - len(parts), 1 << 20))
        if not piece:
            raise Closed("the pipe is closed")
        parts += piece
    return bytes(parts)
