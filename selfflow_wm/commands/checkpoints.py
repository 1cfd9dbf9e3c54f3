"""Generate from checkpoints of the toy world, and measure what they made."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfflow_wm.cli import Parser, at_least, compute_device, exit_code
from selfflow_wm.defaults import EVALUATE_STEPS, TOY_SHIFT

EPILOG = """\
Other questions: python -m selfflow_wm.evaluate SUBCOMMAND --help
SUBCOMMANDS

WHICH is a run of selfflow_wm.pretrain on the toy world (its newest checkpoint; with --curve all
under checkpoints/) or a checkpoint's directory. NAME names its arm (default: its objective);
checkpoints of one name that differ in seed are also averaged, with an interval over seeds.

Captions, condition pictures and noise of sample n are the same for all checkpoints, so differences
are paired. Values of true renderings, and of renderings through the codec, stand beside: no model
with these latents can be expected to beat the latter. Where sound is held against the picture, what
true videos with the sound of another score stands below: chance is far from 0. Distances use
features of the toy world's own recogniser unless --features says otherwise: they are no FID, FVD or
FAD of the literature. Those of any two sets of pictures, videos or sounds:
python -m selfflow_wm.evaluate distance.

Results: OUT/results.json, results.html (one file), pictures/, videos/, sounds/. Rerun the same
command to resume; more checkpoints or a larger --samples add to what is there.

examples:
  python -m selfflow_wm.evaluate runs/toy --out runs/toy-eval
  python -m selfflow_wm.evaluate runs/sf runs/fm --out runs/sf-fm --samples 256
  python -m selfflow_wm.evaluate runs/sf --curve --out runs/sf-curve --modes image
  python -m selfflow_wm.evaluate runs/sf --out x --features image=inception:weights/inception.pth
  python -m selfflow_wm.evaluate runs/sf --out x --features video=my_package.Clips:weights.bin
"""


def _parser() -> Parser:
    from selfflow_wm.evaluate import SUBCOMMANDS

    rows = "\n".join(f"  {name:<12}{what}" for name, what in SUBCOMMANDS.items())
    parser = Parser(
        prog="python -m selfflow_wm.evaluate",
        description="Generate images, video, audio and video with its sound from checkpoints of "
        "the toy world, and measure them.",
        epilog=EPILOG.replace("SUBCOMMANDS", rows, 1),
        renamed={"--batch": "--batch-size"},
    )
    add = parser.add_argument
    add("checkpoints", nargs="+", metavar="[NAME=]WHICH", help="runs or checkpoints' directories")
    parser.add_shared("out")
    parser.add_shared("samples", default=128, help="of each mode (%(default)s)")
    parser.add_shared("seed")
    parser.add_shared("steps", default=EVALUATE_STEPS)
    parser.add_shared("shift", default=TOY_SHIFT)
    add("--guidance", type=at_least(0.0), default=1.0, metavar="G",
        help="classifier-free guidance; 1 is none (1.0)")  # fmt: skip
    add("--modes", nargs="+", metavar="MODE", help="image video audio video_audio (all trained)")
    add("--curve", action="store_true", help="all of a run's checkpoints, metric against step")
    parser.add_shared("batch-size", default=16)
    add("--features", nargs="+", default=[], metavar="MODALITY=NAME[:ARGUMENT]",
        help="whose features Fréchet distances compare (toy)")  # fmt: skip
    add("--recogniser", type=Path, metavar="DIR", help="your reader of signs")
    parser.add_shared("device")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0, 2 after a one-line error, 130 when interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(words)
    command = "python -m selfflow_wm.evaluate " + shlex.join(words)
    return exit_code(lambda: run(arguments, command), resumable=True)


def run(arguments: argparse.Namespace, command: str) -> None:
    """What the command does once its line is understood."""
    from selfflow_wm.evaluation.checkpoints import find_checkpoints, representatives
    from selfflow_wm.evaluation.features import Context, make_extractors, parse_features
    from selfflow_wm.evaluation.media import SHOWN, write_media
    from selfflow_wm.evaluation.page import print_results, write_page
    from selfflow_wm.evaluation.recogniser import find_recogniser
    from selfflow_wm.evaluation.results import collect, write_results
    from selfflow_wm.evaluation.run import (
        TRUE,
        Judge,
        measure_all,
        origins,
        pick_modes,
        settings_of,
        stored,
    )
    from selfflow_wm.sampling.parts import claim_settings
    from selfflow_wm.sampling.run import Solve

    a = arguments
    device = compute_device(a.device)
    chosen = parse_features(a.features)
    entries = find_checkpoints(a.checkpoints, a.curve)
    _check_labels([entry.label for entry in entries])
    modes = pick_modes(entries, a.modes)
    world, solve = entries[0].world, Solve(a.steps, a.shift, guidance=a.guidance)
    found, codecs = origins(entries, modes, solve, a.seed, device)
    recogniser, name, known = find_recogniser(world, a.recogniser, a.out)
    context = Context(
        world, recogniser, name, sample_rate=world.sample_rate, fps=world.fps, device=device
    )
    extractors = make_extractors(chosen, context)
    judge = Judge(world, recogniser, extractors)
    settings = settings_of(judge, name, solve, a.seed)
    claim_settings(a.out, settings)
    measure_all(a.out, found, judge, a.samples, a.batch_size)
    results: dict[str, Any] = collect(a.out, entries, modes, codecs, judge, a.samples)
    reader = {"name": name, "sha256": known["sha256"], "ceiling": known["ceiling"]}
    results |= {"command": command, "settings": settings, "recogniser": reader}
    few = min(SHOWN, a.samples)
    asked = {mode: judge.asked(mode, range(few)) for mode in modes}
    shown = {
        mode: {TRUE: stored(a.out, TRUE, mode).raw(few)}
        | {
            entry.label: stored(a.out, entry.fingerprint, mode).raw(few)
            for entry in representatives(entries)
            if mode in entry.modes
        }
        for mode in modes
    }
    results["media"] = write_media(a.out, shown, asked, world)
    path = write_results(a.out, results)
    page = write_page(a.out, results)
    print_results(results)
    print(f"{path}\n{page}")


def _check_labels(labels: Sequence[str]) -> None:
    """ValueError when videos of two checkpoints, or of the true samples, would share a name."""
    from selfflow_wm.evaluation.media import slug
    from selfflow_wm.evaluation.run import TRUE

    taken = {slug(TRUE): "the true samples"}
    for label in labels:
        if (name := slug(label)) in taken or not name:
            raise ValueError(
                f"expected names that differ in letters or digits, got {label!r} beside "
                f"{taken.get(name, 'none')!r}; write NAME=PATH with another"
            )
        taken[name] = label
