"""A stage that only measures."""

from benchmarks.gpu.record import Bench


def run(bench: Bench) -> None:
    """One figure."""
    bench.figure("answer", 42, "units")
