"""`python -m eval.serve`: one of our checkpoints behind openpi's websocket protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.config import load_config
from eval.policies.remote import METADATA
from eval.policies.remote.server import Server
from eval.policies.spec import fingerprint, parse_policy
from selfflow_wm.cli import Parser, at_least, run_main


def build_parser() -> Parser:
    """The command line of `python -m eval.serve`."""
    parser = Parser(
        prog="python -m eval.serve",
        description="Serve a checkpoint over openpi's websocket protocol.",
        epilog="""examples:
  python -m eval.serve --checkpoint runs/mine/checkpoint --port 8000
  python -m eval.serve --port 8000 policy.steps=16 policy.device=cuda
  python -m eval.simpler --task open_drawer --policy ws://localhost:8000

It answers with all actions of the predicted chunk, whatever policy.execute says: the client decides
how many to execute. GET /healthz says OK. There is no access control: listen where you trust.
""",
    )
    add = parser.add_argument
    add(
        "--checkpoint",
        metavar="DIR",
        help="directory of a checkpoint or of its run (the newest), or a name in checkpoints/ "
        "(default: the shipped checkpoints/self_flow)",
    )
    add("--host", default="127.0.0.1", help="address to listen at (default %(default)s)")
    add("--port", type=at_least(0), default=8000, help="default %(default)s; 0 takes a free one")
    add("overrides", nargs="*", metavar="key=value", help="hydra overrides of configs/eval.yaml")
    return parser


def make_server(
    checkpoint: str | None, host: str, port: int, config: dict[str, Any], threads: int | None = None
) -> Server:
    """A server of a checkpoint; see `Server`. threads: torch's, None leaves them."""
    from robotics.model.policy import CheckpointPolicy
    from robotics.model.world_model import WorldModel

    spec = parse_policy("checkpoint", checkpoint, config)
    options = dict(spec.options)
    world = WorldModel.load(spec.path, device=options.pop("device"))
    options["execute"] = world.horizon

    def make_policy() -> CheckpointPolicy:
        return CheckpointPolicy(world, threads=threads, **options)

    make_policy()  # so that bad options are refused now and not by the first client
    served = {
        "embodiment": world.embodiment.name,
        "checkpoint_sha256": fingerprint(spec),
        "options": spec.options,
        "horizon": world.horizon,
        "rotation": "axis_angle",
        "gripper": "close_positive",
        "state": "quaternion",
    }
    return Server(make_policy, {METADATA: served}, host, port)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m eval.serve`; returns the exit code."""
    args = build_parser().parse_intermixed_args(argv)
    server = make_server(args.checkpoint, args.host, args.port, load_config(args.overrides))
    print(f"serving at ws://{args.host}:{server.port}", flush=True)
    try:
        server.serve_forever()
    finally:
        server.shutdown()
    return 0


if __name__ == "__main__":
    run_main(main)
