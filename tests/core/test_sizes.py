"""Preset networks against the published parameter counts."""

import pytest

from selfflow_wm.commands.sizes import main
from selfflow_wm.sizes import PUBLISHED, measure, presets


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_sizes_within_three_percent(name):
    assert measure(name).total == pytest.approx(PUBLISHED[name], rel=0.03)


def test_head_width_of_the_published_models_gives_24_channels_to_each_axis():
    # rotary_table divides a head's pairs over the three axes: 72 / 2 / 3 = 12 pairs.
    from omegaconf import OmegaConf

    from selfflow_wm.sizes import PRESETS

    for name in PUBLISHED:
        shape = OmegaConf.load(PRESETS / f"{name}.yaml")
        assert shape.width / shape.heads == 72


def test_the_table_lists_every_preset(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == presets()
    assert {"tiny", "small", *PUBLISHED} <= set(presets())
