"""The command line of the linear probe."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selfflow_wm.checkpoints import find_checkpoint, fingerprint
from selfflow_wm.cli import Parser, compute_device, exit_code, split_name
from selfflow_wm.probing.classifier import PENALTIES
from selfflow_wm.probing.core import probe_checkpoints
from selfflow_wm.probing.features import POOLS
from selfflow_wm.probing.sources import LabelledLatents, check_codec, load_model
from selfflow_wm.probing.table import Table

EPILOG = """\
The data is a safetensors file with `latents` (N, tokens, C), floating point, as the codec of the
checkpoints makes them, integer `labels` (N,), and may hold `codec`, whose hash the checkpoints' must
have then (python -m selfflow_wm.evaluation.labelled writes such files of the toy world). 20% of the rows choose the L2 penalty and 20%
are tested on; the splits and the noise of every row depend on --seed alone.

--out receives probe.json and probe.csv (after every probe) and probe.png. The same command goes on
where it was stopped; more checkpoints, layers or levels add to the table.

example:
  python -m selfflow_wm.probe --data latents.safetensors --out runs/probe \\
      --checkpoint vanilla=runs/flow_matching/checkpoint --checkpoint ours=runs/self_flow/checkpoint \\
      --levels 0,0.25,0.5,0.75
"""  # noqa: E501


def main(arguments: Sequence[str] | None = None) -> int:
    """Probe, write, show; the exit code. 2 and one line on stderr when the input is at fault."""
    options = _parse(arguments)
    return exit_code(lambda: run(options), resumable=True)


def run(options: argparse.Namespace) -> None:
    """What the command does once its line is understood."""
    device = compute_device(options.device)
    checkpoints = _named(options.checkpoint)
    data = LabelledLatents(options.data, options.modality, options.batch_size, options.limit)
    for path in checkpoints.values():
        check_codec(path, data)
    settings = {
        "data_sha256": data.sha256,
        "limit": options.limit,
        "modality": options.modality,
        "pool": options.pool,
        "seed": options.seed,
        "penalties": PENALTIES,
    }
    table = Table(options.out, settings)
    probe_checkpoints(
        checkpoints,
        data,
        table,
        load=load_model,
        fingerprint=fingerprint,
        layers=options.layers,
        levels=options.levels,
        device=device,
        modality=options.modality,
        pool=options.pool,
        seed=options.seed,
    )
    plot = table.write_plot()
    _show(table)
    print(f"{table.path} and probe.csv beside it\n{plot}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m selfflow_wm.probe",
        description="Linear probes of frozen features: accuracy by layer, noise level and "
        "checkpoint.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add(
        "--checkpoint",
        action="append",
        required=True,
        metavar="[NAME=]DIR",
        help="checkpoint directory (model.safetensors, config.json) or a run's; repeat to compare",
    )
    add("--data", required=True, type=Path, metavar="FILE", help="labelled latents, see below")
    add("--out", required=True, type=Path, metavar="DIR", help="where the table goes")
    add("--modality", default="image", help="what the latents are (default: image)")
    add("--layers", type=_layers, metavar="all|1,4,8", help="blocks from 1 (default: all)")
    add(
        "--levels",
        type=_list(float),
        default=[0.0, 0.25, 0.5, 0.75],
        metavar="T,T",
        help="noise levels in [0, 1], 0 is clean (default: 0,0.25,0.5,0.75)",
    )
    add(
        "--pool",
        choices=POOLS,
        default="mean",
        help="mean: a row per sample (default); none: a row per token",
    )
    add("--batch-size", type=int, default=64, help="default: 64")
    add("--limit", type=int, help="use the first rows of the data only")
    add("--seed", type=int, default=0, help="of noise and splits (default: 0)")
    add("--device", default="cpu", help="cpu (default) or cuda")
    return parser.parse_args(arguments)


def _list(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def convert(text: str) -> list[Any]:
        try:
            return [kind(item) for item in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"expected numbers between commas, got {text!r}"
            ) from None

    return convert


def _layers(text: str) -> list[int] | None:
    return None if text == "all" else _list(int)(text)


def _named(values: Sequence[str]) -> dict[str, Path]:
    """NAME=DIR, or DIR named after its last part; a run's directory stands for its newest."""
    checkpoints: dict[str, Path] = {}
    for value in values:
        name, path = split_name(value)
        name = name or Path(path).resolve().name
        if not name or name in checkpoints:
            raise ValueError(
                f"expected checkpoints of distinct names, got {name!r} twice or empty; write "
                "NAME=DIR"
            )
        checkpoints[name] = find_checkpoint(path)
    return checkpoints


def _show(table: Table) -> None:
    """The best layer of every checkpoint and level, judged apart from what chose it."""
    from rich.console import Console
    from rich.table import Table as RichTable

    shown = RichTable("checkpoint", "t", "best layer", "accuracy [95%]", "chance")
    keys = dict.fromkeys((row["checkpoint"], row["level"]) for row in table.rows)
    for name, level in keys:
        here = [r for r in table.rows if (r["checkpoint"], r["level"]) == (name, level)]
        # The test split would flatter the best of many layers; the choosing split names it.
        best = max(here, key=lambda row: row["choose_accuracy"])
        shown.add_row(
            name,
            f"{level:g}",
            str(best["layer"]),
            f"{best['accuracy']:.1%} [{best['low']:.1%}, {best['high']:.1%}]",
            f"{best['chance']:.1%}",
        )
    Console(width=100).print(shown)
    if unfinished := sum(not row["converged"] for row in table.rows):
        print(f"{unfinished} of {len(table.rows)} fits stopped before they converged")
