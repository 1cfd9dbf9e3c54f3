"""The plot of a table of probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfflow_wm.panels import panel_grid, to_png

COLUMNS = 4
"""Panels beside each other."""


def draw(rows: Sequence[dict[str, Any]]) -> bytes:
    """A PNG: accuracy by layer with its 95% band, a panel per level, a line per checkpoint.

    The dashed line is chance. Expects at least one row.
    """
    levels = sorted({row["level"] for row in rows})
    names = list(dict.fromkeys(row["checkpoint"] for row in rows))
    figure, panels = panel_grid(len(levels), COLUMNS, sharex=True, sharey=True)
    for panel, level in zip(panels, levels, strict=True):
        here = [row for row in rows if row["level"] == level]
        for color, name in enumerate(names):
            line = sorted(
                (row for row in here if row["checkpoint"] == name), key=lambda row: row["layer"]
            )
            layers = [row["layer"] for row in line]
            panel.fill_between(
                layers, [row["low"] for row in line], [row["high"] for row in line],
                color=f"C{color}", alpha=0.15, linewidth=0,
            )  # fmt: skip
            panel.plot(
                layers, [row["accuracy"] for row in line], f"C{color}o-", label=name,
                markersize=3, linewidth=1.2,
            )  # fmt: skip
        dress(panel, level, here[0]["chance"])
    for panel in panels[::COLUMNS]:
        panel.set_ylabel("accuracy")
    return to_png(figure, panels)


def dress(panel: Any, level: float, chance: float) -> None:
    """Axes, title and chance line of a panel of accuracy by layer."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    panel.axhline(chance, color="gray", linestyle="--", linewidth=0.8)
    panel.set_title(f"t = {level:g}", fontsize=10)
    panel.set_xlabel("layer")
    panel.grid(alpha=0.25)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
