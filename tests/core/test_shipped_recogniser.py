"""The reader of signs that comes with the package."""

import numpy as np
import pytest
import torch

from selfflow_wm.data.toy import ToyConfig, ToySource
from selfflow_wm.evaluation.recogniser import find_recogniser, shipped
from selfflow_wm.metrics.recogniser import word_accuracy


@pytest.mark.parametrize("side", [48, 64])  # that of experiment=toy_multimodal, the default one
def test_it_reads_true_signs_about_as_well_as_it_says(tmp_path, side):
    config = ToyConfig(side, side)
    if not shipped(config).is_dir():
        pytest.skip(f"no recogniser is shipped: {shipped(config)}")
    model, name, known = find_recogniser(config, None, tmp_path)
    assert not list(tmp_path.iterdir()), "nothing was trained: it is shipped"
    assert known["sha256"][:12] in name
    source = ToySource("image", 10**6, "test", config)
    signs = [source.rendering(200_000 + n) for n in range(100)]  # not those of its ceiling
    read = model.read(torch.from_numpy(np.stack([sign.image for sign in signs])))
    score = word_accuracy(read, [sign.truth.word for sign in signs])
    ceiling = known["ceiling"]["all"]
    assert score.low <= ceiling["high"] and score.high >= ceiling["low"]
