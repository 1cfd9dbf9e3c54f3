"""The reader of signs: decoding, scores, training targets, and a file that comes back."""

import pytest
import torch

from selfflow_wm.data.toy import SPLITS, ToyConfig, ToyWorld
from selfflow_wm.metrics.recogniser import (
    Recogniser,
    _column_classes,
    edit_distance,
    load_recogniser,
    loss,
    merge,
    save_recogniser,
    training_batch,
    word_accuracy,
)

WORLD = ToyWorld()
CONFIG = WORLD.config
TRAIN = SPLITS["train"].start


def test_reading_merges_and_scores():
    assert merge([0, 1, 1, 0, 1, 2, 2, 0]) == "aab"
    assert edit_distance("kitten", "sitting") == 3
    score = word_accuracy(["STOP", "stp", "go"], ["stop", "stop", "go"])
    assert score.right == 2 and score.letter_error == pytest.approx(1 / 10)
    assert score.low < 2 / 3 < score.high
    with pytest.raises(ValueError):
        word_accuracy(["a"], [])


def test_column_classes_spell_the_word():
    for seed in range(TRAIN, TRAIN + 12):
        truth = WORLD.sample("sign", seed).truth
        assert (
            merge(_column_classes(truth.word, truth.letters, CONFIG.width).tolist()) == truth.word
        )


def test_the_recogniser_learns_and_comes_back(tmp_path):
    config = ToyConfig(height=32, width=32)
    images, words, columns = training_batch(0, 4, config)
    torch.manual_seed(0)
    model = Recogniser(32, width=24)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    values = []
    for _ in range(15):
        value = loss(model(images), words, columns)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.7 * values[0]
    model.eval()
    digest = save_recogniser(tmp_path / "r", model, config, {"all": word_accuracy(["a"], ["a"])})
    back, known = load_recogniser(tmp_path / "r")
    assert torch.equal(back(images), model(images)) and known["ceiling"]["all"]["accuracy"] == 1
    assert back.features(images).shape == (4, 48) and known["sha256"] == digest
    file = tmp_path / "r" / "recogniser.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match="SHA-256"):
        load_recogniser(tmp_path / "r")
