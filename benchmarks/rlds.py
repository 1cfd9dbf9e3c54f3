"""Windows from RLDS data: our reader beside tf.data as Octo uses it, tf.data + rlds, data_source.

    python -m benchmarks.rlds --tf-python .venv-rlds/bin/python
    python -m benchmarks.rlds --tf-python ... --grow 10     # what stays flat on a larger set
    python -m benchmarks.rlds --tf-python ... --check       # whether all serve the same windows

The set is made up: RT-1's features, 256 x 320 JPEGs of about 30 kB, equal episodes. A batch is 8
windows of 9 frames at 128 x 160. Each contender is a separate process, all others stopped while
it works; rounds of all of them alternate. CPU time is of all threads, from one reply to the next.
"groups" serves the windows of a few open episodes together, in a set and a buffer the size of the
others' shuffle buffers; "random" is a permutation of all windows. "JPEG" decodes what it serves
(frames used last stay in a bounded cache) and averages it to its size, "draft" decodes it straight
to half size as tf.data + rlds does here, "pixels" reads frames that were decoded at first use.
The first batch is timed from the start of the process, with our index or pixels there already; what
making them takes is printed apart. TensorFlow runs in the interpreter of --tf-python, or in this
one with the extra `rlds`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.rlds_data import as_array_record, made_set
from benchmarks.rlds_readers import CONTENDERS, NEEDS_TENSORFLOW
from benchmarks.rlds_scale import extrapolate

ROOT = Path(__file__).resolve().parent.parent
REFERENCES = ("octo/dlimp style", "tf.data + rlds tuned")


class Reader:
    """A contender's process, stopped except while it is asked."""

    def __init__(self, name: str, python: str, settings: dict[str, Any]) -> None:
        self.name = name
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [python, "-m", "benchmarks.rlds_readers", name, json.dumps(settings)]
        began = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        first = self.ask(1)
        self.first = time.perf_counter() - began
        self.start_cpu = first["cpu"]
        self.rows: list[dict[str, float]] = []

    def ask(self, batches: int) -> dict[str, float]:
        """The cost of serving `batches` batches."""
        self.process.send_signal(signal.SIGCONT)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{batches}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: its process ended with {self.process.wait()}")
        self.process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def interpreters(tf_python: str | None) -> dict[str, str]:
    """The interpreter of each contender that can run; prints which are left out."""
    if tf_python is None and all(map(importlib.util.find_spec, ("tensorflow", "rlds"))):
        tf_python = sys.executable
    chosen = {}
    for name in CONTENDERS:
        if name in NEEDS_TENSORFLOW and tf_python is None:
            print(
                f"NOT MEASURED: {name} needs TensorFlow; name an interpreter that has "
                "'selfflow-wm[rlds]' with --tf-python",
                file=sys.stderr,
            )
        else:
            chosen[name] = str(tf_python) if name in NEEDS_TENSORFLOW else sys.executable
    return chosen


def settings_for(directory: Path, a: argparse.Namespace, array_record: bool) -> dict[str, Any]:
    """The settings of a contender."""
    settings = {name: getattr(a, name) for name in ("size", "batch", "threads", "group", "steps")}
    settings |= {"directory": str(directory), "cache_mb": a.cache_mb, "buffer": a.buffer}
    return settings | ({"array_record": str(as_array_record(directory))} if array_record else {})


def check(directory: Path, chosen: dict[str, str], a: argparse.Namespace) -> bool:
    """Print whether every contender's windows are ours, see `benchmarks.rlds_check`."""
    fine = True
    settings = json.dumps(settings_for(directory, a, "tfds.data_source" in chosen))
    print(f"{'':<22}{'windows':>9}{'known':>7}{'different':>11}{'worst frame':>13}")
    for python in dict.fromkeys(chosen.values()):
        names = json.dumps([name for name, its in chosen.items() if its == python])
        command = [python, "-m", "benchmarks.rlds_check", names, settings]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        ran = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for row in map(json.loads, ran.stdout.splitlines()):
            print(
                f"{row['name']:<22}{row['windows']:>9}{row['found']:>7}{row['different']:>11}"
                f"{row['worst']:>13.2f}" + ("" if row["same"] else "  NOT THE SAME")
            )
            fine &= row["same"]
        fine &= ran.returncode == 0
    return fine


def prepare(directory: Path, a: argparse.Namespace, names: list[str]) -> None:
    """Let our reader make its index and its pixels, and print what that takes."""
    for kind in ("JPEG", "pixels"):
        name = f"ours, {kind}, groups"
        if not any(other.startswith(f"ours, {kind}") for other in names):
            continue
        reader = Reader(name, sys.executable, settings_for(directory, a, False))
        reader.close()
        print(f"  first use, {kind}: {reader.first:.1f} s, {reader.start_cpu:.1f} CPU s")


