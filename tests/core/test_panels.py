"""Panels in a grid and the ticks of losses."""

import io

import pytest
from PIL import Image

from selfflow_wm.panels import panel_grid, to_png
from selfflow_wm.training.curves import dress


@pytest.mark.parametrize(("count", "labelled"), [(1, {0}), (4, {0, 1, 2, 3}), (5, {1, 2, 3, 4})])
def test_the_lowest_panel_of_each_column_has_numbers_below(count, labelled):
    figure, panels = panel_grid(count, across=4, sharex=True)
    for panel in panels:
        panel.plot([0, 1], [0, 1])
    to_png(figure, panels)  # which places the ticks
    assert len(figure.axes) == len(panels) == count
    shown = {
        number
        for number, panel in enumerate(panels)
        if any(tick.label1.get_visible() and tick.label1.get_text()
               for tick in panel.xaxis.get_major_ticks())
    }  # fmt: skip
    assert shown == labelled


def test_the_legend_names_each_line_once():
    figure, panels = panel_grid(2)
    for panel, names in zip(panels, ("ab", "bc"), strict=True):
        for name in names:
            panel.plot([0, 1], [0, 1], label=name)
    with Image.open(io.BytesIO(to_png(figure, panels))) as image:
        assert image.format == "PNG" and image.width > image.height
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["a", "b", "c"]
    empty, panels = panel_grid(1)
    to_png(empty, panels)
    assert not empty.legends


@pytest.mark.parametrize("values", [(1.79, 1.792), (0.95, 1.3), (0.5, 1.8), (0.02, 3.0)])
def test_no_two_numbers_at_an_axis_of_losses_read_the_same(values):
    figure, panels = panel_grid(1)
    (panel,) = panels
    panel.plot([0, 1], values)
    dress(panel, log=True)
    to_png(figure, panels)  # which places the ticks
    ticks = [*panel.yaxis.get_major_ticks(), *panel.yaxis.get_minor_ticks()]
    low, high = panel.get_ylim()
    words = [t.label1.get_text() for t in ticks if low <= t.get_loc() <= high]
    words = [word for word in words if word]
    assert len(words) >= 2 and len(set(words)) == len(words)
