"""Linear probes: what frozen layers know of a label, at every noise level."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selfflow_wm.checkpoints import find_checkpoint, fingerprint
from selfflow_wm.cli import Parser, compute_device, perform, split_name
from selfflow_wm.tables import print_table, with_interval

EPILOG = """\
The data is a safetensors file with `latents` (N, tokens, C), floating point, as the codec of the
checkpoints makes them, integer `labels` (N,), and may hold `codec`, the hash that the checkpoints'
codec must then have (python -m selfflow_wm.evaluate labelled writes such files of the toy world).
20% of the rows choose the L2 penalty and 20% are tested on; the splits and the noise of every row
depend on --seed alone.

--out receives probe.json and probe.csv (after every probe) and probe.png. Rerun the same
command to resume; more checkpoints, layers or levels add to the table.

example:
  python -m selfflow_wm.evaluate probe --data latents.safetensors --out runs/probe \\
      --checkpoint fm=runs/flow_matching --checkpoint sf=runs/self_flow --levels 0,0.25,0.5,0.75
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and do it; the exit code."""
    return perform(_parser(), _run, argv, resumable=True)


def _run(options: argparse.Namespace) -> None:
    from selfflow_wm.probing.classifier import PENALTIES
    from selfflow_wm.probing.core import probe_checkpoints
    from selfflow_wm.probing.sources import LabelledLatents, check_codec, load_model
    from selfflow_wm.probing.table import Table

    device = compute_device(options.device)
    checkpoints = _named(options.checkpoint)
    data = LabelledLatents(options.data, options.modality, options.batch_size, options.samples)
    for path in checkpoints.values():
        check_codec(path, data)
    settings = {
        "data_sha256": data.sha256,
        "limit": options.samples,
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


def _parser() -> Parser:
    parser = Parser(
        prog="python -m selfflow_wm.evaluate probe",
        description="Linear probes of frozen features: accuracy by layer, noise level and "
        "checkpoint.",
        epilog=EPILOG,
        renamed={"--limit": "--samples"},
    )
    add = parser.add_argument
    parser.add_shared("checkpoint", action="append", metavar="[NAME=]WHICH",
                      help="a name in checkpoints/, a checkpoint's directory, or a run's (its "
                      "newest); repeat to compare")  # fmt: skip
    add("--data", required=True, type=Path, metavar="FILE", help="labelled latents, see below")
    parser.add_shared("out")
    add("--modality", default="image", help="what the latents are (%(default)s)")
    add("--layers", type=_layers, metavar="all|1,4,8", help="blocks from 1 (all)")
    add("--levels", type=_list(float), default=[0.0, 0.25, 0.5, 0.75], metavar="T,T",
        help="noise levels in [0, 1], 0 is clean (0,0.25,0.5,0.75)")  # fmt: skip
    add("--pool", choices=("mean", "none"), default="mean",
        help="mean: a row per sample (default); none: a row per token")  # fmt: skip
    parser.add_shared("batch-size", default=64)
    parser.add_shared("samples", help="use the first N rows of the data (all)")
    parser.add_shared("seed", help="of noise and splits (%(default)s)")
    parser.add_shared("device")
    return parser


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


def _show(table: Any) -> None:
    """The best layer of every checkpoint and level, judged apart from what chose it."""
    rows = []
    for name, level in dict.fromkeys((row["checkpoint"], row["level"]) for row in table.rows):
        here = [r for r in table.rows if (r["checkpoint"], r["level"]) == (name, level)]
        # The test split would flatter the best of many layers; the choosing split names it.
        best = max(here, key=lambda row: row["choose_accuracy"])
        accuracy = with_interval(best, ".1%", "accuracy")
        rows.append((name, f"{level:g}", best["layer"], accuracy, f"{best['chance']:.1%}"))
    print_table(("checkpoint", "t", "best layer", "accuracy [95%]", "chance"), rows)
    if unfinished := sum(not row["converged"] for row in table.rows):
        print(f"{unfinished} of {len(table.rows)} fits stopped before they converged")