def measure(directory: Path, chosen: dict[str, str], a: argparse.Namespace) -> list[Reader]:
    """Start all, then rounds in turn."""
    readers: list[Reader] = []
    try:
        for name, python in chosen.items():
            settings = settings_for(directory, a, name == "tfds.data_source")
            readers.append(Reader(name, python, settings))
        for reader in readers:  # fills shuffle buffers
            reader.ask(a.warm)
        for _ in range(a.rounds):
            for reader in readers:
                reader.rows.append(reader.ask(a.batches))
    finally:
        for reader in readers:
            reader.close()
    return readers


def report(readers: list[Reader], a: argparse.Namespace) -> None:
    """A row for each contender; ratios are medians of those within a round."""
    windows = a.batches * a.batch
    known = {reader.name: reader for reader in readers}
    references = [name for name in REFERENCES if name in known]
    heads = "".join(f"{'x ' + name.split()[0]:>13}" for name in references)
    print(
        f"{'':<22}{'windows/s':>10}{'CPU ms/window':>15}{'first batch':>13}{'its CPU':>9}"
        f"{'peak RSS':>10}" + heads
    )
    for reader in readers:
        rate = statistics.median(windows / row["wall"] for row in reader.rows)
        cost = statistics.median(1e3 * row["cpu"] / windows for row in reader.rows)
        ratios = ""
        for name in references:
            pairs = zip(known[name].rows, reader.rows, strict=True)
            ratios += f"{statistics.median(o['cpu'] / r['cpu'] for o, r in pairs):>13.2f}"
        print(
            f"{reader.name:<22}{rate:>10.0f}{cost:>15.2f}{reader.first:>11.1f} s"
            f"{reader.start_cpu:>7.1f} s{reader.rows[-1]['peak']:>7.0f} MB{ratios}"
        )


def grow(small: Path, chosen: dict[str, str], a: argparse.Namespace) -> None:
    """The same on a set `a.grow` times as large, side by side."""
    large = made_set(a.root, a.episodes * a.grow, a.steps)
    frames = a.episodes * a.grow * a.steps
    decoded = frames * 3 * a.size[0] * a.size[1]
    print(
        f"\n{a.grow} times as large: {a.episodes * a.grow} episodes, {frames} frames, decoded "
        f"{decoded / 1e6:.0f} MB = {decoded / 1e6 / a.cache_mb:.0f} x the cache of {a.cache_mb:g} "
        "MB of decoded frames"
    )
    names = ["ours, JPEG, groups", "ours, pixels, random"]
    names = [name for name in (*names, *REFERENCES[:1]) if name in chosen]
    prepare(large, a, names)
    print(f"{'':<22}{'first batch':>20}{'its CPU':>20}{'peak RSS':>20}{'CPU ms/window':>20}")
    for name in names:
        pairs = [measure(place, {name: chosen[name]}, a)[0] for place in (small, large)]
        columns = [
            [f"{reader.first:.1f}" for reader in pairs],
            [f"{reader.start_cpu:.1f}" for reader in pairs],
            [f"{reader.rows[-1]['peak']:.0f}" for reader in pairs],
            [f"{1e3 * cost(reader) / a.batch / a.batches:.2f}" for reader in pairs],
        ]
        print(f"{name:<22}" + "".join(f"{' -> '.join(pair):>20}" for pair in columns))


def cost(reader: Reader) -> float:
    """Median CPU seconds of a round."""
    return statistics.median(row["cpu"] for row in reader.rows)


def main() -> None:
    """Entry."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tf-python", metavar="PATH", help="interpreter with the extra rlds")
    add("--root", type=Path, default=Path("/tmp/selfflow-rlds"), help="where sets are made")
    add("--episodes", type=int, default=60)
    add("--steps", type=int, default=43, help="of each episode; RT-1's mean")
    add("--batch", type=int, default=8)
    add("--batches", type=int, default=64, help="of a round")
    add("--warm", type=int, default=40, help="batches before the rounds")
    add("--rounds", type=int, default=7)
    add("--threads", type=int, default=2, help="that decode in our reader")
    add("--buffer", type=int, default=256, help="windows in the others' shuffle buffers")
    add("--group", type=int, default=8, help="episodes our reader has open in groups")
    add("--cache-mb", type=float, default=32.0, help="decoded frames our reader keeps in memory")
    add("--size", type=int, nargs=2, default=[128, 160])
    add("--only", nargs="+", choices=CONTENDERS, metavar="NAME", help="; ".join(CONTENDERS))
    add("--grow", type=int, default=0, metavar="N", help="compare with a set N times as large")
    add("--check", action="store_true", help="compare the windows instead; exit code 1: not ours")
    a = parser.parse_args()
    chosen = interpreters(a.tf_python)
    chosen = {name: python for name, python in chosen.items() if name in (a.only or chosen)}
    small = made_set(a.root, a.episodes, a.steps)
    if a.check:
        sys.exit(not check(small, chosen, a))
    print(
        f"{a.episodes} episodes of {a.steps} steps; batches of {a.batch} windows, {a.batches} a "
        f"round, {a.rounds} rounds; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    prepare(small, a, list(chosen))
    report(measure(small, chosen, a), a)
    if a.grow:
        grow(small, chosen, a)
    extrapolate(small, a.size, a.cache_mb)


if __name__ == "__main__":
    main()
