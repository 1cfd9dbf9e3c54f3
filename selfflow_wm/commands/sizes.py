"""Parameters of the model presets, beside the published ones."""

from __future__ import annotations

from collections.abc import Sequence

from selfflow_wm.cli import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit code."""
    Parser(
        prog="python -m selfflow_wm.evaluate sizes",
        description="Parameters of the model presets (configs/model), beside the published ones.",
    ).parse_args(argv)
    from selfflow_wm.sizes import PUBLISHED, measure, presets

    print(
        f"{'preset':<8}{'width':>6}{'double':>8}{'single':>8}{'backbone':>12}{'projector':>11}"
        f"{'total':>10}{'published':>11}{'off by':>8}"
    )
    for name in presets():
        size = measure(name)
        published = PUBLISHED.get(name)
        last = (
            ""
            if published is None
            else (f"{published / 1e6:>10.0f}M{100 * (size.total / published - 1):>+7.1f}%")
        )
        print(
            f"{name:<8}{size.width:>6}{size.double:>8}{size.single:>8}"
            f"{size.backbone / 1e6:>11.1f}M{size.projector / 1e6:>10.1f}M"
            f"{size.total / 1e6:>9.1f}M{last}"
        )
    return 0
