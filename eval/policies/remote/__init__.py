"""Policies in another process or on another machine, over openpi's websocket protocol.

The protocol is that of Physical-Intelligence/openpi (`websocket_client_policy.py` and
`msgpack_numpy.py` in its `packages/openpi-client`): on connecting the server sends one msgpack map,
its metadata; then each request, a map of observations, is answered with a map that holds
`"actions"`, or with text if the server failed. Arrays travel as maps of bytes, dtype and shape.

Sent per request:

    observation/image   uint8 (H, W, 3) RGB, as the simulator renders it, or `image_size` square
    observation/state   float32 (8,): tool xyz (m), quaternion xyzw, gripper (0 open, 1 closed), in
                        the robot's base frame; (7,) with `state=axis_angle`
    prompt              the instruction

and, to servers of this project alone, `episode/seed` and `episode/call`: the episode's seed, and
the number of requests in the episode before this one.

Expected: `"actions"`, finite, (H, 7) or (H, 8), one row a control step: Δxyz (m), rotation delta
(rad) of the kind `remote.rotation`, gripper in the sense `remote.gripper`, and in an eighth column
terminate (above 0.5). The first `remote.execute` rows are executed before the next request.

`messages` is the message format, `policy` the client, `server` serves this project's checkpoints.
"""

METADATA = "selfflow_wm"
"""Key in a server's metadata under which this project's servers describe what they serve."""
