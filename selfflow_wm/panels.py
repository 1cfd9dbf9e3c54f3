"""Small multiples: panels in a grid, one legend for all below them, as a PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT = 3.5, 2.8
"""Inches a panel."""


def panel_grid(count: int, across: int = 4, **shared: Any) -> tuple[Any, list[Any]]:
    """A matplotlib figure and its `count` (> 0) panels, row by row, at most `across` in a row.

    shared: sharex, sharey of `Figure.subplots`.
    """
    from matplotlib.figure import Figure

    across = min(across, count)
    down = -(-count // across)
    figure = Figure(figsize=(0.6 + WIDTH * across, 0.8 + HEIGHT * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, **shared).ravel()
    for panel in panels[count:]:
        panel.remove()
    for panel in panels[max(0, count - across) : count]:
        panel.tick_params(
            labelbottom=True
        )  # a shared axis would leave the labels to a removed panel
    return figure, list(panels[:count])


def to_png(figure: Any, panels: Sequence[Any]) -> bytes:
    """The figure with a legend that names every line of the panels once."""
    lines = {
        label: handle
        for panel in panels
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if lines:
        figure.legend(
            lines.values(), lines.keys(), loc="outside lower center", ncols=min(4, len(lines))
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
