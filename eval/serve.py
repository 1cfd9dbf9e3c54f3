"""`python -m eval.serve`: serves a checkpoint over openpi's websocket protocol."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from eval.policies.options import OptionParser, load_config
from eval.policies.remote import METADATA
from eval.policies.remote.server import serve_checkpoint
from selfflow_wm.cli import Parser, at_least, run_main


def build_parser() -> Parser:
    """The command line of `python -m eval.serve`."""
    parser = OptionParser(
        prog="python -m eval.serve",
        description="Serve a checkpoint over openpi's websocket protocol.",
        epilog="""examples:
  python -m eval.serve --checkpoint runs/mine/checkpoint --port 8000
  python -m eval.serve --port 8000 policy.steps=16 policy.device=cuda
  python -m eval.simpler --task open_drawer --policy ws://localhost:8000

It returns all actions of the predicted chunk, as the robot's recordings have them; its metadata say
what that is. The client decides how many to execute, and policy.execute is what the server takes it
to be where the client does not say. GET /healthz returns OK. There is no access control: listen on
a trusted network.
""",
    )
    add = parser.add_argument
    parser.add_shared(
        "checkpoint", required=False,
        help="a name in checkpoints/, a checkpoint's directory, or a run's (its newest); default: "
        "self_flow",
    )  # fmt: skip
    add("--robot", metavar="NAME", help="of a checkpoint with several robots, the one to act for")
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add("--port", type=_port, default=8000, help="default %(default)s; 0 picks a free one")
    add("overrides", nargs="*", metavar="key=value", help="hydra overrides of configs/eval.yaml")
    return parser


def _port(text: str) -> int:
    port = at_least(0)(text)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"expected a port of 0 to 65535, got {port}; write 8000")
    return port


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m eval.serve`; returns the exit code."""
    args = build_parser().parse_intermixed_args(argv)
    config = load_config(args.overrides)
    server = serve_checkpoint(args.checkpoint, args.host, args.port, config, robot=args.robot)
    print(f"serving at ws://{args.host}:{server.port}")
    print(summary(server.metadata), flush=True)
    try:
        server.serve_forever()
    finally:
        server.shutdown()
    return 0


def summary(metadata: Mapping[str, Any]) -> str:
    """What a server's clients send and get, in lines."""
    served = metadata[METADATA]
    rows = 1 if served["every_frame"] else served["horizon"]
    keys = [key for name, key in served["keys"].items() if name != "action"]
    return (
        f"robot    {served['robot']['name']}, {served['rate']:g} Hz\n"
        f"request  {', '.join(keys)}\n"
        f"answer   {rows} row{'s' * (rows > 1)} of {', '.join(served['actions'])}"
    )


if __name__ == "__main__":
    run_main(main)
