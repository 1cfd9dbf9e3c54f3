"""Policies in another process or on another machine, over openpi's websocket protocol.

The protocol is that of Physical-Intelligence/openpi (`websocket_client_policy.py` and
`msgpack_numpy.py` in its `packages/openpi-client`): on connecting the server sends one msgpack map,
its metadata; then each request, a map of observations, is answered with a map that holds
`"actions"`, or with text where the server failed. Arrays travel as maps of bytes, dtype and shape.

Sent per request:

    observation/image   uint8 (H, W, 3) RGB, as the simulator draws it, or `image_size` square
    observation/state   float32 (8,): tool xyz (m), quaternion xyzw, gripper (0 open, 1 closed), in
                        the robot's base frame; (7,) with `state=axis_angle`
    prompt              the instruction

and, to servers of ours alone, `episode/seed` and `episode/call`: the episode's seed, and how many
requests it had before this one.

Expected: `"actions"`, finite, (H, 7) or (H, 8), one row a control step: Δxyz (m), rotation delta
(rad) of the kind `remote.rotation`, gripper in the sense `remote.gripper`, and in an eighth column
terminate (above 0.5). The first `remote.execute` rows are executed before the next request.

`messages` is the wire, `policy` the client, `server` the other side for our own checkpoints.
"""

from __future__ import annotations

import importlib
from typing import Any

METADATA = "selfflow_wm"
"""Key of the server's metadata under which our own says what it serves."""


def require(module: str) -> Any:
    """Import `websockets...` or `msgpack`; `ValueError` naming the extra where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"remote: expected the packages of policy servers, got none ({error}); "
            "pip install 'selfflow-wm[remote]'"
        ) from None
