"""Policies in another process or on another machine, over openpi's websocket protocol.

The protocol is that of Physical-Intelligence/openpi (`websocket_client_policy.py` and
`msgpack_numpy.py` in its `packages/openpi-client`): on connecting the server sends one msgpack map,
its metadata; then each request, a map of observations, is answered with a map that holds
`"actions"`, or with text if the server failed. Arrays travel as maps of bytes, dtype and shape.

A server of this project describes in its metadata, under `METADATA`, the robot that it serves: its
table (`robot`), the `cameras` it looks at, the `keys` of a request, the names of a row's values
(`actions`), `rate` (Hz), `horizon`, and whether it has to see `every_frame`. A request has those
keys, or the names of the table, or those of another protocol that the table's `keys` know (see
`keys`): pictures uint8 (H, W, 3) RGB of any size, the state as the recordings have it, the
instruction. Answered are (H, A) actions as the recordings have them, one row a control step, with
terminate (0 or 1) in one column more where the recordings tell it. Optional: `episode/seed`, the
episode's, `episode/call`, the number of its requests before this one, and `episode/executed`, how
many rows of the answer before were executed (default: the server's `policy.execute`).

To other servers go, for an arm that is moved by its tool,

    observation/image   uint8 (H, W, 3) RGB, as the simulator renders it, or `image_size` square
    observation/state   float32 (8,): tool xyz (m), quaternion xyzw, gripper (0 open, 1 closed), in
                        the robot's base frame; (7,) with `state=axis_angle`
    prompt              the instruction

and expected are `"actions"`, finite, (H, 7) or (H, 8), one row a control step: Δxyz (m), rotation
delta (rad) of the kind `remote.rotation`, gripper in the sense `remote.gripper`, and in an eighth
column terminate (above 0.5). For other environments keys and rows are those of their own table. The
first `remote.execute` rows are executed before the next request.

`messages` is the message format, `policy` the client, `server` serves this project's checkpoints.
"""

METADATA = "selfflow_wm"
"""Key in a server's metadata under which this project's servers describe what they serve."""
