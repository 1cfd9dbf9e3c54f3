"""Parameters of the model presets, beside the published ones."""

from __future__ import annotations

from collections.abc import Sequence

from selfflow_wm.cli import Parser
from selfflow_wm.tables import print_table


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit code."""
    Parser(
        prog="python -m selfflow_wm.evaluate sizes",
        description="Parameters of the model presets (configs/model), beside the published ones.",
    ).parse_args(argv)
    from selfflow_wm.sizes import PUBLISHED, measure, presets

    rows = []
    for name in presets():
        size, published = measure(name), PUBLISHED.get(name)
        off = f"{100 * (size.total / published - 1):+.1f}%" if published else ""
        counts = (size.backbone, size.projector, size.total, published)
        millions = [f"{count / 1e6:.1f}M" if count else "" for count in counts]
        rows.append((name, size.width, size.double, size.single, *millions, off))
    print_table(
        ("preset", "width", "double", "single", "backbone", "projector", "total", "published",
         "off by"), rows,
    )  # fmt: skip
    return 0
